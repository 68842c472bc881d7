from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from angarium.smtp.csmtp cimport smtp_by, smtp_command
from angarium.smtp.server_settings cimport ServerSettings

cdef enum mail_flags:
    MAIL_BODY_8BITMIME = 1
    MAIL_SMTPUTF8 = 2
    MAIL_RET_FULL = 4
    MAIL_RET_HDRS = 8
    MAIL_BODY_BINARYMIME = 16
    MAIL_DELIVER_BY = 32                # BY, RFC 2852
    MAIL_HOLD_FOR = 64                  # HOLDFOR and HOLDUNTIL, RFC 4865
    MAIL_HOLD_UNTIL = 128
    MAIL_PRIORITY = 256                 # MT-PRIORITY, RFC 6710
    MAIL_SOLICIT = 512                  # RFC 3865
    # Any of those that make an attribute of the envelope.
    MAIL_TERMS = MAIL_DELIVER_BY | MAIL_HOLD_FOR | MAIL_HOLD_UNTIL | MAIL_PRIORITY | MAIL_SOLICIT
    MAIL_REQUIRETLS = 0x8000            # RFC 8689; whether it was offered is the caller's question

cdef struct mail_parameters:            # spans into the command line
    uint64_t announced_octets           # SIZE, or 0
    const uint8_t *envid
    uint32_t envid_length
    uint32_t flags                      # mail_flags; what follows means something where its flag is set
    uint32_t hold_for_s
    uint64_t hold_until_utc_s
    smtp_by by
    int8_t priority
    uint32_t solicit_length
    const uint8_t *solicit

cdef struct rcpt_parameters:
    const uint8_t *orcpt
    uint32_t orcpt_length
    uint8_t notify                      # SMTP_NOTIFY_*, 0 when not given

# Fill *out from a command that was parsed without fault. None, or the reply that refuses it.
# FUTURERELEASE is known where `may_hold`.
# AUTH= (RFC 4954 §5) is judged and not kept where `is_auth_offered`, and not known elsewhere.
cdef bytes mail_parameters_read(const uint8_t *line, const smtp_command *command, ServerSettings offered,
                                ServerSettings settings, bint is_auth_offered, bint may_hold, mail_parameters *out)
cdef bytes rcpt_parameters_read(const uint8_t *line, const smtp_command *command, bint is_smtputf8, bint is_dsn_offered,
                                rcpt_parameters *out)
