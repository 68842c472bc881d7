# MAIL and RCPT inside a server session: what is asked of everybody before policy hears of it.
from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport smtp_command
from angarium.smtp.server_qualify cimport qualify
from angarium.smtp.server_dialogue cimport EVENT_MAIL, EVENT_RCPT, EVENT_REFUSED, ServerDialogue, server_event
from angarium.smtp.server_hello cimport offers_requiretls
from angarium.smtp.server_parameters cimport (
    MAIL_REQUIRETLS, MAIL_SMTPUTF8, MAIL_SOLICIT, mail_parameters_read, rcpt_parameters_read,
)

from angarium.smtp import replies

cdef bytes TLS_REQUIRED = replies.TLS_REQUIRED
cdef bytes AUTH_REQUIRED = replies.AUTH_REQUIRED
cdef bytes MESSAGE_TOO_BIG = replies.MESSAGE_TOO_BIG
cdef bytes UNKNOWN_PARAMETER = replies.UNKNOWN_PARAMETER
cdef bytes TOO_MANY_MESSAGES = replies.TOO_MANY_MESSAGES
cdef bytes TOO_MANY_RECIPIENTS = replies.TOO_MANY_RECIPIENTS


cdef server_event mail_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept:
    cdef bytes reply
    if self.settings.requires_tls and not self.is_tls:
        return self.tell_refusal(TLS_REQUIRED)
    if self.settings.auth_required and self.identity is None and not self.is_trusted:
        return self.tell_refusal(AUTH_REQUIRED)
    if self.settings.max_messages and self.mail_count >= self.settings.max_messages:
        return self.tell_refusal(TOO_MANY_MESSAGES)         # RFC 9422 §4.1 (MAILMAX)
    reply = mail_parameters_read(line, command, self.offered, self.settings,
                                 self.mechanisms is not None or self.was_offered_auth,
                                 self.future_release is not None or self.was_offered_holds, &self.mail)
    if self.mail.flags & MAIL_REQUIRETLS and not offers_requiretls(self):
        reply = UNKNOWN_PARAMETER
    if reply is None and self.mail.announced_octets > self.settings.max_message_octets:
        reply = MESSAGE_TOO_BIG
    if reply is not None:
        return self.tell_refusal(reply)
    if self.mail.flags & MAIL_SOLICIT:
        self.solicit = self.mail.solicit[:self.mail.solicit_length]
    self.mail_reply = None
    self.path = line + command.path.mailbox.offset
    self.path_length = command.path.mailbox.length
    if self.settings.path_flags != 0 and self.path_length and (reply := qualify(self, line, command)) is not None:
        return self.tell_refusal(reply)
    self.asked = EVENT_MAIL
    return EVENT_MAIL


cdef server_event rcpt_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept:
    cdef bytes reply = rcpt_parameters_read(line, command, self.mail.flags & MAIL_SMTPUTF8, self.offered.dsn,
                                            &self.rcpt)
    if reply is not None:
        self.refused_recipient_count += 1
        return self.tell_refusal(reply)
    if self.recipient_count >= self.settings.max_recipients:
        # No error of the client: it does right to go on and to send the rest later (RFC 5321 §4.5.3.1.10).
        self.refused_recipient_count += 1
        reply = self.count_refused_rcpt(TOO_MANY_RECIPIENTS)
        if reply is not TOO_MANY_RECIPIENTS:
            return self.fail(reply)
        self.say_refusal(reply)
        self.refusal = reply
        return EVENT_REFUSED
    self.path = line + command.path.mailbox.offset
    self.path_length = command.path.mailbox.length
    self.domain_offset = command.path.domain.offset - command.path.mailbox.offset
    if command.path.domain.length == 0:     # <Postmaster>
        self.domain_offset = self.path_length
    if self.settings.path_flags != 0 and (reply := qualify(self, line, command)) is not None:
        self.refused_recipient_count += 1
        return self.tell_refusal(reply)
    self.asked = EVENT_RCPT
    return EVENT_RCPT
