# HELO, EHLO and STARTTLS inside a server session: who the client says it is, and what it is offered (RFC 5321 §4.1.1.1,
# RFC 3207).
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from angarium.smtp.csmtp cimport *
from angarium.smtp.server_dialogue cimport EVENT_HELO, EVENT_STARTTLS, ServerDialogue, server_event
from angarium.smtp.server_settings cimport EVERY_VERB
from angarium.smtp.server_state cimport SERVER_READY

from angarium.smtp import replies

cdef enum:
    HELO_LIMIT = 255

cdef bytes NOT_IMPLEMENTED = replies.NOT_IMPLEMENTED
cdef bytes BAD_HELO_NAME = replies.BAD_HELO_NAME
cdef bytes TLS_ALREADY = replies.TLS_ALREADY
cdef bytes SAY_LHLO = replies.SAY_LHLO


cdef server_event hello_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept:
    cdef const uint8_t *name = line + command.argument.offset
    if (command.verb == SMTP_VERB_LHLO) != self.settings.is_lmtp:
        return self.tell_refusal(SAY_LHLO if self.settings.is_lmtp else NOT_IMPLEMENTED)
    if not is_helo_name(name, command.argument.length):
        return self.tell_refusal(BAD_HELO_NAME)
    self.end_transaction()
    self.state = SERVER_READY
    self.is_ehlo = command.verb != SMTP_VERB_HELO
    self.offered = self.settings
    self.was_offered_auth = self.is_ehlo and self.mechanisms is not None
    self.was_offered_holds = self.is_ehlo and self.future_release is not None
    self.ends_group = self.settings.ends_group if self.is_ehlo else <uint32_t>EVERY_VERB
    self.helo = PyBytes_FromStringAndSize(<const char *>name, command.argument.length)
    if not self.is_ehlo:
        self.say(self.settings.helo_reply)
    elif self.mechanisms is not None or self.extensions is not None or self.future_release is not None:
        self.say(ehlo_lines(self))
    else:
        self.say(settings_reply(self))
    return EVENT_HELO


cdef bytes settings_reply(ServerDialogue self):
    """To EHLO: in clear with STARTTLS, under TLS with what is offered only there."""
    if self.is_tls:
        return self.settings.ehlo_tls_reply
    return self.settings.ehlo_starttls_reply if self.settings.starttls else self.settings.ehlo_reply


cdef bint offers_starttls(ServerDialogue self) noexcept:
    return self.offered.starttls and not self.is_tls


cdef bint offers_requiretls(ServerDialogue self) noexcept:
    return self.is_tls and self.offered.requiretls         # RFC 8689 §2 (4): never in clear


cdef server_event starttls_command(ServerDialogue self) noexcept:
    if not self.offered.starttls and not self.is_tls:
        return self.tell_refusal(NOT_IMPLEMENTED)
    if self.is_tls:
        return self.tell_refusal(TLS_ALREADY)
    self.asked = EVENT_STARTTLS
    return EVENT_STARTTLS


cdef bytes ehlo_lines(ServerDialogue self):
    """The settings' own with the lines that not every session gets."""
    cdef bytes lines = settings_reply(self)
    cdef Py_ssize_t last = lines.rindex(b"250 ")
    cdef bytes own = b""
    if self.mechanisms is not None:
        own += b"250-AUTH " + self.mechanisms + b"\r\n"
    if self.future_release is not None:
        own += b"250-FUTURERELEASE " + self.future_release + b"\r\n"
    if self.extensions is not None:
        own += self.extensions
    return lines[:last] + own + lines[last:]


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
