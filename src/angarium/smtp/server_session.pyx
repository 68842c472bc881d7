# One SMTP dialogue, server side, without a socket, a clock or a policy (RFC 5321, 1870, 2920, 3030, 3207, 3461, 6531).
# Octets go in by receive_octets(), events are pulled by advance(), replies pile up in `output` until somebody takes them.
# Fields and refusals: server_dialogue.pyx; what is behind a verb: server_hello.pyx, server_envelope.pyx, server_data.pyx,
# server_auth.pyx. What is allowed when stands in server_state.pxd; what is said stands in replies.py; where a line, a path or a message
# ends is judged in csrc/smtp and nowhere else. Of an AUTH exchange it knows the lines (RFC 4954), sasl/ what they mean.
#
# Events that ask stop the machine until accept(), refuse(), challenge(), authenticate(), begin_data_with()
# or finish_with(): pipelined input waits.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memmove
from angarium.model.octets cimport octets, octets_append, octets_new, octets_unref
from angarium.smtp.csmtp cimport *
from angarium.smtp.message_reader cimport reader_begin
from angarium.smtp.server_claims cimport claim_command, claim_ends
from angarium.smtp.server_auth cimport AUTH_LINE_LIMIT, auth_challenge, auth_command, auth_ends, auth_response
from angarium.smtp.server_data cimport bdat_command, chunk_begins, chunk_read, chunk_skip, data_command, data_read
from angarium.smtp.server_dialogue cimport *
from angarium.smtp.server_envelope cimport mail_command, rcpt_command
from angarium.smtp.server_hello cimport hello_command, offers_starttls, starttls_command
from angarium.smtp.server_parameters cimport (
    MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_DELIVER_BY, MAIL_HOLD_FOR, MAIL_HOLD_UNTIL, MAIL_PRIORITY, MAIL_REQUIRETLS,
    MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, MAIL_SOLICIT,
)
from angarium.smtp.server_refusals cimport chunk_refused, order_refused, syntax_refused
from angarium.smtp.server_settings cimport EVERY_VERB
from angarium.smtp.server_state cimport *

from angarium.model.errors import LocalProtocolError
from angarium.smtp import limits, replies, server_events

cdef enum:
    LINE_LIMIT = 2048               # limits.MAIL_LINE_OCTETS: MAIL and RCPT, whose extensions need room
    COMMAND_LIMIT = 512             # limits.COMMAND_LINE_OCTETS: all others

assert LINE_LIMIT == limits.MAIL_LINE_OCTETS
assert COMMAND_LIMIT == limits.COMMAND_LINE_OCTETS

# The table of replies as C globals: a reply is a pointer and a length, no look-up.
cdef bytes MAIL_OK = replies.MAIL_OK
cdef bytes RCPT_OK = replies.RCPT_OK
cdef bytes DATA_GO = replies.DATA_GO
cdef bytes RSET_OK = replies.RSET_OK
cdef bytes NOOP_OK = replies.NOOP_OK
cdef bytes VRFY_OK = replies.VRFY_OK
cdef bytes HELP_OK = replies.HELP_OK
cdef bytes NOT_IMPLEMENTED = replies.NOT_IMPLEMENTED
cdef bytes LINE_TOO_LONG = replies.LINE_TOO_LONG
cdef bytes BARE_LINE_ENDING = replies.BARE_LINE_ENDING
cdef bytes NOT_SMTP = replies.NOT_SMTP
cdef bytes HTTP_HERE = replies.HTTP_HERE
cdef bytes SPOKE_TOO_EARLY = replies.SPOKE_TOO_EARLY
cdef bytes IMPROPER_PIPELINING = replies.IMPROPER_PIPELINING
cdef bytes BAD_CHUNK_SIZE = replies.BAD_CHUNK_SIZE
cdef bytes STARTTLS_GO = replies.STARTTLS_GO
cdef bytes STARTTLS_PIPELINED = replies.STARTTLS_PIPELINED
cdef bytes AUTH_OK = replies.AUTH_OK
cdef bytes AUTH_LINE_TOO_LONG = replies.AUTH_LINE_TOO_LONG

# Commands that keep a session busy without bringing a message.
cdef uint32_t LEADS_TO_NONE = (1 << SMTP_VERB_EHLO | 1 << SMTP_VERB_HELO | 1 << SMTP_VERB_LHLO | 1 << SMTP_VERB_RSET | 1 << SMTP_VERB_NOOP
                               | 1 << SMTP_VERB_VRFY | 1 << SMTP_VERB_HELP)


