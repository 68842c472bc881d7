from libc.stdint cimport uint8_t
from angarium.tls.ctls cimport tls_context, tls_ticket_keys


cdef class TicketKeys:
    cdef tls_ticket_keys *keys
    cdef size_t octets


cdef class ServerContext:
    cdef tls_context *context
    cdef TicketKeys tickets             # keeps the memory that the context reads
    cdef readonly bytes client_ca_digest
