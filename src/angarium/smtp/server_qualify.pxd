from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport smtp_command
from angarium.smtp.server_dialogue cimport ServerDialogue

# Looks at self.path of MAIL or RCPT: completes it, or returns the reply that refuses it; None: good.
cdef bytes qualify(ServerDialogue self, const uint8_t *line, smtp_command *command)
