from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport smtp_command
from angarium.smtp.server_dialogue cimport ServerDialogue, server_event

cdef enum:
    AUTH_LINE_LIMIT = 12288         # limits.AUTH_LINE_OCTETS

cdef server_event auth_command(ServerDialogue self, const uint8_t *line, smtp_command *command) noexcept
# In SERVER_AUTH the next line is a response.
cdef server_event auth_response(ServerDialogue self) noexcept
# The answers to EVENT_AUTH and EVENT_AUTH_RESPONSE: one more challenge; or `reply`, AUTH_OK or a refusal.
cdef int auth_challenge(ServerDialogue self, bytes octets) except -1
cdef void auth_ends(ServerDialogue self, bytes reply) noexcept
