from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport smtp_command
from angarium.smtp.server_dialogue cimport ServerDialogue, server_event

cdef server_event hello_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept
cdef server_event starttls_command(ServerDialogue self) noexcept
cdef bint offers_starttls(ServerDialogue self) noexcept
cdef bint offers_requiretls(ServerDialogue self) noexcept
