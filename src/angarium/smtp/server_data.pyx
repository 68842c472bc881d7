# DATA and BDAT inside a server session: the commands, and the octets that follow them until the end of the message (RFC 5321
# §4.1.1.4, RFC 3030 §2). Where a message ends under DATA is the data machine's business (csrc/smtp/data.h).
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from angarium.smtp.csmtp cimport *
from angarium.smtp.message_reader cimport *
from angarium.smtp.server_dialogue cimport (
    EVENT_BODY, EVENT_DATA, EVENT_GO_ON, EVENT_MESSAGE, EVENT_NONE, ServerDialogue, server_event,
)
from angarium.smtp.server_parameters cimport MAIL_BODY_BINARYMIME
from angarium.smtp.server_settings cimport EVERY_VERB
from angarium.smtp.server_state cimport *

from angarium.smtp import replies

cdef bytes BINARYMIME_NEEDS_BDAT = replies.BINARYMIME_NEEDS_BDAT
cdef bytes IMPROPER_PIPELINING = replies.IMPROPER_PIPELINING
cdef bytes IMPROPER_PIPELINING_DATA = replies.IMPROPER_PIPELINING_DATA
cdef bytes BDAT_NEEDS_EHLO = replies.BDAT_NEEDS_EHLO
cdef bytes MESSAGE_FAR_TOO_BIG = replies.MESSAGE_FAR_TOO_BIG


cdef server_event data_command(ServerDialogue self) noexcept:
    if self.mail.flags & MAIL_BODY_BINARYMIME:
        return self.tell_refusal(BINARYMIME_NEEDS_BDAT)     # RFC 3030 §3
    self.is_chunking = False
    self.asked = EVENT_DATA
    return EVENT_DATA


cdef server_event bdat_command(ServerDialogue self, smtp_command *command) noexcept:
    self.chunk_octets = command.chunk_octets
    self.chunk_left = command.chunk_octets
    self.is_last_chunk = command.is_last
    if self.chunk_octets > self.settings.give_up_octets:
        return self.fail(MESSAGE_FAR_TOO_BIG)
    if self.state == SERVER_BETWEEN_CHUNKS:
        return chunk_begins(self)
    self.is_chunking = True
    if not self.is_ehlo:
        self.asked = EVENT_DATA
        self.refuse(BDAT_NEEDS_EHLO)
        return EVENT_GO_ON
    self.asked = EVENT_DATA
    return EVENT_DATA


cdef server_event chunk_begins(ServerDialogue self) noexcept:
    self.state = SERVER_CHUNK
    reader_expect(&self.message, self.chunk_octets)
    return EVENT_GO_ON


cdef server_event data_read(ServerDialogue self) noexcept:
    cdef reader_result result
    cdef const uint8_t *start = self.at
    if self.at == self.end:
        return EVENT_NONE
    result = reader_push(&self.message, &self.at, self.end)
    if self.witness is not None:
        self.witness.message(<uint64_t>(self.at - start))
        self.witness.data(start, <size_t>(self.at - start))
    if result == READER_END:
        return data_end(self)
    if result == READER_FAR_TOO_BIG:
        return self.fail(MESSAGE_FAR_TOO_BIG)
    return EVENT_BODY if reader_has_run(&self.message) else EVENT_NONE


cdef server_event chunk_read(ServerDialogue self) noexcept:
    cdef size_t available = self.end - self.at
    if available > self.chunk_left:
        available = self.chunk_left
    if available:
        if self.witness is not None:
            self.witness.message(available)
            self.witness.data(self.at, available)
        self.chunk_left -= available
        if reader_push(&self.message, &self.at, self.at + available) == READER_FAR_TOO_BIG:
            return self.fail(MESSAGE_FAR_TOO_BIG)
    if self.chunk_left == 0:
        return chunk_ends(self)
    return EVENT_BODY if available and reader_has_run(&self.message) else EVENT_NONE


cdef server_event chunk_ends(ServerDialogue self) noexcept:
    cdef char text[64]
    cdef int length
    cdef bytes fault
    if self.is_last_chunk:
        reader_end_chunks(&self.message)
        self.verb = SMTP_VERB_BDAT
        return data_end(self)
    fault = reader_fault(&self.message)
    if fault is not None:
        # The transaction is over with the first bad chunk; later ones find none and are read and refused.
        self.verb = SMTP_VERB_BDAT
        self.end_transaction()
        return self.fail(IMPROPER_PIPELINING) if is_sent_ahead(self) else self.tell_refusal(fault)
    if is_sent_ahead(self):
        return self.fail(IMPROPER_PIPELINING)
    self.state = SERVER_BETWEEN_CHUNKS
    length = snprintf(text, sizeof(text), b"250 2.0.0 Ok: %llu octets\r\n",
                      <unsigned long long>self.chunk_octets)
    self.say_octets(text, length)
    return EVENT_GO_ON


cdef server_event chunk_skip(ServerDialogue self) noexcept:
    cdef size_t available = self.end - self.at
    if self.chunk_left > self.settings.give_up_octets:
        self.verb = SMTP_VERB_BDAT
        return self.fail(MESSAGE_FAR_TOO_BIG)
    if available > self.chunk_left:
        available = self.chunk_left
    if self.witness is not None:
        self.witness.message(available)
        self.witness.data(self.at, available)
    self.at += available
    self.chunk_left -= available
    if self.chunk_left:
        return EVENT_NONE
    self.verb = SMTP_VERB_BDAT
    self.state = self.after
    if is_sent_ahead(self):
        return self.fail(IMPROPER_PIPELINING)
    return refused_for_each(self, self.refusal, self.repeats)


cdef inline bint is_sent_ahead(ServerDialogue self) noexcept:
    """Something stands behind a chunk, or the end of data, of a client that was not offered PIPELINING."""
    return self.ends_group == <uint32_t>EVERY_VERB and self.at != self.end


cdef server_event data_end(ServerDialogue self) noexcept:
    cdef bytes fault = reader_fault(&self.message)
    cdef uint32_t recipients
    if is_sent_ahead(self):
        return self.fail(IMPROPER_PIPELINING_DATA)
    if fault is not None:
        recipients = self.recipient_count
        self.end_transaction()
        return refused_for_each(self, fault, recipients - 1 if self.settings.is_lmtp else 0)
    self.state = SERVER_COMMITTING
    self.asked = EVENT_MESSAGE
    return EVENT_MESSAGE


cdef server_event refused_for_each(ServerDialogue self, bytes reply, uint32_t repeats) noexcept:
    cdef server_event event = self.tell_refusal(reply)
    self.repeat(PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply), repeats)
    return event
