from angarium.smtp.csmtp cimport smtp_command
from angarium.smtp.server_dialogue cimport ServerDialogue, server_event

cdef server_event data_command(ServerDialogue self) noexcept
cdef server_event bdat_command(ServerDialogue self, smtp_command *command) noexcept
# After begin_data_with() for BDAT, and for every later chunk.
cdef server_event chunk_begins(ServerDialogue self) noexcept
# Input in SERVER_DATA, SERVER_CHUNK and SERVER_SKIP_CHUNK.
cdef server_event data_read(ServerDialogue self) noexcept
cdef server_event chunk_read(ServerDialogue self) noexcept
cdef server_event chunk_skip(ServerDialogue self) noexcept
