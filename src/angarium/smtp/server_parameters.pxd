from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.smtp.csmtp cimport smtp_command

cdef enum mail_flags:
    MAIL_BODY_8BITMIME = 1
    MAIL_SMTPUTF8 = 2
    MAIL_RET_FULL = 4
    MAIL_RET_HDRS = 8
    MAIL_REQUIRETLS = 0x8000            # RFC 8689; whether it was offered is the caller's question

cdef struct mail_parameters:            # spans into the command line
    uint64_t announced_octets           # SIZE, or 0
    const uint8_t *envid
    uint32_t envid_length
    uint32_t flags                      # mail_flags

cdef struct rcpt_parameters:
    const uint8_t *orcpt
    uint32_t orcpt_length
    uint8_t notify                      # SMTP_NOTIFY_*, 0 when not given

# Fill *out from a command that was parsed without fault. None, or the reply that refuses it.
# AUTH= (RFC 4954 §5) is judged and not kept where `is_auth_offered`, and not known elsewhere.
cdef bytes mail_parameters_read(const uint8_t *line, const smtp_command *command, bint is_auth_offered,
                                mail_parameters *out)
cdef bytes rcpt_parameters_read(const uint8_t *line, const smtp_command *command, bint is_smtputf8, rcpt_parameters *out)
