from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport smtp_command
from angarium.smtp.server_dialogue cimport ServerDialogue, server_event

cdef server_event claim_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept
# The answer yes to EVENT_XCLIENT: the session begins anew, with what XCLIENT has said of the client.
cdef void claim_ends(ServerDialogue self, bytes helo, bint is_ehlo, bytes identity) noexcept
