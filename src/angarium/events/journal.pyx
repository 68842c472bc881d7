# The event log: one JSON object per line, one line per event. Not a general logger: keys are given by the code
# that knows the event, values are escaped here, and nothing here raises or waits.
#
# A regular file or terminal is written directly. A pipe or socket (journald, a log shipper) is written only while
# poll says it has room, in pieces of at most PIPE_BUF octets that end at a line end, so that a reader that
# stalls cannot hold the loop and lines of several workers never mix. Past BACKLOG octets lines are dropped
# and counted.
cimport cython
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, strlen
from posix.stat cimport S_ISFIFO, S_ISSOCK, fstat, struct_stat
from libc.time cimport time_t, tm
from posix.unistd cimport write

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport utc_ms
from angarium.metrics.counters import counter

cdef extern from "time.h" nogil:
    tm *gmtime_r(const time_t *seconds, tm *parts)

cdef extern from "string.h" nogil:
    void *memrchr(const void *, int, size_t)

cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLOUT
    int poll(pollfd *fds, unsigned long count, int timeout)

cdef enum:
    PIECE = 4096            # PIPE_BUF on Linux: written whole or not at all
    FLUSH_AT = 64 << 10     # do not wait for the end of the turn past this
    BACKLOG = 4 << 20       # octets kept for a reader that stalls

cdef double SECONDS_MOST = 1e15     # more, and what is no number, is written as text

cdef Counter lines_dropped = counter(
    "angarium_log_lines_dropped_total", "Event lines lost because the log could not be written.")

cdef const char *HEX = b"0123456789abcdef"


