from libc.stdint cimport int64_t, uint32_t, uint64_t
from angarium.smtp.refusal_ids cimport RefusalIds


cdef enum:
    EVERY_VERB = 0xffffffff     # as `ends_group`: nothing may be pipelined


cdef class ServerSettings:
    """What a session says and allows: no policy. Shared by sessions, replaced as a whole."""
    cdef readonly bytes hostname
    cdef readonly bytes greeting
    cdef readonly bytes helo_reply
    cdef readonly bytes ehlo_reply
    cdef readonly bytes ehlo_starttls_reply     # in clear, where STARTTLS is offered
    cdef readonly bytes ehlo_tls_reply          # under TLS
    cdef readonly bytes quit_reply
    cdef readonly bytes timeout_reply
    cdef readonly bytes slow_reply
    cdef readonly bytes shutdown_reply
    cdef readonly bytes errors_reply
    cdef readonly bytes refused_rcpt_reply
    cdef readonly bytes trouble_reply
    cdef readonly bytes too_many_reply
    cdef readonly bint starttls
    cdef readonly bint requires_tls
    cdef readonly bint requiretls
    cdef readonly uint64_t max_message_octets
    cdef readonly uint64_t give_up_octets
    cdef readonly uint32_t max_recipients
    cdef readonly uint32_t max_line_octets
    cdef readonly uint32_t max_errors
    cdef readonly uint32_t max_refused_recipients
    cdef readonly uint32_t max_junk
    cdef readonly uint32_t run_octets
    cdef readonly uint32_t command_timeout_s
    cdef readonly uint32_t block_timeout_s
    cdef readonly bint auth_required
    cdef readonly bint is_lmtp                  # RFC 2033: LHLO, a reply for each recipient
    cdef readonly uint32_t path_flags           # of smtp_path_parse(), besides those of the command
    cdef readonly bytes completion              # submission: the domain that mailboxes without one get; or None
    cdef readonly RefusalIds refusal_ids        # None: refusals have none
    cdef readonly bint tells_refusal_ids        # in the reply
    cdef readonly dict refusal_words            # reply -> why (reasons.py)
    cdef readonly uint32_t ends_group           # bits of verbs behind which nothing may stand; without PIPELINING all
    cdef readonly bint vrfy
    # Extensions; see the .pyi.
    cdef readonly bint size
    cdef readonly bint eightbitmime
    cdef readonly bint smtputf8
    cdef readonly bint chunking
    cdef readonly bint dsn
    cdef readonly bint binarymime
    cdef readonly bint priority
    cdef readonly int64_t deliver_by_minimum_s
    cdef readonly uint32_t hold_max_s
    cdef readonly bytes no_soliciting
    cdef readonly bytes solicitation_reply
    cdef readonly uint32_t max_messages
