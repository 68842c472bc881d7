from libc.stdint cimport uint8_t
from angarium.model.octets cimport octets
from angarium.tls.context cimport ServerContext
from angarium.tls.ctls cimport tls_receive_result, tls_session


cdef class TlsSession:
    """One connection under TLS. Owns the C session; the context is kept alive by a reference."""
    cdef tls_session *session
    cdef readonly ServerContext context
    cdef bint is_failure_told                   # in the journal, once
    cdef readonly bint is_resumed               # by a session ticket
    cdef readonly bint is_verified              # the client's certificate, by the context's CA
    cdef readonly bytes fingerprint             # SHA-256 of it, 32 octets; None: it showed none

    cdef bint is_established(self) noexcept
    cdef tls_receive_result receive(self, const uint8_t *data, size_t length, uint8_t *plain, size_t capacity,
                                    size_t *plain_length) noexcept
    cdef octets *sealed(self, octets *plain) noexcept   # takes over `plain`; NULL when nothing can be said
    cdef octets *take_output(self) noexcept
    cdef void close(self) noexcept                      # close_notify into the output
    cdef void look_at_peer(self) noexcept               # once established: sets the facts above
    cdef const char *version_text(self) noexcept        # static texts
    cdef const char *cipher_text(self) noexcept
    cdef const char *failure_text(self) noexcept
