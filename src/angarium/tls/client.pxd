from libc.stdint cimport uint8_t
from angarium.model.octets cimport octets
from angarium.tls.ctls cimport tls_client_context, tls_receive_result, tls_session


cdef class ClientContext:
    """Whom we trust and what we show. Owns the C context."""
    cdef tls_client_context *context


cdef class ClientTls:
    """One connection of ours under TLS. Owns the C session; the context is kept alive by a reference."""
    cdef tls_session *session
    cdef readonly ClientContext context

    cdef int connect_dane(self, bytes name, bytes key, tuple records, list more_names) except -1
    cdef bint is_up(self) noexcept
    cdef tls_receive_result receive(self, const uint8_t *data, size_t length, uint8_t *plain, size_t capacity,
                                    size_t *plain_length) noexcept
    cdef int send(self, const uint8_t *plain, size_t length) noexcept   # -1: it failed
    cdef octets *take_output(self) noexcept             # NULL when there is none
    cdef void close(self) noexcept                      # close_notify into the output
    cdef const char *version_text(self) noexcept        # static texts
    cdef const char *cipher_text(self) noexcept
