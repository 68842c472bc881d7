# Which reply refuses a command that came at the wrong time or is malformed.
from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport *
from angarium.smtp.server_dialogue cimport EVENT_GO_ON, ServerDialogue, server_event
from angarium.smtp.server_state cimport *

from angarium.smtp import replies

cdef bytes UNKNOWN_COMMAND = replies.UNKNOWN_COMMAND
cdef bytes CONTROL_OCTETS = replies.CONTROL_OCTETS
cdef bytes COMMAND_HAS_8BIT = replies.COMMAND_HAS_8BIT
cdef bytes SYNTAX = replies.SYNTAX
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
cdef bytes NO_VALID_RECIPIENTS = replies.NO_VALID_RECIPIENTS
cdef bytes MESSAGE_FAR_TOO_BIG = replies.MESSAGE_FAR_TOO_BIG
cdef bytes AUTH_BAD_BASE64 = replies.AUTH_BAD_BASE64


cdef server_event order_refused(ServerDialogue self, uint8_t check, smtp_command *command) noexcept:
    cdef bytes reply
    if check == CHECK_NEEDS_HELO:
        reply = NEEDS_HELO
    elif check == CHECK_IS_NESTED:
        reply = NESTED_MAIL
    elif check == CHECK_NEEDS_RCPT:
        # RFC 2033 §4.2 wants 503 of LMTP, whatever was refused before.
        reply = NO_VALID_RECIPIENTS if self.refused_recipient_count and not self.settings.is_lmtp else NEEDS_RCPT
    elif check == CHECK_IN_CHUNKS:
        reply = IN_CHUNKS
    else:
        reply = NEEDS_MAIL
    if command.verb != SMTP_VERB_BDAT:
        return self.tell_refusal(reply)
    return chunk_refused(self, reply, command)


cdef server_event chunk_refused(ServerDialogue self, bytes reply, smtp_command *command) noexcept:
    """The octets of the chunk come all the same (RFC 3030 §2), also where BDAT is not known: read as commands they would be
    whatever somebody has put into a message. A chunk that is refused fails the transaction (§2): what came of the message later
    must not pass for the whole of it."""
    if command.chunk_octets > self.settings.give_up_octets:
        return self.fail(MESSAGE_FAR_TOO_BIG)
    self.repeats = 0
    self.end_transaction()
    self.refusal = reply
    self.chunk_left = self.chunk_octets = command.chunk_octets
    self.after = self.state
    self.state = SERVER_SKIP_CHUNK
    return EVENT_GO_ON


cdef server_event syntax_refused(ServerDialogue self, uint8_t result, smtp_command *command) noexcept:
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
    return self.tell_refusal(reply)
