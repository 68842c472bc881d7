from libc.stdint cimport uint8_t
from angarium.inbound.connection cimport InboundConnection

# The client is known: who is welcome hears the greeting. `length`: octets it has sent already.
cdef void welcome(InboundConnection connection, size_t early_length) noexcept
