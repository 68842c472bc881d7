# One SMTP dialogue, server side, without a socket, a clock or a policy (RFC 5321, 1870, 2920, 3030, 3207, 3461, 6531).
# Octets go in by receive_octets(), events are pulled by advance(), replies pile up in `output` until somebody takes them.
# What is allowed when stands in server_state.pxd; what is said stands in replies.py; where a line, a path or a message
# ends is judged in csrc/smtp and nowhere else. Of an AUTH exchange it knows the lines (RFC 4954), sasl/ what they mean.
#
# Events that ask stop the machine until accept(), refuse(), challenge(), authenticate(), begin_data_with()
# or finish_with(): pipelined input waits.
import binascii

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from angarium.model.octets cimport octets, octets_append, octets_new, octets_unref
from angarium.smtp.csmtp cimport *
from angarium.smtp.message_reader cimport *
from angarium.smtp.server_parameters cimport (
    MAIL_BODY_8BITMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, mail_parameters_read, rcpt_parameters_read,
)
from angarium.smtp.server_settings cimport ServerSettings
from angarium.smtp.server_state cimport *

from angarium.model.errors import LocalProtocolError
from angarium.smtp import limits, replies, server_events

cdef enum:
    LINE_LIMIT = 2048               # limits.MAIL_LINE_OCTETS: MAIL and RCPT, whose extensions need room
    COMMAND_LIMIT = 512             # limits.COMMAND_LINE_OCTETS: all others
    HELO_LIMIT = 255
    AUTH_LIMIT = 12288              # limits.AUTH_LINE_OCTETS

assert LINE_LIMIT == limits.MAIL_LINE_OCTETS
assert AUTH_LIMIT == limits.AUTH_LINE_OCTETS
assert COMMAND_LIMIT == limits.COMMAND_LINE_OCTETS

# The table of replies as C globals: a reply is a pointer and a length, no look-up.
cdef bytes MAIL_OK = replies.MAIL_OK
cdef bytes RCPT_OK = replies.RCPT_OK
cdef bytes DATA_GO = replies.DATA_GO
cdef bytes RSET_OK = replies.RSET_OK
cdef bytes NOOP_OK = replies.NOOP_OK
cdef bytes VRFY_OK = replies.VRFY_OK
cdef bytes HELP_OK = replies.HELP_OK
cdef bytes UNKNOWN_COMMAND = replies.UNKNOWN_COMMAND
cdef bytes NOT_IMPLEMENTED = replies.NOT_IMPLEMENTED
cdef bytes LINE_TOO_LONG = replies.LINE_TOO_LONG
cdef bytes CONTROL_OCTETS = replies.CONTROL_OCTETS
cdef bytes COMMAND_HAS_8BIT = replies.COMMAND_HAS_8BIT
cdef bytes BARE_LINE_ENDING = replies.BARE_LINE_ENDING
cdef bytes NOT_SMTP = replies.NOT_SMTP
cdef bytes HTTP_HERE = replies.HTTP_HERE
cdef bytes SPOKE_TOO_EARLY = replies.SPOKE_TOO_EARLY
cdef bytes IMPROPER_PIPELINING = replies.IMPROPER_PIPELINING
cdef bytes IMPROPER_PIPELINING_DATA = replies.IMPROPER_PIPELINING_DATA
cdef bytes SYNTAX = replies.SYNTAX
cdef bytes BAD_HELO_NAME = replies.BAD_HELO_NAME
cdef bytes BAD_PARAMETER = replies.BAD_PARAMETER
cdef bytes PARAMETER_TWICE = replies.PARAMETER_TWICE
cdef bytes TOO_MANY_PARAMETERS = replies.TOO_MANY_PARAMETERS
cdef bytes BAD_REVERSE_PATH = replies.BAD_REVERSE_PATH
cdef bytes REVERSE_PATH_TOO_LONG = replies.REVERSE_PATH_TOO_LONG
cdef bytes BAD_FORWARD_PATH = replies.BAD_FORWARD_PATH
cdef bytes FORWARD_PATH_TOO_LONG = replies.FORWARD_PATH_TOO_LONG
cdef bytes NEEDS_SMTPUTF8 = replies.NEEDS_SMTPUTF8
cdef bytes NEEDS_HELO = replies.NEEDS_HELO
cdef bytes NEEDS_MAIL = replies.NEEDS_MAIL
cdef bytes NEEDS_RCPT = replies.NEEDS_RCPT
cdef bytes NESTED_MAIL = replies.NESTED_MAIL
cdef bytes IN_CHUNKS = replies.IN_CHUNKS
cdef bytes BDAT_NEEDS_EHLO = replies.BDAT_NEEDS_EHLO
cdef bytes NO_VALID_RECIPIENTS = replies.NO_VALID_RECIPIENTS
cdef bytes BAD_CHUNK_SIZE = replies.BAD_CHUNK_SIZE
cdef bytes TOO_MANY_RECIPIENTS = replies.TOO_MANY_RECIPIENTS
cdef bytes MESSAGE_TOO_BIG = replies.MESSAGE_TOO_BIG
cdef bytes STARTTLS_GO = replies.STARTTLS_GO
cdef bytes STARTTLS_PIPELINED = replies.STARTTLS_PIPELINED
cdef bytes TLS_ALREADY = replies.TLS_ALREADY
cdef bytes TLS_REQUIRED = replies.TLS_REQUIRED
cdef bytes MESSAGE_FAR_TOO_BIG = replies.MESSAGE_FAR_TOO_BIG
cdef bytes AUTH_OK = replies.AUTH_OK
cdef bytes AUTH_CANCELLED = replies.AUTH_CANCELLED
cdef bytes AUTH_BAD_BASE64 = replies.AUTH_BAD_BASE64
cdef bytes AUTH_LINE_TOO_LONG = replies.AUTH_LINE_TOO_LONG
cdef bytes AUTH_UNKNOWN_MECHANISM = replies.AUTH_UNKNOWN_MECHANISM
cdef bytes AUTH_NEEDS_EHLO = replies.AUTH_NEEDS_EHLO
cdef bytes AUTH_TWICE = replies.AUTH_TWICE
cdef bytes AUTH_NEEDS_TLS = replies.AUTH_NEEDS_TLS
cdef bytes AUTH_REQUIRED = replies.AUTH_REQUIRED

