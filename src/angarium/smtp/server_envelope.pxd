from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport smtp_command
from angarium.smtp.server_dialogue cimport ServerDialogue, server_event

cdef server_event mail_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept
cdef server_event rcpt_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept
