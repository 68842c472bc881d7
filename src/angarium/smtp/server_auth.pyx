# AUTH lines inside a server session (RFC 4954): the command, the responses, how the exchange ends. What the octets mean to
# a mechanism is sasl/'s.
import binascii

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport *
from angarium.smtp.server_dialogue cimport EVENT_AUTH, EVENT_AUTH_RESPONSE, EVENT_GO_ON, EVENT_NONE, ServerDialogue, server_event
from angarium.smtp.server_state cimport SERVER_AUTH, SERVER_READY, SERVER_SKIP_LINE

from angarium.smtp import limits, replies

assert AUTH_LINE_LIMIT == limits.AUTH_LINE_OCTETS

cdef bytes NOT_IMPLEMENTED = replies.NOT_IMPLEMENTED
cdef bytes BARE_LINE_ENDING = replies.BARE_LINE_ENDING
cdef bytes IMPROPER_PIPELINING = replies.IMPROPER_PIPELINING
cdef bytes AUTH_OK = replies.AUTH_OK
cdef bytes AUTH_CANCELLED = replies.AUTH_CANCELLED
cdef bytes AUTH_BAD_BASE64 = replies.AUTH_BAD_BASE64
cdef bytes AUTH_UNKNOWN_MECHANISM = replies.AUTH_UNKNOWN_MECHANISM
cdef bytes AUTH_NEEDS_EHLO = replies.AUTH_NEEDS_EHLO
cdef bytes AUTH_TWICE = replies.AUTH_TWICE
cdef bytes AUTH_NEEDS_TLS = replies.AUTH_NEEDS_TLS


cdef server_event auth_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept:
    cdef smtp_parameter *given = &command.parameters[0]
    cdef const uint8_t *name = line + given.keyword.offset
    if self.identity is not None:
        return self.tell_refusal(AUTH_TWICE)
    if self.mechanisms is None:
        return self.tell_refusal(AUTH_NEEDS_TLS if self.auth_needs_tls else NOT_IMPLEMENTED)
    if not self.is_ehlo:
        return self.tell_refusal(AUTH_NEEDS_EHLO)
    self.mechanism = PyBytes_FromStringAndSize(<const char *>name, given.keyword.length).decode("ascii").upper()
    if self.mechanism.encode("ascii") not in self.mechanisms.split():
        return self.tell_refusal(AUTH_UNKNOWN_MECHANISM)
    self.response = None
    if given.has_value:
        self.response = decoded(line + given.value.offset, given.value.length)
    self.state = SERVER_AUTH
    self.asked = EVENT_AUTH
    return EVENT_AUTH


cdef server_event auth_response(ServerDialogue self) noexcept:
    """A response: base64, or "*", which cancels (RFC 4954 §4). Whatever else it is ends the exchange."""
    cdef size_t length
    cdef const uint8_t *line = self.at
    cdef smtp_line_result result
    if self.at == self.end:
        return EVENT_NONE
    self.verb = SMTP_VERB_AUTH
    result = smtp_line_find(line, self.end - line, AUTH_LINE_LIMIT, &length)
    if result == SMTP_LINE_PARTIAL:
        return EVENT_NONE
    if self.witness is not None:
        self.witness.response(length)
    if result == SMTP_LINE_TOO_LONG:
        self.at += length
        self.after = SERVER_AUTH
        self.state = SERVER_SKIP_LINE
        return EVENT_GO_ON
    if result != SMTP_LINE_OK:
        return self.fail(BARE_LINE_ENDING)
    self.at += length + 2
    if self.at != self.end:
        return self.fail(IMPROPER_PIPELINING)
    if length == 1 and line[0] == c'*':
        self.state = SERVER_READY
        return self.tell_refusal(AUTH_CANCELLED)
    if not smtp_base64_is_valid(line, length):
        self.state = SERVER_READY
        return self.tell_refusal(AUTH_BAD_BASE64)
    self.response = decoded(line, length)
    self.asked = EVENT_AUTH_RESPONSE
    return EVENT_AUTH_RESPONSE


cdef int auth_challenge(ServerDialogue self, bytes octets) except -1:
    self.asked = 0
    if self.at != self.end:
        self.fail(IMPROPER_PIPELINING)         # a response to what nobody had asked: a guess
        return 0
    self.say(b"334 " + binascii.b2a_base64(octets, newline=False) + b"\r\n")
    return 0


cdef void auth_ends(ServerDialogue self, bytes reply) noexcept:
    """`refusal` is what was said when it was no."""
    cdef bint is_failure = reply is not AUTH_OK
    self.refusal = reply if is_failure else None
    self.asked = 0
    self.state = SERVER_READY
    self.response = None
    # Octets behind a command that ends a group were sent before its reply (RFC 4954 §4): guesses, or an injection.
    if self.at != self.end:
        self.identity = None
        self.fail(IMPROPER_PIPELINING)
    elif is_failure and reply.startswith(b"421"):
        self.fail(reply)
    elif is_failure:
        self.error_count += 1
        if self.error_count >= self.settings.max_errors:
            self.fail(self.settings.errors_reply)
        else:
            self.say_refusal(reply)
    else:
        self.say(reply)


cdef bytes decoded(const uint8_t *base64, size_t length):
    """What valid base64, or the "=" of an empty initial response, stands for."""
    return b"" if length == 1 else binascii.a2b_base64(PyBytes_FromStringAndSize(<const char *>base64, length))
