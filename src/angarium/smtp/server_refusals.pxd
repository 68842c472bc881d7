from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport smtp_command
from angarium.smtp.server_dialogue cimport ServerDialogue, server_event

# `check` is a server_check that is not CHECK_MAY, `result` a smtp_command_result that is not OK.
cdef server_event order_refused(ServerDialogue self, uint8_t check, smtp_command *command) noexcept
cdef server_event syntax_refused(ServerDialogue self, uint8_t result, smtp_command *command) noexcept
# BDAT: the chunk is read away, and then the reply is said.
cdef server_event chunk_refused(ServerDialogue self, bytes reply, smtp_command *command) noexcept
