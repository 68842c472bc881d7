# What both halves of a client session share; see the .pxd.
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy

from angarium.model.errors import LocalProtocolError, RemoteProtocolError

cdef enum:
    FIRST_OCTETS = 512      # of `out`: the commands of a transaction with a few recipients. Gone when it is sent
    FIRST_HELD_OCTETS = 128     # of `held`, which a connection without PIPELINING keeps: all but the first of them

# Ten thousand sessions wait for replies most of the time, and have nothing to say meanwhile: the buffer of who has just been sent
# is the next one's.
cdef uint8_t *spare = NULL

class BrokenDialogue(RemoteProtocolError):
    """events_before: what receive() had to tell before the octet at fault."""

    events_before = ()


cdef class ClientDialogue:
    def __dealloc__(self):
        free(self.out.data)
        free(self.held.data)
        free(self.own_reply)

    # Without PIPELINING a transaction's lines lie in `held`, each behind its stage and length, and leave one by
    # one as replies come: the same calls, the same events.

    cdef int begin_lines(self) except -1:
        if not self.extensions & EXTENSION_PIPELINING:
            self.held.length = 0
            self.held_at = 0
        return 0

    cdef int line(self, int stage) except -1:
        # Lines are written to `out` and moved to `held` by end_line: one writer for both ways.
        self.line_start = self.out.length
        return 0

    cdef int end_line(self, int stage, int slot) except -1:
        cdef uint16_t length
        if self.extensions & EXTENSION_PIPELINING:
            return self.expect(stage, slot, 1)
        length = <uint16_t>(self.out.length - self.line_start)
        self.reserve(&self.held, <size_t>length + 4)
        self.held.data[self.held.length] = <uint8_t>stage
        self.held.data[self.held.length + 1] = <uint8_t>slot
        memcpy(self.held.data + self.held.length + 2, &length, 2)
        memcpy(self.held.data + self.held.length + 4, self.out.data + self.line_start, length)
        self.held.length += <size_t>length + 4
        self.out.length = self.line_start
        return 0

    cdef int release(self) except -1:
        cdef uint16_t length
        cdef uint8_t *at
        if self.held_at >= self.held.length or self.ring_count:
            return 0
        at = self.held.data + self.held_at
        memcpy(&length, at + 2, 2)
        self.held_at += <size_t>length + 4
        if at[0] == STAGE_IDLE:
            return 0
        self.put(at + 4, length)
        return self.expect(at[0], at[1], 1)

    cdef int expect(self, int stage, int slot, uint32_t count) except -1:
        cdef client_expectation *tail
        if self.witness is not None:
            self.tell_command(stage)
        if self.ring_count:
            tail = &self.ring[(self.ring_head + self.ring_count - 1) & (CLIENT_RING - 1)]
            if stage == STAGE_RCPT and tail.stage == STAGE_RCPT and tail.slot == slot:
                tail.count += <uint16_t>count
                return 0
        if self.ring_count == CLIENT_RING:
            raise LocalProtocolError("too many commands without replies")
        tail = &self.ring[(self.ring_head + self.ring_count) & (CLIENT_RING - 1)]
        tail.stage = <uint8_t>stage
        tail.slot = <uint8_t>slot
        tail.count = <uint16_t>count
        self.ring_count += 1
        return 0

    cdef void tell_command(self, int stage) noexcept:
        cdef size_t at = min(self.told_at, self.out.length)
        cdef size_t length = self.out.length - at
        # A body and its end are told by their size, where they begin.
        if stage == STAGE_AUTH and (length < 5 or memcmp(self.out.data + at, b"AUTH ", 5) != 0):
            self.witness.response(length)               # no base64 has a space in it
        elif stage != STAGE_GREETING and stage != STAGE_END and length >= 2:
            self.witness.command(self.out.data + at, length - 2)
        self.told_at = self.out.length

    cdef void tell_reply(self) noexcept:
        cdef bytes code
        cdef list lines
        try:
            code = b"%d" % self.reply.code
            lines = (<bytes>self.reply.text[:self.reply.text_length]).split(b"\n")
            told = b"".join([code + b"-" + line + b"\r\n" for line in lines[:len(lines) - 1]])
            told += code + b" " + lines[len(lines) - 1] + b"\r\n"
            self.witness.reply(<const char *>told, <size_t>len(told))
        except Exception:
            pass                # out of memory: it is for people only

    cdef int put(self, const void *data, size_t length) except -1:
        self.reserve(&self.out, length)
        memcpy(self.out.data + self.out.length, data, length)
        self.out.length += length
        return 0

    cdef int put_field(self, const uint8_t *data, size_t length) except -1:
        # The envelope's builder refuses CR and LF; were it wrong, a path could smuggle commands.
        if memchr(data, c'\n', length) != NULL or memchr(data, c'\r', length) != NULL or length > 2048:
            raise LocalProtocolError("CR, LF or too many octets in a command's argument")
        return self.put(data, length)

    cdef int reserve(self, client_buffer *buffer, size_t more) except -1:
        global spare
        cdef size_t capacity
        cdef uint8_t *grown
        cdef bint is_held = buffer == &self.held
        if buffer.capacity - buffer.length >= more:
            return 0
        if buffer.data == NULL and spare != NULL and more <= FIRST_OCTETS and not is_held:
            buffer.data = spare
            buffer.capacity = FIRST_OCTETS
            spare = NULL
            return 0
        capacity = buffer.capacity * 2 if buffer.capacity else FIRST_HELD_OCTETS if is_held else FIRST_OCTETS
        while capacity - buffer.length < more:
            capacity *= 2
        grown = <uint8_t *>realloc(buffer.data, capacity)
        if grown == NULL:
            raise MemoryError
        buffer.data = grown
        buffer.capacity = capacity
        return 0

    cdef void out_sent(self) noexcept:
        global spare
        self.out.length = 0
        self.told_at = 0
        if spare == NULL and self.out.capacity == FIRST_OCTETS:
            spare = self.out.data
        else:
            free(self.out.data)
        self.out.data = NULL
        self.out.capacity = 0

    cdef int quit(self) except -1:
        self.put(b"QUIT\r\n", 6)
        self.state = CLIENT_QUIT
        return self.expect(STAGE_QUIT, 0, 1)

    cdef int broken(self, str text) except -1:
        self.state = CLIENT_CLOSED
        self.input_length = 0
        raise BrokenDialogue(text)
