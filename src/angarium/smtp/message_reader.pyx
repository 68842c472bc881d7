# The octets of one message on their way in: un-stuffed, counted, kept or only read, and judged at the end.
# Where the message ends is the data machine's business (csrc/smtp/data.h); when octets are message data, the session's.
#
# A message that will be refused is read on to its true end without being stored (design §3: commands never resume in
# the middle of one).
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.model.octets cimport octets_new, octets_reserve, octets_unref
from angarium.smtp.csmtp cimport *
from angarium.smtp.server_settings cimport ServerSettings

from angarium.smtp import limits, replies

cdef enum:
    LEAST_ROOM = 2048               # below this much room the body grows before the machine runs
    SCRATCH_OCTETS = 4096

cdef uint8_t[SCRATCH_OCTETS] scratch    # what is not kept is written here and never read: one for all
cdef uint32_t MAX_RECEIVED = limits.RECEIVED_FIELDS_MAXIMUM

cdef bytes BARE_LF = replies.BARE_LF
cdef bytes BARE_CR = replies.BARE_CR
cdef bytes HAS_NUL = replies.HAS_NUL
cdef bytes TEXT_LINE_TOO_LONG = replies.TEXT_LINE_TOO_LONG
cdef bytes MESSAGE_TOO_BIG = replies.MESSAGE_TOO_BIG
cdef bytes LOOP = replies.LOOP
cdef bytes NO_MEMORY = replies.NO_MEMORY


cdef void reader_begin(message_reader *self, octets *body, ServerSettings settings, bint is_chunking,
                       bint is_binary) noexcept:
    octets_unref(self.body)
    self.body = body
    self.max_octets = settings.max_message_octets
    self.give_up_octets = settings.give_up_octets
    self.run_octets = settings.run_octets
    self.is_keeping = True
    self.is_too_big = False
    if is_binary:
        smtp_data_begin_binary(&self.machine)
    else:
        smtp_data_begin(&self.machine, is_chunking, settings.max_line_octets)


cdef void reader_drop(message_reader *self) noexcept:
    self.is_keeping = False
    octets_unref(self.body)
    self.body = NULL


cdef reader_result reader_push(message_reader *self, const uint8_t **at, const uint8_t *stop) noexcept:
    """In pieces as large as the room in `body`, so that a long input (the next messages are in it too) does not make the
    body of a short message large."""
    cdef size_t piece, consumed, written
    cdef bint is_end = False
    while at[0] < stop and not is_end:
        piece = stop - at[0]
        if self.is_keeping and not has_room(self, &piece):
            reader_drop(self)
        if self.is_keeping:
            is_end = smtp_data_push(&self.machine, at[0], piece, self.body.data + self.body.length, &consumed, &written)
            self.body.length += written
        else:
            if piece > SCRATCH_OCTETS - 2:
                piece = SCRATCH_OCTETS - 2
            is_end = smtp_data_push(&self.machine, at[0], piece, scratch, &consumed, &written)
        at[0] += consumed
        if self.machine.octets_out > self.max_octets:
            self.is_too_big = True
        if self.is_keeping and (self.is_too_big or self.machine.fault):
            reader_drop(self)
        if self.machine.octets_in > self.give_up_octets:
            return READER_FAR_TOO_BIG
    return READER_END if is_end else READER_MORE


cdef bint has_room(message_reader *self, size_t *piece) noexcept:
    """Makes room, and cuts *piece to it; False when memory is out."""
    cdef size_t room
    if self.body == NULL:
        # The run before was taken: this is a large message.
        self.body = octets_new(<size_t>self.run_octets + RUN_SLACK_OCTETS)
        if self.body == NULL:
            return False
    room = self.body.capacity - self.body.length
    if room < LEAST_ROOM + 2 and room < piece[0] + 2:
        if octets_reserve(&self.body, LEAST_ROOM + 2) != 0:
            return False
        room = self.body.capacity - self.body.length
    if piece[0] > room - 2:                         # the machine may write two octets it held back
        piece[0] = room - 2
    return True


cdef void reader_expect(message_reader *self, uint64_t octet_count) noexcept:
    if self.machine.octets_in + octet_count > self.max_octets:
        self.is_too_big = True                      # told at the end of the chunk
        reader_drop(self)


cdef void reader_end_chunks(message_reader *self) noexcept:
    cdef size_t written
    cdef size_t nothing = 0
    if self.is_keeping and has_room(self, &nothing):
        smtp_data_end_chunks(&self.machine, self.body.data + self.body.length, &written)
        self.body.length += written
    else:
        smtp_data_end_chunks(&self.machine, scratch, &written)


cdef bytes reader_fault(const message_reader *self):
    if self.machine.fault == SMTP_DATA_FAULT_BARE_LF:
        return BARE_LF
    if self.machine.fault == SMTP_DATA_FAULT_BARE_CR:
        return BARE_CR
    if self.machine.fault == SMTP_DATA_FAULT_NUL:
        return HAS_NUL
    if self.machine.fault == SMTP_DATA_FAULT_LINE_TOO_LONG:
        return TEXT_LINE_TOO_LONG
    if self.is_too_big:
        return MESSAGE_TOO_BIG
    if self.machine.received_count > MAX_RECEIVED:
        return LOOP
    return None if self.is_keeping else NO_MEMORY
