# XCLIENT, XFORWARD and ETRN inside a server session: who may say them is known before (`takes_...`), what they say is judged by
# whoever is asked. Everybody else hears what an unknown command hears.
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from angarium.smtp.csmtp cimport *
from angarium.smtp.server_dialogue cimport EVENT_ETRN, EVENT_XCLIENT, EVENT_XFORWARD, ServerDialogue, server_event
from angarium.smtp.server_settings cimport EVERY_VERB
from angarium.smtp.server_state cimport SERVER_READY, SERVER_START

from angarium.smtp import replies

cdef bytes NOT_IMPLEMENTED = replies.NOT_IMPLEMENTED
cdef bytes NEEDS_HELO = replies.NEEDS_HELO


cdef server_event claim_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept:
    cdef bint is_xclient = command.verb == SMTP_VERB_XCLIENT, is_etrn = command.verb == SMTP_VERB_ETRN
    if not (self.takes_xclient if is_xclient else self.takes_etrn if is_etrn else self.takes_xforward):
        return self.tell_refusal(NOT_IMPLEMENTED)
    if self.state == SERVER_START and not is_xclient:
        return self.tell_refusal(NEEDS_HELO)
    self.argument = PyBytes_FromStringAndSize(<const char *>line + command.argument.offset, command.argument.length)
    self.asked = EVENT_XCLIENT if is_xclient else EVENT_ETRN if is_etrn else EVENT_XFORWARD
    return <server_event>self.asked


cdef void claim_ends(ServerDialogue self, bytes helo, bint is_ehlo, bytes identity) noexcept:
    # TLS stays: it is the connection's (XCLIENT_README, "XCLIENT Server response").
    self.asked = 0
    self.end_transaction()
    self.helo = helo
    self.is_ehlo = is_ehlo
    self.ends_group = self.offered.ends_group if is_ehlo else <uint32_t>EVERY_VERB
    self.identity = identity
    self.state = SERVER_START if helo is None else SERVER_READY
    self.say(self.settings.greeting)