# RFC 2920 §3.1: these end a group, because what they answer decides how the client goes on. (QUIT too: it closes.)
cdef uint32_t ENDS_GROUP = (1 << SMTP_VERB_EHLO | 1 << SMTP_VERB_HELO | 1 << SMTP_VERB_DATA | 1 << SMTP_VERB_VRFY
                            | 1 << SMTP_VERB_EXPN | 1 << SMTP_VERB_NOOP | 1 << SMTP_VERB_AUTH)


cdef bytes span_bytes(const uint8_t *data, size_t length):
    return PyBytes_FromStringAndSize(<const char *>data, length) if length else b""


cdef bint is_helo_name(const uint8_t *name, size_t length) noexcept:
    """A domain or address literal, and what the field says instead: names with underscores, bare IPv6 addresses.

    Nothing that could end the name early inside our Received field: no space, bracket in the middle, quote, comment.
    """
    cdef size_t i
    cdef uint8_t octet
    if length == 0 or length > HELO_LIMIT:
        return False
    if smtp_domain_is_valid(name, length, 0):
        return True
    for i in range(length):
        octet = name[i]
        if not (c'a' <= octet <= c'z' or c'A' <= octet <= c'Z' or c'0' <= octet <= c'9'
                or octet == c'.' or octet == c'-' or octet == c'_' or octet == c':'):
            return False
    return True


cdef bytes decoded(const uint8_t *base64, size_t length):
    """What valid base64, or the "=" of an empty initial response, stands for."""
    return b"" if length == 1 else binascii.a2b_base64(span_bytes(base64, length))


cdef bint starts_auth(const uint8_t *line) noexcept:
    """Whether a line of four octets or more is an AUTH command."""
    return ((line[0] | 32) == c'a' and (line[1] | 32) == c'u' and (line[2] | 32) == c't' and (line[3] | 32) == c'h'
            and line[4] == c' ')


