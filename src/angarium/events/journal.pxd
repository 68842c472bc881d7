from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef class Journal:
    """Writes one JSON line per event into a buffer; the buffer goes out every 20 ms or sooner when large.

    Between begin() and end() call text()/number() in the order the keys shall have. Octets are escaped for JSON; octets
    that are not UTF-8 become U+FFFD. Nothing here raises; a line that could not be written is counted.
    """
    cdef uint8_t *buffer
    cdef size_t length
    cdef size_t capacity
    cdef int fd
    cdef bint is_pipe
    cdef bint flush_is_due
    cdef object loop
    cdef public object outcomes     # who is told what became of recipients, besides (policy/outcomes.py), or None
    cdef uint64_t stamp_ms          # the second/ms whose text is cached
    cdef char stamp[32]
    cdef size_t line_start
    cdef bint line_is_lost
    cdef bint is_first_item

    cdef bint room(self, size_t more) noexcept
    cdef void raw(self, const char *text, size_t length) noexcept
    cdef void key(self, const char *key) noexcept
    cdef void escaped(self, unsigned unit) noexcept         # one unit of UTF-16
    cdef void string(self, const uint8_t *data, size_t length) noexcept
    cdef void decimal(self, uint64_t value) noexcept

    cdef void begin(self, const char *event) noexcept       # {"time":"2026-01-01T00:00:00.000Z","event":"received"
    cdef void id(self, const char *key, uint64_t message_id) noexcept     # 13 characters, as spool_id_encode
    cdef void text(self, const char *key, const uint8_t *data, size_t length) noexcept
    cdef void texts_begin(self, const char *key) noexcept   # "key":[
    cdef void texts_item(self, const uint8_t *data, size_t length) noexcept
    cdef void texts_end(self) noexcept
    cdef void number(self, const char *key, int64_t value) noexcept
    cdef void seconds(self, const char *key, uint64_t milliseconds) noexcept    # 1.234
    cdef void end(self) noexcept                            # }\n, and a flush within 20 ms
    cpdef void flush(self) noexcept
