# What all parts of a server session share: the fields of one dialogue, input and output, and how a refusal is said. What
# commands mean is not here: server_session.pyx reads command lines, server_auth.pyx AUTH, server_hello.pyx EHLO and
# STARTTLS, server_data.pyx message data.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from angarium.model.octets cimport octets_append, octets_new, octets_unref
from angarium.smtp.message_reader cimport reader_drop
from angarium.smtp.refusal_ids cimport REFUSAL_ID_OCTETS, refusal_id_encode
from angarium.smtp.server_settings cimport EVERY_VERB, ServerSettings
from angarium.smtp.server_state cimport SERVER_CLOSED, SERVER_CONNECTED, SERVER_MAIL, SERVER_READY

from angarium.smtp import limits

cdef enum:
    REPLY_LIMIT = 512                           # limits.REPLY_LINE_OCTETS
    PUT_OFF_LIMIT = 1000                        # RCPT answered 4xx between two messages: Postfix's smtpd_recipient_overshoot_limit
    REFUSAL_ID_SUFFIX = 3 + REFUSAL_ID_OCTETS   # " [4GK2V9QX]"

assert REPLY_LIMIT == limits.REPLY_LINE_OCTETS


cdef class ServerDialogue:
    def __cinit__(self, ServerSettings settings not None):
        self.settings = self.offered = settings
        self.state = SERVER_CONNECTED
        self.ends_group = EVERY_VERB

    def __dealloc__(self):
        octets_unref(self.held)
        reader_drop(&self.message)
        octets_unref(self.output)

    cdef void use(self, ServerSettings settings) noexcept:
        self.settings = settings
        if self.helo is None:
            self.offered = settings

    cdef void say(self, bytes reply) noexcept:
        self.say_octets(PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))

    cdef void say_octets(self, const void *data, size_t length) noexcept:
        if self.witness is not None:
            self.witness.reply(data, length)
        # A reply that finds no memory is lost: the client's own timeout ends that dialogue.
        if self.output == NULL:
            self.output = octets_new(length if length > 448 else 448)
            if self.output == NULL:
                return
        octets_append(&self.output, <const uint8_t *>data, length)

    cdef void repeat(self, const void *data, size_t length, uint32_t count) noexcept:
        if self.state != SERVER_CLOSED:
            for _ in range(count):
                self.say_octets(data, length)

    cdef void say_refusal(self, bytes reply) noexcept:
        """Telling the operator makes the id when it comes first (Client.tell_rejected); who comes second gives it up."""
        cdef char[REFUSAL_ID_SUFFIX + 2] suffix
        cdef Py_ssize_t length = PyBytes_GET_SIZE(reply)
        cdef bint is_told = self.refusal_id != 0
        if self.settings.refusal_ids is None:
            self.say(reply)
            return
        if not is_told:
            self.refusal_id = self.settings.refusal_ids.take()
        if self.settings.tells_refusal_ids and length + REFUSAL_ID_SUFFIX <= REPLY_LIMIT:
            suffix[0] = c' '
            suffix[1] = c'['
            refusal_id_encode(self.refusal_id, suffix + 2)
            suffix[REFUSAL_ID_SUFFIX - 1] = c']'
            suffix[REFUSAL_ID_SUFFIX] = c'\r'
            suffix[REFUSAL_ID_SUFFIX + 1] = c'\n'
            self.say_octets(PyBytes_AS_STRING(reply), length - 2)
            self.say_octets(suffix, sizeof(suffix))
        else:
            self.say(reply)
        if is_told:
            self.refusal_id = 0

    cdef server_event tell_refusal(self, bytes reply) noexcept:
        self.error_count += 1
        if self.error_count >= self.settings.max_errors:
            return self.fail(self.settings.errors_reply)
        self.say_refusal(reply)
        self.refusal = reply
        return EVENT_REFUSED

    cdef bytes count_refused_rcpt(self, bytes reply):
        """Of strangers only: who may relay, and who has said who he is, has no need to guess. As many as were accepted in the
        transaction are forgiven, so that old lists get through; what was only accepted and never sent to is not."""
        if not self.is_stranger or self.identity is not None or self.settings.max_refused_recipients == 0:
            return reply
        if reply[0] == c'5':
            self.denied_count += 1
            if self.denied_count > self.settings.max_refused_recipients + self.recipient_count:
                return self.settings.refused_rcpt_reply
        else:
            # It tells nothing of the recipient, and who sends the rest later does right; but it is a line of the log each.
            self.put_off_count += 1
            if self.put_off_count > PUT_OFF_LIMIT and self.put_off_count > self.settings.max_recipients:
                return self.settings.refused_rcpt_reply
        return reply

    cdef server_event fail(self, bytes reply) noexcept:
        """Says `reply` and ends the session: what follows cannot be trusted to be commands."""
        self.refusal = reply
        self.say_refusal(reply)
        self.end_session()
        return EVENT_REFUSED

    cdef void end_session(self) noexcept:
        self.end_transaction()
        self.asked = 0
        self.at = self.end
        self.lingers = True
        self.after = SERVER_CONNECTED
        self.state = SERVER_CLOSED

    cdef void end_transaction(self) noexcept:
        reader_drop(&self.message)
        self.is_chunking = False
        self.recipient_count = 0
        if self.state >= SERVER_MAIL and self.state != SERVER_CLOSED:
            self.state = SERVER_READY