@cython.final
cdef class ServerSession:
    def __cinit__(self, ServerSettings settings not None):
        self.settings = settings
        self.state = SERVER_CONNECTED

    def __dealloc__(self):
        octets_unref(self.held)
        reader_drop(&self.message)
        octets_unref(self.output)

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
        if octets_append(&self.held, data, length) != 0:
            self._fail(self.settings.trouble_reply)
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
                self._fail(self.settings.trouble_reply)
                return
            octets_append(&self.held, self.at, left)
            self.at = self.held.data
            self.end = self.at + left

    cdef size_t held_octets(self) noexcept:
        return self.end - self.at

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
                event = self._read_data()
            elif self.state == SERVER_CHUNK:
                event = self._read_chunk()
            elif self.state == SERVER_SKIP_CHUNK:
                event = self._skip_chunk()
            elif self.state == SERVER_SKIP_LINE:
                event = self._skip_line()
            elif self.state == SERVER_CLOSED:
                self.at = self.end
                event = EVENT_CLOSE if self.after != SERVER_CLOSED else EVENT_NONE
                self.after = SERVER_CLOSED
            elif self.state == SERVER_AUTH:
                event = self._auth_line()
            else:
                event = self._line()
            if event != EVENT_GO_ON:
                return event

    # Output and answers -------------------------------------------------------------------------------------------------

    cdef void say(self, bytes reply) noexcept:
        self.say_octets(PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))

    cdef void say_octets(self, const void *data, size_t length) noexcept:
        # A reply that finds no memory is lost: the client's own timeout ends that dialogue.
        if self.output == NULL:
            self.output = octets_new(length if length > 448 else 448)
            if self.output == NULL:
                return
        octets_append(&self.output, <const uint8_t *>data, length)

    cpdef void assume_tls(self) noexcept:
        """The connection began with TLS."""
        self.is_tls = True

    cpdef void accept(self) noexcept:
        if self.asked == EVENT_MAIL:
            self.state = SERVER_MAIL
            self.recipient_count = 0
            self.refused_recipient_count = 0
            self.say(MAIL_OK)
        elif self.asked == EVENT_RCPT:
            self.state = SERVER_RCPT
            self.recipient_count += 1
            self.say(RCPT_OK)
        elif self.asked == EVENT_STARTTLS:
            # RFC 3207 §4.2: nothing that was said in clear counts any more. What it did wrong does.
            self.is_tls = True
            self.is_ehlo = False
            self.helo = None
            self.identity = None
            self.state = SERVER_START
            self.say(STARTTLS_GO)
        self.asked = 0

    cpdef void refuse(self, bytes reply) noexcept:
        """The answer no to MAIL, RCPT, DATA or the first BDAT."""
        if self.asked == EVENT_RCPT:
            self.refused_recipient_count += 1
        if self.asked == EVENT_DATA and self.is_chunking:
            self.asked = 0
            self._end_transaction()
            self.refusal = reply
            self.after = SERVER_READY
            self.state = SERVER_SKIP_CHUNK
            return
        if self.state == SERVER_AUTH:
            self._auth_ends(reply)
            return
        self.asked = 0
        self.say(reply)

    cpdef void challenge(self, bytes octets):
        """The answer to EVENT_AUTH or EVENT_AUTH_RESPONSE: a response is wanted."""
        if self.state != SERVER_AUTH or self.asked == 0:
            return
        self.asked = 0
        if self.at != self.end:
            self._fail(IMPROPER_PIPELINING)     # a response to what nobody had asked: a guess
            return
        self.say(b"334 " + binascii.b2a_base64(octets, newline=False) + b"\r\n")

    cpdef void authenticate(self, bytes identity) noexcept:
        """The answer to the same: this is who the client is."""
        if self.state == SERVER_AUTH and self.asked != 0:
            self.identity = identity
            self._auth_ends(AUTH_OK)

    cdef void begin_data_with(self, octets *body) noexcept:
        """Takes over `body`, which already holds the trace field; message octets go behind it."""
        self.asked = 0
        reader_begin(&self.message, body, self.settings, self.is_chunking)
        if self.is_chunking:
            self._chunk_begins()
        else:
            self.state = SERVER_DATA
            self.say(DATA_GO)

    cdef void finish_with(self, const uint8_t *reply, size_t length) noexcept:
        """The answer to EVENT_MESSAGE, 250 or not. The body must have been taken when it was accepted."""
        if self.state == SERVER_COMMITTING:
            self.asked = 0
            self._end_transaction()
            self.error_count = 0
            self.say_octets(reply, length)

    cpdef void close_with(self, bytes reply) noexcept:
        """Timeouts, shutdown, trouble: the last reply. EVENT_CLOSE follows."""
        if self.state != SERVER_CLOSED:
            self._fail(reply)

    cdef octets *take_body_octets(self) noexcept:
        cdef octets *body = self.message.body
        self.message.body = NULL
        return body

    cdef octets *take_output_octets(self) noexcept:
        cdef octets *output = self.output
        self.output = NULL
        return output

    cdef void _auth_ends(self, bytes reply) noexcept:
        cdef bint is_failure = reply is not AUTH_OK
        self.asked = 0
        self.state = SERVER_READY
        self.response = None
        # Octets behind a command that ends a group were sent before its reply (RFC 4954 §4): guesses, or an injection.
        if self.at != self.end:
            self.identity = None
            self._fail(IMPROPER_PIPELINING)
        elif is_failure and reply.startswith(b"421"):
            self._fail(reply)
        elif is_failure:
            self.error_count += 1
            if self.error_count >= self.settings.max_errors:
                self._fail(self.settings.errors_reply)
            else:
                self.say(reply)
        else:
            self.say(reply)

    cdef server_event _tell_refusal(self, bytes reply) noexcept:
        self.error_count += 1
        if self.error_count >= self.settings.max_errors:
            return self._fail(self.settings.errors_reply)
        self.say(reply)
        self.refusal = reply
        return EVENT_REFUSED

    cdef server_event _fail(self, bytes reply) noexcept:
        """Says `reply` and ends the session: what follows cannot be trusted to be commands."""
        self._end_transaction()
        self.asked = 0
        self.refusal = reply
        self.say(reply)
        self.at = self.end
        self.lingers = True
        self.after = SERVER_CONNECTED
        self.state = SERVER_CLOSED
        return EVENT_REFUSED

    cdef void _end_transaction(self) noexcept:
        reader_drop(&self.message)
        self.is_chunking = False
        self.recipient_count = 0
        if self.state >= SERVER_MAIL and self.state != SERVER_CLOSED:
            self.state = SERVER_READY

    # Command phase ------------------------------------------------------------------------------------------------------

    cdef server_event _line(self) noexcept:
        cdef size_t length
        cdef const uint8_t *line = self.at
        cdef smtp_line_result result
        if self.at == self.end:
            return EVENT_NONE
        self.verb = SMTP_VERB_UNKNOWN
        if self.state == SERVER_CONNECTED:
            return self._fail(SPOKE_TOO_EARLY)
        # A TLS or other binary hello holds no line that could end: its first octet tells.
        if not self.has_spoken and line[0] != c'\r' and line[0] != c'\n' and (line[0] < 32 or line[0] > 126):
            return self._fail(NOT_SMTP)
        result = smtp_line_find(line, self.end - line, LINE_LIMIT, &length)
        if result == SMTP_LINE_PARTIAL:
            return EVENT_NONE
        self.has_spoken = True
        if result == SMTP_LINE_OK:
            self.at += length + 2
            return self._command(line, length)
        if result == SMTP_LINE_TOO_LONG and starts_auth(line):
            result = smtp_line_find(line, self.end - line, AUTH_LIMIT, &length)
            if result == SMTP_LINE_PARTIAL:
                return EVENT_NONE
            if result == SMTP_LINE_OK:
                self.at += length + 2
                return self._command(line, length)
        if result == SMTP_LINE_TOO_LONG:
            self.at += length
            self.after = self.state
            self.state = SERVER_SKIP_LINE
            return EVENT_GO_ON
        return self._fail(BARE_LINE_ENDING)

    cdef server_event _skip_line(self) noexcept:
        cdef size_t length
        cdef smtp_line_result result = smtp_line_find(self.at, self.end - self.at, <size_t>-1, &length)
        self.at += length
        if result == SMTP_LINE_PARTIAL:
            return EVENT_NONE           # a CR that ends the input stays there and is held
        self.verb = SMTP_VERB_UNKNOWN
        if result != SMTP_LINE_OK:
            return self._fail(BARE_LINE_ENDING)
        self.at += 2
        self.state = self.after
        if self.state == SERVER_AUTH:
            self.verb = SMTP_VERB_AUTH
            self.state = SERVER_READY
            return self._tell_refusal(AUTH_LINE_TOO_LONG)
        return self._tell_refusal(LINE_TOO_LONG)

    cdef server_event _command(self, const uint8_t *line, size_t length) noexcept:
        cdef smtp_command command
        cdef smtp_command_result result
        cdef server_check check
        # A path may be UTF-8 where SMTPUTF8 was said; MAIL says it in the same line (RFC 6531 §3.4).
        cdef unsigned flags = SMTP_PATH_UTF8
        if self.state >= SERVER_MAIL and not self.mail.flags & MAIL_SMTPUTF8:
            flags = 0
        result = smtp_command_parse(line, length, flags, &command)
        self.verb = command.verb

        if command.verb == SMTP_VERB_HTTP:
            return self._fail(HTTP_HERE)
        if self.at != self.end and command.verb == SMTP_VERB_STARTTLS and self._offers_starttls():
            # What somebody put behind it in clear would pass for said under TLS (CVE-2011-0411).
            return self._fail(STARTTLS_PIPELINED)
        if self.at != self.end and command.verb != SMTP_VERB_BDAT and command.verb != SMTP_VERB_QUIT and (
                not self.is_ehlo or ENDS_GROUP >> command.verb & 1):
            return self._fail(IMPROPER_PIPELINING)
        if length + 2 > COMMAND_LIMIT and command.verb != SMTP_VERB_MAIL and command.verb != SMTP_VERB_RCPT \
                and command.verb != SMTP_VERB_AUTH:
            return self._fail(BAD_CHUNK_SIZE) if command.verb == SMTP_VERB_BDAT else self._tell_refusal(LINE_TOO_LONG)
        if command.verb == SMTP_VERB_BDAT and result != SMTP_COMMAND_OK:
            return self._fail(BAD_CHUNK_SIZE)
        check = server_may_come(self.state, command.verb)
        if check != CHECK_MAY:
            return self._order_refused(check, &command)
        if result != SMTP_COMMAND_OK:
            return self._syntax_refused(result, &command)

        if command.verb == SMTP_VERB_RCPT:
            return self._rcpt(line, &command)
        if command.verb == SMTP_VERB_MAIL:
            return self._mail(line, &command)
        if command.verb == SMTP_VERB_DATA:
            return self._data()
        if command.verb == SMTP_VERB_BDAT:
            return self._bdat(&command)
        if command.verb == SMTP_VERB_EHLO or command.verb == SMTP_VERB_HELO:
            return self._hello(line, &command)
        if command.verb == SMTP_VERB_STARTTLS:
            return self._starttls()
        if command.verb == SMTP_VERB_AUTH:
            return self._auth(line, &command)
        if command.verb == SMTP_VERB_RSET:
            self._end_transaction()
            self.say(RSET_OK)
            return EVENT_RESET
        if command.verb == SMTP_VERB_QUIT:
            self._fail(self.settings.quit_reply)
            self.lingers = False
            return EVENT_GO_ON
        if command.verb == SMTP_VERB_NOOP:
            self.say(NOOP_OK)
            return EVENT_GO_ON
        if command.verb == SMTP_VERB_VRFY:
            self.say(VRFY_OK)
            return EVENT_GO_ON
        if command.verb == SMTP_VERB_HELP:
            self.say(HELP_OK)
            return EVENT_GO_ON
        return self._tell_refusal(NOT_IMPLEMENTED)      # EXPN, LHLO, ETRN

    cdef server_event _order_refused(self, uint8_t check, smtp_command *command) noexcept:
        cdef bytes reply
        if check == CHECK_NEEDS_HELO:
            reply = NEEDS_HELO
        elif check == CHECK_IS_NESTED:
            reply = NESTED_MAIL
        elif check == CHECK_NEEDS_RCPT:
            reply = NO_VALID_RECIPIENTS if self.refused_recipient_count else NEEDS_RCPT
        elif check == CHECK_IN_CHUNKS:
            reply = IN_CHUNKS
        else:
            reply = NEEDS_MAIL
        if command.verb != SMTP_VERB_BDAT:
            return self._tell_refusal(reply)
        # The octets of the chunk come all the same (RFC 3030 §2).
        self.refusal = reply
        self.chunk_left = self.chunk_octets = command.chunk_octets
        self.after = self.state
        self.state = SERVER_SKIP_CHUNK
        return EVENT_GO_ON

    cdef server_event _syntax_refused(self, uint8_t result, smtp_command *command) noexcept:
        cdef bint is_mail = command.verb == SMTP_VERB_MAIL
        cdef bytes reply
        if result == SMTP_COMMAND_UNKNOWN:
            reply = UNKNOWN_COMMAND
        elif result == SMTP_COMMAND_CONTROL:
            reply = CONTROL_OCTETS
        elif result == SMTP_COMMAND_HAS_8BIT:
            reply = COMMAND_HAS_8BIT
        elif result == SMTP_COMMAND_BAD_PARAMETER:
            reply = BAD_PARAMETER
        elif result == SMTP_COMMAND_TWICE:
            reply = PARAMETER_TWICE
        elif result == SMTP_COMMAND_TOO_MANY:
            reply = TOO_MANY_PARAMETERS
        elif result == SMTP_COMMAND_SYNTAX:
            reply = SYNTAX
        elif result == SMTP_COMMAND_BAD_BASE64:
            reply = AUTH_BAD_BASE64
        elif command.path_result == SMTP_PATH_NEEDS_UTF8:
            reply = NEEDS_SMTPUTF8
        elif (command.path_result == SMTP_PATH_LOCAL_TOO_LONG or command.path_result == SMTP_PATH_DOMAIN_TOO_LONG
              or command.path_result == SMTP_PATH_TOO_LONG):
            reply = REVERSE_PATH_TOO_LONG if is_mail else FORWARD_PATH_TOO_LONG
        else:
            reply = BAD_REVERSE_PATH if is_mail else BAD_FORWARD_PATH
        if command.verb == SMTP_VERB_RCPT:
            self.refused_recipient_count += 1
        return self._tell_refusal(reply)

    cdef server_event _hello(self, const uint8_t *line, smtp_command *command) noexcept:
        cdef const uint8_t *name = line + command.argument.offset
        if not is_helo_name(name, command.argument.length):
            return self._tell_refusal(BAD_HELO_NAME)
        self._end_transaction()
        self.state = SERVER_READY
        self.is_ehlo = command.verb == SMTP_VERB_EHLO
        self.helo = PyBytes_FromStringAndSize(<const char *>name, command.argument.length)
        if not self.is_ehlo:
            self.say(self.settings.helo_reply)
        elif self.mechanisms is not None:
            self.say(self._ehlo_reply())
        elif self._offers_starttls():
            self.say(self.settings.ehlo_starttls_reply)
        else:
            self.say(self.settings.ehlo_reply)
        return EVENT_HELO

    cdef bint _offers_starttls(self) noexcept:
        return self.settings.starttls and not self.is_tls

    cdef server_event _starttls(self) noexcept:
        if not self.settings.starttls and not self.is_tls:
            return self._tell_refusal(NOT_IMPLEMENTED)
        if self.is_tls:
            return self._tell_refusal(TLS_ALREADY)
        self.asked = EVENT_STARTTLS
        return EVENT_STARTTLS

    cdef bytes _ehlo_reply(self):
        """The settings' own with the line that not every session gets."""
        cdef bytes lines = self.settings.ehlo_starttls_reply if self._offers_starttls() else self.settings.ehlo_reply
        cdef Py_ssize_t last = lines.rindex(b"250 ")
        return lines[:last] + b"250-AUTH " + self.mechanisms + b"\r\n" + lines[last:]

    cdef server_event _auth(self, const uint8_t *line, smtp_command *command) noexcept:
        cdef smtp_parameter *given = &command.parameters[0]
        cdef const uint8_t *name = line + given.keyword.offset
        if self.identity is not None:
            return self._tell_refusal(AUTH_TWICE)
        if self.mechanisms is None:
            return self._tell_refusal(AUTH_NEEDS_TLS if self.auth_needs_tls else NOT_IMPLEMENTED)
        if not self.is_ehlo:
            return self._tell_refusal(AUTH_NEEDS_EHLO)
        self.mechanism = span_bytes(name, given.keyword.length).decode("ascii").upper()
        if self.mechanism.encode("ascii") not in self.mechanisms.split():
            return self._tell_refusal(AUTH_UNKNOWN_MECHANISM)
        self.response = None
        if given.has_value:
            self.response = decoded(line + given.value.offset, given.value.length)
        self.state = SERVER_AUTH
        self.asked = EVENT_AUTH
        return EVENT_AUTH

    cdef server_event _auth_line(self) noexcept:
        """A response: base64, or "*", which cancels (RFC 4954 §4). Whatever else it is ends the exchange."""
        cdef size_t length
        cdef const uint8_t *line = self.at
        cdef smtp_line_result result
        if self.at == self.end:
            return EVENT_NONE
        self.verb = SMTP_VERB_AUTH
        result = smtp_line_find(line, self.end - line, AUTH_LIMIT, &length)
        if result == SMTP_LINE_PARTIAL:
            return EVENT_NONE
        if result == SMTP_LINE_TOO_LONG:
            self.at += length
            self.after = SERVER_AUTH
            self.state = SERVER_SKIP_LINE
            return EVENT_GO_ON
        if result != SMTP_LINE_OK:
            return self._fail(BARE_LINE_ENDING)
        self.at += length + 2
        if self.at != self.end:
            return self._fail(IMPROPER_PIPELINING)
        if length == 1 and line[0] == c'*':
            self.state = SERVER_READY
            return self._tell_refusal(AUTH_CANCELLED)
        if not smtp_base64_is_valid(line, length):
            self.state = SERVER_READY
            return self._tell_refusal(AUTH_BAD_BASE64)
        self.response = decoded(line, length)
        self.asked = EVENT_AUTH_RESPONSE
        return EVENT_AUTH_RESPONSE

    cdef server_event _mail(self, const uint8_t *line, smtp_command *command) noexcept:
        cdef bytes reply
        if self.settings.requires_tls and not self.is_tls:
            return self._tell_refusal(TLS_REQUIRED)
        if self.settings.auth_required and self.identity is None:
            return self._tell_refusal(AUTH_REQUIRED)
        reply = mail_parameters_read(line, command, self.mechanisms is not None, &self.mail)
        if reply is None and self.mail.announced_octets > self.settings.max_message_octets:
            reply = MESSAGE_TOO_BIG
        if reply is not None:
            return self._tell_refusal(reply)
        self.path = line + command.path.mailbox.offset
        self.path_length = command.path.mailbox.length
        self.asked = EVENT_MAIL
        return EVENT_MAIL

    cdef server_event _rcpt(self, const uint8_t *line, smtp_command *command) noexcept:
        cdef bytes reply = rcpt_parameters_read(line, command, self.mail.flags & MAIL_SMTPUTF8, &self.rcpt)
        if reply is not None:
            self.refused_recipient_count += 1
            return self._tell_refusal(reply)
        if self.recipient_count >= self.settings.max_recipients:
            # No error of the client: it does right to go on and to send the rest later (RFC 5321 §4.5.3.1.10).
            self.refused_recipient_count += 1
            self.say(TOO_MANY_RECIPIENTS)
            self.refusal = TOO_MANY_RECIPIENTS
            return EVENT_REFUSED
        self.path = line + command.path.mailbox.offset
        self.path_length = command.path.mailbox.length
        self.domain_offset = command.path.domain.offset - command.path.mailbox.offset
        if command.path.domain.length == 0:     # <Postmaster>
            self.domain_offset = self.path_length
        self.asked = EVENT_RCPT
        return EVENT_RCPT

    cdef server_event _data(self) noexcept:
        self.is_chunking = False
        self.asked = EVENT_DATA
        return EVENT_DATA

    cdef server_event _bdat(self, smtp_command *command) noexcept:
        self.chunk_octets = command.chunk_octets
        self.chunk_left = command.chunk_octets
        self.is_last_chunk = command.is_last
        if self.chunk_octets > self.settings.give_up_octets:
            return self._fail(MESSAGE_FAR_TOO_BIG)
        if self.state == SERVER_BETWEEN_CHUNKS:
            return self._chunk_begins()
        self.is_chunking = True
        if not self.is_ehlo:
            self.asked = EVENT_DATA
            self.refuse(BDAT_NEEDS_EHLO)
            return EVENT_GO_ON
        self.asked = EVENT_DATA
        return EVENT_DATA

    # Message data -------------------------------------------------------------------------------------------------------

    cdef server_event _chunk_begins(self) noexcept:
        self.state = SERVER_CHUNK
        reader_expect(&self.message, self.chunk_octets)
        return EVENT_GO_ON

    cdef server_event _read_data(self) noexcept:
        cdef reader_result result
        if self.at == self.end:
            return EVENT_NONE
        result = reader_push(&self.message, &self.at, self.end)
        if result == READER_END:
            return self._end_of_data()
        if result == READER_FAR_TOO_BIG:
            return self._fail(MESSAGE_FAR_TOO_BIG)
        return EVENT_BODY if reader_has_run(&self.message) else EVENT_NONE

    cdef server_event _read_chunk(self) noexcept:
        cdef size_t available = self.end - self.at
        if available > self.chunk_left:
            available = self.chunk_left
        if available:
            self.chunk_left -= available
            if reader_push(&self.message, &self.at, self.at + available) == READER_FAR_TOO_BIG:
                return self._fail(MESSAGE_FAR_TOO_BIG)
        if self.chunk_left == 0:
            return self._chunk_ends()
        return EVENT_BODY if available and reader_has_run(&self.message) else EVENT_NONE

    cdef server_event _chunk_ends(self) noexcept:
        cdef char text[64]
        cdef int length
        cdef bytes fault
        if self.is_last_chunk:
            reader_end_chunks(&self.message)
            self.verb = SMTP_VERB_BDAT
            return self._end_of_data()
        fault = reader_fault(&self.message)
        if fault is not None:
            # The transaction is over with the first bad chunk; later ones find none and are read and refused.
            self.verb = SMTP_VERB_BDAT
            self._end_transaction()
            return self._tell_refusal(fault)
        self.state = SERVER_BETWEEN_CHUNKS
        length = snprintf(text, sizeof(text), b"250 2.0.0 Ok: %llu octets\r\n",
                          <unsigned long long>self.chunk_octets)
        self.say_octets(text, length)
        return EVENT_GO_ON

    cdef server_event _skip_chunk(self) noexcept:
        cdef size_t available = self.end - self.at
        if self.chunk_left > self.settings.give_up_octets:
            self.verb = SMTP_VERB_BDAT
            return self._fail(MESSAGE_FAR_TOO_BIG)
        if available > self.chunk_left:
            available = self.chunk_left
        self.at += available
        self.chunk_left -= available
        if self.chunk_left:
            return EVENT_NONE
        self.verb = SMTP_VERB_BDAT
        self.state = self.after
        return self._tell_refusal(self.refusal)

    cdef server_event _end_of_data(self) noexcept:
        cdef bytes fault = reader_fault(&self.message)
        if not self.is_ehlo and self.at != self.end:
            return self._fail(IMPROPER_PIPELINING_DATA)
        if fault is not None:
            self._end_transaction()
            return self._tell_refusal(fault)
        self.state = SERVER_COMMITTING
        self.asked = EVENT_MESSAGE
        return EVENT_MESSAGE

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
                smtputf8=bool(self.mail.flags & MAIL_SMTPUTF8),
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
        self.finish_with(<const uint8_t *>PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))

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
        return ((self.held.capacity if self.held != NULL else 0) + (self.message.body.capacity if self.message.body != NULL else 0)
                + (self.output.capacity if self.output != NULL else 0))

    @property
    def is_closed(self):
        return self.state == SERVER_CLOSED