cdef bytes span_bytes(const uint8_t *data, size_t length):
    return PyBytes_FromStringAndSize(<const char *>data, length) if length else b""


cdef bint starts_auth(const uint8_t *line) noexcept:
    """Whether a line of four octets or more is an AUTH command."""
    return ((line[0] | 32) == c'a' and (line[1] | 32) == c'u' and (line[2] | 32) == c't' and (line[3] | 32) == c'h'
            and line[4] == c' ')


@cython.final
cdef class ServerSession(ServerDialogue):
    # Input ------------------------------------------------------------------------------------------------------------

    cpdef void greet(self) noexcept:
        if self.state == SERVER_CONNECTED:
            self.state = SERVER_START
            self.say(self.settings.greeting)

    cdef void receive_octets(self, const uint8_t *data, size_t length) noexcept:
        """Input is borrowed until hold(), except when some was held: then it is copied behind that."""
        if self.held == NULL:
            self.at = data
            self.end = data + length
            return
        cdef size_t done = self.at - self.held.data
        cdef size_t left = self.end - self.at
        if done > left:         # a client that is always ahead: what was consumed must not stay for as long as it is
            memmove(self.held.data, self.at, left)
            self.held.length = left
            done = 0
        if octets_append(&self.held, data, length) != 0:
            self.fail(self.settings.trouble_reply)
            return
        self.at = self.held.data + done
        self.end = self.held.data + self.held.length

    cdef void hold(self) noexcept:
        """Keeps what was not consumed; the caller's buffer is free after this."""
        cdef size_t left = self.end - self.at
        if left == 0 or self.state == SERVER_CLOSED:
            octets_unref(self.held)
            self.held = NULL
            self.at = self.end = NULL
        elif self.held == NULL:
            self.held = octets_new(left + 64)
            if self.held == NULL:
                self.fail(self.settings.trouble_reply)
                return
            octets_append(&self.held, self.at, left)
            self.at = self.held.data
            self.end = self.at + left

    cdef size_t held_octets(self) noexcept:
        return self.end - self.at

    cdef size_t buffer_octets(self) noexcept:
        return ((self.held.capacity if self.held != NULL else 0) + (self.message.body.capacity if self.message.body != NULL else 0)
                + (self.output.capacity if self.output != NULL else 0))

    cpdef bint has_transaction(self) noexcept:
        return SERVER_MAIL <= self.state <= SERVER_COMMITTING or (
            (self.state == SERVER_SKIP_LINE or self.state == SERVER_SKIP_CHUNK) and self.after >= SERVER_MAIL)

    cpdef bint is_idle(self) noexcept:
        return self.asked == 0 and (self.state == SERVER_START or self.state == SERVER_READY)

    cpdef bint is_in_data(self) noexcept:
        return self.state == SERVER_DATA or self.state == SERVER_CHUNK or self.state == SERVER_SKIP_CHUNK

    cdef server_event advance(self) noexcept:
        cdef server_event event
        if self.asked != 0:
            return EVENT_WAIT
        while True:
            if self.state == SERVER_DATA:
                event = data_read(self)
            elif self.state == SERVER_CHUNK:
                event = chunk_read(self)
            elif self.state == SERVER_SKIP_CHUNK:
                event = chunk_skip(self)
            elif self.state == SERVER_SKIP_LINE:
                event = self._skip_line()
            elif self.state == SERVER_CLOSED:
                self.at = self.end
                event = EVENT_CLOSE if self.after != SERVER_CLOSED else EVENT_NONE
                self.after = SERVER_CLOSED
            elif self.state == SERVER_AUTH:
                event = auth_response(self)
            else:
                event = self._line()
            if event != EVENT_GO_ON:
                return event

    # Output and answers -------------------------------------------------------------------------------------------------

    cpdef void assume_tls(self) noexcept:
        """The connection began with TLS."""
        self.is_tls = True

    cpdef void accept(self) noexcept:
        if self.asked == EVENT_MAIL:
            self.state = SERVER_MAIL
            self.recipient_count = 0
            self.refused_recipient_count = 0
            self.mail_count += 1
            self.say(MAIL_OK if self.mail_reply is None else self.mail_reply)
        elif self.asked == EVENT_RCPT:
            self.state = SERVER_RCPT
            self.recipient_count += 1
            self.say(RCPT_OK)
        elif self.asked == EVENT_STARTTLS:
            # RFC 3207 §4.2: nothing that was said in clear counts any more. What it did wrong does.
            self.is_tls = True
            self.is_ehlo = False
            self.ends_group = EVERY_VERB
            self.helo = None
            self.identity = None
            self.state = SERVER_START
            self.say(STARTTLS_GO)
        self.asked = 0

    cpdef void refuse(self, bytes reply) noexcept:
        """The answer no to MAIL, RCPT, DATA or the first BDAT. 421 ends the session."""
        if self.asked == EVENT_RCPT:
            self.refused_recipient_count += 1
        if self.asked == EVENT_DATA and self.is_chunking:
            self.asked = 0
            self.repeats = self.recipient_count - 1 if self.settings.is_lmtp and self.is_last_chunk else 0
            self.end_transaction()
            self.refusal = reply
            self.after = SERVER_READY
            self.state = SERVER_SKIP_CHUNK
            return
        if self.state == SERVER_AUTH:
            auth_ends(self, reply)
            return
        if reply.startswith(b"421"):
            self.fail(reply)
            return
        self.asked = 0
        self.say_refusal(reply)

    cpdef void challenge(self, bytes octets):
        """The answer to EVENT_AUTH or EVENT_AUTH_RESPONSE: a response is wanted."""
        if self.state == SERVER_AUTH and self.asked != 0:
            auth_challenge(self, octets)

    cpdef void authenticate(self, bytes identity) noexcept:
        """The answer to the same: this is who the client is."""
        if self.state == SERVER_AUTH and self.asked != 0:
            self.identity = identity
            auth_ends(self, AUTH_OK)

    cpdef void answer(self, bytes reply) noexcept:
        """The answer to EVENT_XFORWARD and EVENT_ETRN, and to EVENT_XCLIENT when it is no. 421 ends the session."""
        if self.asked == EVENT_XCLIENT or self.asked == EVENT_XFORWARD or self.asked == EVENT_ETRN:
            self.asked = 0
            if reply[0] != c'2':
                self.error_count += 1
                if self.error_count >= self.settings.max_errors:
                    reply = self.settings.errors_reply
            if reply.startswith(b"421"):
                self.fail(reply)
            elif reply[0] == c'2':
                self.say(reply)
            else:
                self.say_refusal(reply)

    cpdef void reintroduce(self, bytes helo, bint is_ehlo, bytes identity) noexcept:
        """The answer yes to EVENT_XCLIENT. helo: None when the client will say it itself."""
        if self.asked == EVENT_XCLIENT:
            claim_ends(self, helo, is_ehlo, identity)

    cdef void begin_data_with(self, octets *body) noexcept:
        """Takes over `body`, which already holds the trace field; message octets go behind it."""
        self.asked = 0
        reader_begin(&self.message, body, self.settings, self.is_chunking,
                     self.mail.flags & MAIL_BODY_BINARYMIME != 0)
        if self.is_chunking:
            chunk_begins(self)
        else:
            self.state = SERVER_DATA
            self.say(DATA_GO)

    cdef void finish_with(self, const uint8_t *reply, size_t length) noexcept:
        """The answer to EVENT_MESSAGE when it is yes. The body must have been taken."""
        cdef uint32_t repeats
        if self.state == SERVER_COMMITTING:
            self.asked = 0
            repeats = self.recipient_count - 1 if self.settings.is_lmtp else 0
            self.end_transaction()
            self.error_count = 0
            self.denied_count = 0
            self.put_off_count = 0
            self.junk_count = 0
            self.say_octets(reply, length)
            if repeats:
                self.repeat(reply, length, repeats)

    cdef void finish_refused(self, bytes reply) noexcept:
        """The answer to EVENT_MESSAGE when it is no."""
        cdef uint32_t repeats
        if self.state == SERVER_COMMITTING:
            self.asked = 0
            repeats = self.recipient_count - 1 if self.settings.is_lmtp else 0
            self.end_transaction()
            self.say_refusal(reply)
            if repeats:
                self.repeat(PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply), repeats)

    cpdef void close_with(self, bytes reply) noexcept:
        """Timeouts, limits, trouble: the last reply, a refusal. EVENT_CLOSE follows."""
        if self.state != SERVER_CLOSED:
            self.fail(reply)

    cpdef void part_with(self, bytes reply) noexcept:
        """Shutdown: the last reply, which refuses nothing. EVENT_CLOSE follows."""
        if self.state != SERVER_CLOSED:
            self.say(reply)
            self.end_session()

    cdef octets *take_body_octets(self) noexcept:
        cdef octets *body = self.message.body
        self.message.body = NULL
        return body

    cdef octets *take_output_octets(self) noexcept:
        cdef octets *output = self.output
        self.output = NULL
        return output

    # Command phase ------------------------------------------------------------------------------------------------------

    cdef server_event _line(self) noexcept:
        cdef size_t length
        cdef const uint8_t *line = self.at
        cdef smtp_line_result result
        if self.at == self.end:
            return EVENT_NONE
        self.verb = SMTP_VERB_UNKNOWN
        if self.state == SERVER_CONNECTED:
            return self._noise(SPOKE_TOO_EARLY)
        # A TLS or other binary hello holds no line that could end: its first octet tells.
        if not self.has_spoken and line[0] != c'\r' and line[0] != c'\n' and (line[0] < 32 or line[0] > 126):
            return self._noise(NOT_SMTP)
        result = smtp_line_find(line, self.end - line, LINE_LIMIT, &length)
        if result == SMTP_LINE_PARTIAL:
            return EVENT_NONE
        self.has_spoken = True
        if result == SMTP_LINE_OK:
            self.at += length + 2
            return self._command(line, length)
        if result == SMTP_LINE_TOO_LONG and starts_auth(line):
            result = smtp_line_find(line, self.end - line, AUTH_LINE_LIMIT, &length)
            if result == SMTP_LINE_PARTIAL:
                return EVENT_NONE
            if result == SMTP_LINE_OK:
                self.at += length + 2
                return self._command(line, length)
        if result == SMTP_LINE_TOO_LONG:
            if self.witness is not None:
                self.witness.noise(line, length)
            self.at += length
            self.after = self.state
            self.state = SERVER_SKIP_LINE
            return EVENT_GO_ON
        return self._noise(BARE_LINE_ENDING)

    cdef server_event _noise(self, bytes reply) noexcept:
        """What is there is no line that could be understood."""
        if self.witness is not None:
            self.witness.noise(self.at, self.end - self.at)
        return self.fail(reply)

    cdef server_event _skip_line(self) noexcept:
        cdef size_t length
        cdef smtp_line_result result = smtp_line_find(self.at, self.end - self.at, <size_t>-1, &length)
        if self.witness is not None:
            self.witness.noise(self.at, length)
        self.at += length
        if result == SMTP_LINE_PARTIAL:
            return EVENT_NONE           # a CR that ends the input stays there and is held
        self.verb = SMTP_VERB_UNKNOWN
        if result != SMTP_LINE_OK:
            return self.fail(BARE_LINE_ENDING)
        self.at += 2
        self.state = self.after
        if self.ends_group == EVERY_VERB and self.at != self.end:
            return self.fail(IMPROPER_PIPELINING)
        if self.state == SERVER_AUTH:
            self.verb = SMTP_VERB_AUTH
            self.state = SERVER_READY
            return self.tell_refusal(AUTH_LINE_TOO_LONG)
        return self.tell_refusal(LINE_TOO_LONG)

    cdef server_event _command(self, const uint8_t *line, size_t length) noexcept:
        cdef smtp_command command
        cdef smtp_command_result result
        cdef server_check check
        # A path may be UTF-8 where SMTPUTF8 was said; MAIL says it in the same line (RFC 6531 §3.4).
        cdef unsigned flags = SMTP_PATH_UTF8 | self.settings.path_flags
        if self.state >= SERVER_MAIL and not self.mail.flags & MAIL_SMTPUTF8:
            flags = self.settings.path_flags
        result = smtp_command_parse(line, length, flags, &command)
        self.verb = command.verb
        if self.witness is not None:
            self.witness.command(line, length)

        if command.verb == SMTP_VERB_HTTP:
            return self.fail(HTTP_HERE)
        if self.at != self.end and command.verb == SMTP_VERB_STARTTLS and offers_starttls(self):
            # What somebody put behind it in clear would pass for said under TLS (CVE-2011-0411).
            return self.fail(STARTTLS_PIPELINED)
        if self.at != self.end and command.verb != SMTP_VERB_BDAT and command.verb != SMTP_VERB_QUIT \
                and self.ends_group >> command.verb & 1:
            return self.fail(IMPROPER_PIPELINING)
        if length + 2 > COMMAND_LIMIT and command.verb != SMTP_VERB_MAIL and command.verb != SMTP_VERB_RCPT \
                and command.verb != SMTP_VERB_AUTH:
            return self.fail(BAD_CHUNK_SIZE) if command.verb == SMTP_VERB_BDAT else self.tell_refusal(LINE_TOO_LONG)
        if command.verb == SMTP_VERB_BDAT and result != SMTP_COMMAND_OK:
            return self.fail(BAD_CHUNK_SIZE)
        if command.verb == SMTP_VERB_BDAT and not self.offered.chunking:
            return chunk_refused(self, NOT_IMPLEMENTED, &command)       # whenever it comes: it is not known
        check = server_may_come(self.state, command.verb)
        if check != CHECK_MAY or result != SMTP_COMMAND_OK:
            if not is_known(self, command.verb):
                return self.tell_refusal(NOT_IMPLEMENTED)           # to miss an argument, or EHLO, would be to know it
            if check != CHECK_MAY:
                return order_refused(self, check, &command)
            return syntax_refused(self, result, &command)

        if command.verb == SMTP_VERB_RCPT:
            return rcpt_command(self, line, &command)
        if command.verb == SMTP_VERB_MAIL:
            return mail_command(self, line, &command)
        if command.verb == SMTP_VERB_DATA:
            return data_command(self)
        if command.verb == SMTP_VERB_BDAT:
            return bdat_command(self, &command)
        if LEADS_TO_NONE >> command.verb & 1:
            self.junk_count += 1
            if self.junk_count > self.settings.max_junk:
                return self.fail(self.settings.errors_reply)
        if command.verb == SMTP_VERB_EHLO or command.verb == SMTP_VERB_HELO or command.verb == SMTP_VERB_LHLO:
            return hello_command(self, line, &command)
        if command.verb == SMTP_VERB_STARTTLS:
            return starttls_command(self)
        if command.verb == SMTP_VERB_AUTH:
            return auth_command(self, line, &command)
        if command.verb == SMTP_VERB_RSET:
            self.end_transaction()
            self.say(RSET_OK)
            return EVENT_RESET
        if command.verb == SMTP_VERB_QUIT:
            self.part_with(self.settings.quit_reply)
            self.lingers = False
            return EVENT_GO_ON
        if command.verb == SMTP_VERB_NOOP:
            self.say(NOOP_OK)
            return EVENT_GO_ON
        if command.verb == SMTP_VERB_VRFY and self.settings.vrfy:
            self.say(VRFY_OK)
            return EVENT_GO_ON
        if command.verb == SMTP_VERB_HELP:
            self.say(HELP_OK)
            return EVENT_GO_ON
        if command.verb == SMTP_VERB_XCLIENT or command.verb == SMTP_VERB_XFORWARD or command.verb == SMTP_VERB_ETRN:
            return claim_command(self, line, &command)
        return self.tell_refusal(NOT_IMPLEMENTED)      # EXPN, and VRFY where it is switched off

    # The Python face: for tests and tools, one object per event ------------------------------------------------------------

    def receive(self, const uint8_t[::1] data not None):
        if data.shape[0]:
            self.receive_octets(&data[0], data.shape[0])
            self.hold()

    def next_event(self):
        cdef server_event event = self.advance()
        if event == EVENT_NONE or event == EVENT_WAIT:
            self.hold()
            return None
        if event == EVENT_HELO:
            return server_events.Helo(name=self.helo, is_ehlo=self.is_ehlo)
        if event == EVENT_AUTH:
            return server_events.Auth(mechanism=self.mechanism, initial=self.response)
        if event == EVENT_AUTH_RESPONSE:
            return server_events.AuthResponse(octets=self.response)
        if event == EVENT_MAIL:
            return server_events.Mail(
                reverse_path=span_bytes(self.path, self.path_length), announced_octets=self.mail.announced_octets, envid=span_bytes(self.mail.envid, self.mail.envid_length),
                body_8bitmime=bool(self.mail.flags & MAIL_BODY_8BITMIME),
                smtputf8=bool(self.mail.flags & MAIL_SMTPUTF8), requires_tls=bool(self.mail.flags & MAIL_REQUIRETLS),
                body_binarymime=bool(self.mail.flags & MAIL_BODY_BINARYMIME),
                by="%d;%c%s" % (self.mail.by.seconds, self.mail.by.mode, "T" if self.mail.by.is_traced else "")
                if self.mail.flags & MAIL_DELIVER_BY else "",
                hold_for_s=self.mail.hold_for_s if self.mail.flags & MAIL_HOLD_FOR else None,
                hold_until_utc_s=self.mail.hold_until_utc_s if self.mail.flags & MAIL_HOLD_UNTIL else None,
                priority=self.mail.priority if self.mail.flags & MAIL_PRIORITY else None,
                solicit=self.solicit if self.mail.flags & MAIL_SOLICIT else b"",
                ret="FULL" if self.mail.flags & MAIL_RET_FULL else "HDRS" if self.mail.flags & MAIL_RET_HDRS else "")
        if event == EVENT_RCPT:
            return server_events.Rcpt(forward_path=span_bytes(self.path, self.path_length), domain_offset=self.domain_offset,
                                      orcpt=span_bytes(self.rcpt.orcpt, self.rcpt.orcpt_length), notify=self.rcpt.notify)
        if event == EVENT_DATA:
            return server_events.Data(is_chunking=self.is_chunking)
        if event == EVENT_BODY:
            return server_events.Body(octets=self.message.body.length)
        if event == EVENT_MESSAGE:
            return server_events.Message(octets=self.message.machine.octets_out, has_8bit=bool(self.message.machine.has_8bit))
        if event == EVENT_STARTTLS:
            return server_events.StartTls()
        if event == EVENT_XCLIENT:
            return server_events.XClient(argument=self.argument)
        if event == EVENT_XFORWARD:
            return server_events.XForward(argument=self.argument)
        if event == EVENT_ETRN:
            return server_events.Etrn(argument=self.argument)
        if event == EVENT_RESET:
            return server_events.Reset()
        if event == EVENT_REFUSED:
            return server_events.Refused(code=int(self.refusal[:3]), reply=self.refusal)
        return server_events.Close(lingers=bool(self.lingers))

    def begin_data(self, const uint8_t[::1] trace=b""):
        cdef octets *body
        if self.asked != EVENT_DATA:
            raise LocalProtocolError("begin_data() answers Data")
        body = octets_new(trace.shape[0])
        if body == NULL:
            raise MemoryError
        if trace.shape[0]:
            octets_append(&body, &trace[0], trace.shape[0])
        self.begin_data_with(body)

    def finish(self, bytes reply not None):
        if self.asked != EVENT_MESSAGE:
            raise LocalProtocolError("finish() answers Message")
        if reply[:1] == b"2":
            self.finish_with(<const uint8_t *>PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))
        else:
            self.finish_refused(reply)

    def take_body(self):
        return self._taken(self.take_body_octets())

    def take_output(self):
        return self._taken(self.take_output_octets())

    cdef bytes _taken(self, octets *taken):
        cdef bytes result
        if taken == NULL:
            return b""
        result = PyBytes_FromStringAndSize(<const char *>taken.data, taken.length)
        octets_unref(taken)
        return result

    @property
    def memory_octets(self):
        """Octets of the buffers held now: what a bound is tested against."""
        return self.buffer_octets()

    @property
    def is_closed(self):
        return self.state == SERVER_CLOSED


cdef bint is_known(ServerSession self, uint8_t verb) noexcept:
    """False: a verb of something that this session is not offered."""
    if verb == SMTP_VERB_VRFY:
        return self.settings.vrfy
    if verb == SMTP_VERB_ETRN:
        return self.takes_etrn
    if verb == SMTP_VERB_XCLIENT:
        return self.takes_xclient
    if verb == SMTP_VERB_XFORWARD:
        return self.takes_xforward
    if verb == SMTP_VERB_STARTTLS:
        return self.offered.starttls or self.is_tls
    if verb == SMTP_VERB_AUTH:
        return self.mechanisms is not None or self.auth_needs_tls or self.identity is not None
    return verb != SMTP_VERB_EXPN
