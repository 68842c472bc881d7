from libc.stdint cimport uint8_t, uint64_t


cdef class Witness:
    """Looks on at one dialogue as the session understands it, and tells an observer. It changes nothing."""
    cdef readonly object observer
    cdef size_t data_octets             # of message data, from the beginning of a message; 0: none

    cdef void command(self, const uint8_t *line, size_t length) noexcept
    cdef void response(self, size_t length) noexcept                        # of AUTH: a secret
    cdef void noise(self, const uint8_t *data, size_t length) noexcept      # no line, or one that is too long
    cdef void message(self, uint64_t length) noexcept                       # octets of message data, so many more
    cdef void data(self, const uint8_t *data, size_t length) noexcept       # and which
    cdef void reply(self, const void *data, size_t length) noexcept