@cython.final
cdef class Journal:
    """Owns its buffer, borrows the file descriptor."""

    def __cinit__(self, int fd, object loop=None):
        cdef struct_stat status
        self.capacity = 2 * FLUSH_AT
        self.buffer = <uint8_t *>malloc(self.capacity)
        if self.buffer == NULL:
            raise MemoryError()
        self.length = 0
        self.fd = fd
        self.loop = loop
        self.is_pipe = False
        if fstat(fd, &status) == 0:
            self.is_pipe = S_ISFIFO(status.st_mode) or S_ISSOCK(status.st_mode)
        self.flush_is_due = False
        self.stamp_ms = 0

    def __dealloc__(self):
        free(self.buffer)

    cdef bint room(self, size_t more) noexcept:
        """Makes room for `more` octets; False (and the line is lost) when the backlog is full."""
        cdef uint8_t *grown
        cdef size_t capacity
        if self.length + more <= self.capacity:
            return True
        if self.length + more > BACKLOG:
            return False
        capacity = self.capacity * 2
        while capacity < self.length + more:
            capacity *= 2
        grown = <uint8_t *>realloc(self.buffer, capacity)
        if grown == NULL:
            return False
        self.buffer = grown
        self.capacity = capacity
        return True

    cdef void raw(self, const char *text, size_t length) noexcept:
        if self.line_is_lost:
            return
        if not self.room(length):
            self.line_is_lost = True
            return
        memcpy(self.buffer + self.length, text, length)
        self.length += length

    cdef void begin(self, const char *event) noexcept:
        cdef uint64_t now = utc_ms()
        cdef time_t seconds
        cdef tm parts
        self.line_start = self.length
        self.line_is_lost = False
        if now != self.stamp_ms:
            if now // 1000 != self.stamp_ms // 1000:
                seconds = <time_t>(now // 1000)
                gmtime_r(&seconds, &parts)
                snprintf(self.stamp, sizeof(self.stamp), b"%04d-%02d-%02dT%02d:%02d:%02d.000Z",
                         parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
                         parts.tm_sec)
            self.stamp[20] = <char>(c'0' + now // 100 % 10)
            self.stamp[21] = <char>(c'0' + now // 10 % 10)
            self.stamp[22] = <char>(c'0' + now % 10)
            self.stamp_ms = now
        self.raw(b'{"time":"', 9)
        self.raw(self.stamp, 24)
        self.raw(b'","event":"', 11)
        self.raw(event, strlen(event))
        self.raw(b'"', 1)

    cdef void key(self, const char *key) noexcept:
        self.raw(b',"', 2)
        self.raw(key, strlen(key))
        self.raw(b'":', 2)

    cdef void id(self, const char *key, uint64_t message_id) noexcept:
        cdef char text[13]
        cdef int i
        for i in range(12, -1, -1):
            text[i] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[message_id & 31]
            message_id >>= 5
        self.key(key)
        self.raw(b'"', 1)
        self.raw(text, 13)
        self.raw(b'"', 1)

    cdef void escaped(self, unsigned unit) noexcept:
        cdef char escape[6]
        cdef int nibble
        memcpy(escape, b"\\u", 2)
        for nibble in range(4):
            escape[2 + nibble] = HEX[unit >> (12 - 4 * nibble) & 15]
        self.raw(escape, 6)

    cdef void string(self, const uint8_t *data, size_t length) noexcept:
        """A JSON string: octets that need no escape are copied in runs."""
        cdef size_t i = 0, start = 0
        cdef uint8_t octet
        cdef char escape[6]
        cdef size_t taken
        cdef unsigned code_point
        self.raw(b'"', 1)
        while i < length:
            octet = data[i]
            if 0x20 <= octet < 0x7f and octet != c'"' and octet != c'\\':
                i += 1
                continue
            taken = 0
            code_point = 0
            if octet >= 0x80:
                taken = utf8_sequence(data + i, length - i)
                code_point = unsafe_code_point(data + i, taken)
                if taken and code_point == 0:
                    i += taken
                    continue
            if i > start:
                self.raw(<const char *>data + start, i - start)
            if code_point:
                if code_point > 0xffff:             # two halves (RFC 8259 §7)
                    self.escaped(0xd7c0 + (code_point >> 10))
                    code_point = 0xdc00 | (code_point & 0x3ff)
                self.escaped(code_point)
                i += taken
                start = i
                continue
            if octet == c'"' or octet == c'\\':
                escape[0] = c'\\'
                escape[1] = octet
                self.raw(escape, 2)
            elif octet == c'\n':
                self.raw(b"\\n", 2)
            elif octet >= 0x80:
                self.raw(b"\xef\xbf\xbd", 3)
            else:
                memcpy(escape, b"\\u00", 4)
                escape[4] = HEX[octet >> 4]
                escape[5] = HEX[octet & 15]
                self.raw(escape, 6)
            i += 1
            start = i
        if i > start:
            self.raw(<const char *>data + start, i - start)
        self.raw(b'"', 1)

    cdef void text(self, const char *key, const uint8_t *data, size_t length) noexcept:
        self.key(key)
        self.string(data, length)

    cdef void texts_begin(self, const char *key) noexcept:
        self.key(key)
        self.raw(b"[", 1)
        self.is_first_item = True

    cdef void texts_item(self, const uint8_t *data, size_t length) noexcept:
        if not self.is_first_item:
            self.raw(b",", 1)
        self.is_first_item = False
        self.string(data, length)

    cdef void texts_end(self) noexcept:
        self.raw(b"]", 1)

    cdef void decimal(self, uint64_t value) noexcept:
        cdef char digits[20]
        cdef int i = 20
        while True:
            i -= 1
            digits[i] = <char>(c'0' + value % 10)
            value //= 10
            if value == 0:
                break
        self.raw(digits + i, 20 - i)

    cdef void number(self, const char *key, int64_t value) noexcept:
        self.key(key)
        if value < 0:
            self.raw(b"-", 1)
            self.decimal(<uint64_t>-value)
        else:
            self.decimal(<uint64_t>value)

    cdef void seconds(self, const char *key, uint64_t milliseconds) noexcept:
        cdef char fraction[4]
        cdef uint64_t rest = milliseconds % 1000
        self.key(key)
        self.decimal(milliseconds // 1000)
        fraction[0] = c'.'
        fraction[1] = <char>(c'0' + rest // 100)
        fraction[2] = <char>(c'0' + rest // 10 % 10)
        fraction[3] = <char>(c'0' + rest % 10)
        self.raw(fraction, 4)

    cdef void end(self) noexcept:
        self.raw(b"}\n", 2)
        if self.line_is_lost:
            self.length = self.line_start
            lines_dropped.cell[0] += 1
            return
        if self.length >= FLUSH_AT or self.loop is None:
            self.flush()
        elif not self.flush_is_due:
            self.flush_is_due = True
            try:
                # Lines of up to 20 ms share one write: a write per loop turn costs more than the lines.
                self.loop.call_later(0.02, self.flush)
            except Exception:       # the loop is closing: nobody will call back
                self.flush()

    cpdef void flush(self) noexcept:
        cdef size_t done = 0, piece
        cdef ssize_t written
        cdef void *newline
        cdef pollfd room
        self.flush_is_due = False
        while done < self.length:
            piece = self.length - done
            if self.is_pipe:
                room.fd = self.fd
                room.events = POLLOUT
                room.revents = 0
                if poll(&room, 1, 0) != 1 or not room.revents & POLLOUT:
                    break
                if piece > PIECE:
                    newline = memrchr(self.buffer + done, c'\n', PIECE)
                    piece = PIECE if newline == NULL else <size_t>(<uint8_t *>newline - self.buffer - done) + 1
            with nogil:
                written = write(self.fd, self.buffer + done, piece)
            if written < 0:
                if errno == EINTR:
                    continue
                if not self.is_pipe:        # disk full, or the terminal is gone: these lines are lost
                    lines_dropped.cell[0] += lines_in(self.buffer + done, self.length - done)
                    done = self.length
                break
            done += <size_t>written
        if done:
            memmove(self.buffer, self.buffer + done, self.length - done)
            self.length -= done
        if self.length and self.loop is not None and not self.flush_is_due:
            self.flush_is_due = True
            try:
                self.loop.call_later(0.1, self.flush)
            except Exception:
                pass                        # the loop is closing; close() has tried its best

    def log(self, str event, **fields):
        """For Python callers, a few a second: every field becomes text, number or list of texts."""
        cdef bytes name = event.encode("utf-8", "replace"), octets_
        cdef list values = []
        # All of it first: a value of an operator's may do anything while its text is made, also log.
        for key, value in fields.items():
            values.append((key.encode("utf-8", "replace"), plain(value)))
        # No Python code runs from here to end(): its line would come into the middle of this one.
        self.begin(name)
        for octets_, value in values:
            if type(value) is bytes:
                self.text(octets_, <const uint8_t *><const char *>value, len(value))
            elif type(value) is int:
                self.number(octets_, value)
            elif type(value) is float:
                self.seconds(octets_, <uint64_t><double>(value * 1000))
            elif type(value) is bool:
                self.key(octets_)
                self.raw(b"true" if value else b"false", 4 if value else 5)
            else:
                self.texts_begin(octets_)
                for item in <list>value:
                    self.texts_item(<const uint8_t *><const char *>item, len(item))
                self.texts_end()
        self.end()


cdef object plain(value):
    """A value that log() can write without asking anybody: bool, int of 64 bits, float of seconds, octets, or a list of octets."""
    try:
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            whole = int.__index__(value)            # of a subclass, too: its own methods are not asked
            return whole if -(1 << 63) < whole < 1 << 63 else str(whole).encode()
        if isinstance(value, float):
            seconds = float.__add__(value, 0.0)
            return max(seconds, 0.0) if seconds < SECONDS_MOST else octets_of(seconds)
        if isinstance(value, (list, tuple)):
            return [octets_of(item) for item in value]
        return octets_of(value)
    except Exception:                               # such as an int of more digits than Python writes
        return b"no text of " + type(value).__name__.encode("utf-8", "replace")


cdef bytes octets_of(value):
    if isinstance(value, bytes):
        return bytes(memoryview(value))
    try:
        return str.encode(str(value), "utf-8", "replace")
    except Exception:
        return b"no text of " + type(value).__name__.encode("utf-8", "replace")


cdef size_t utf8_sequence(const uint8_t *data, size_t length) noexcept nogil:
    """Octets of the well-formed UTF-8 sequence at data (RFC 3629), 0 when there is none."""
    cdef uint8_t first = data[0]
    cdef size_t i, size
    if 0xc2 <= first <= 0xdf:
        size = 2
    elif 0xe0 <= first <= 0xef:
        size = 3
    elif 0xf0 <= first <= 0xf4:
        size = 4
    else:
        return 0
    if length < size:
        return 0
    for i in range(1, size):
        if data[i] & 0xc0 != 0x80:
            return 0
    if first == 0xe0 and data[1] < 0xa0 or first == 0xed and data[1] > 0x9f:
        return 0
    if first == 0xf0 and data[1] < 0x90 or first == 0xf4 and data[1] > 0x8f:
        return 0
    return size


cdef unsigned unsafe_code_point(const uint8_t *data, size_t length) noexcept nogil:
    """What is escaped though JSON would not ask for it, of one whole sequence; else 0: C1 controls, among them NEL and CSI, and U+2028
    and U+2029, at which some readers end a line; what turns the direction of a terminal's text, so that it shows another value; and what
    shows nothing at all, so that two values look alike (U+00AD, U+200B, U+FEFF, tags and their like)."""
    cdef unsigned code
    if length == 2:
        code = (data[0] & 0x1f) << 6 | (data[1] & 0x3f)
        return code if code < 0xa0 or code == 0xad or code == 0x61c else 0
    if length == 3 and (data[0] == 0xe2 or data[0] == 0xef):
        code = (data[0] & 0x0f) << 12 | (data[1] & 0x3f) << 6 | (data[2] & 0x3f)
        if (0x200b <= code <= 0x200f or 0x2028 <= code <= 0x202e or 0x2060 <= code <= 0x206f
                or code == 0xfeff or 0xfff9 <= code <= 0xfffb):
            return code
    elif length == 4 and data[0] == 0xf3 and data[1] == 0xa0:
        code = 0xe0000 | (data[2] & 0x3f) << 6 | (data[3] & 0x3f)
        if code <= 0xe007f:
            return code
    return 0


cdef int64_t lines_in(const uint8_t *data, size_t length) noexcept nogil:
    cdef size_t i
    cdef int64_t count = 0
    for i in range(length):
        count += data[i] == c'\n'
    return count
