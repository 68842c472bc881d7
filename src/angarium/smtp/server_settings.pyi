"""What a server session says and allows."""

from typing import final

from angarium.smtp.refusal_ids import RefusalIds

@final
class ServerSettings:
    """Replies with our name in them, and limits; immutable, shared by sessions, replaced as a whole.

    hostname             ASCII, in greeting, HELO, EHLO and 421 replies (RFC 5321 §4.2.3).
    max_message_octets   announced as SIZE (RFC 1870); more is read to its end and refused, 552.
    give_up_octets       past this the end is not waited for.
    max_recipients       in one transaction; then 452 4.5.3.
    max_line_octets      of message lines with CRLF.
    starttls             offered in clear (RFC 3207).
    requires_tls         MAIL in clear gets 530.
    requiretls           REQUIRETLS is offered under TLS (RFC 8689).
    max_errors           commands refused before 421 4.7.0.
    max_refused_recipients  RCPT that ServerSession.count_refused_rcpt() lets be refused for good, more than were accepted, before
                         421 4.7.0; 0: no bound.
    max_junk             commands that lead to no message (EHLO, RSET, NOOP, VRFY, HELP) before 421 4.7.0; a message
                         that was taken begins anew.
    run_octets           from here on message data may be taken away while it arrives (event Body).
    command_timeout_s    and block_timeout_s: values for whoever has a clock.
    auth_required        MAIL is answered 530 until AUTH succeeded.
    lmtp                 LHLO instead of EHLO, and a reply to message data for each recipient (RFC 2033).
    must_qualify         mailboxes without a domain, or with one of a single label, are refused with 554 (RFC 6409 §4.2).
    completion           the domain that those without one get instead.
    refusal_ids          None: refusals have no ids. tells_refusal_ids: they stand in the reply, too.
    refusal_words        why each reply that refuses is said (reasons.py), by its octets.
    binarymime           offers BINARYMIME (RFC 3030).
    priority             offers MT-PRIORITY (RFC 6710).
    deliver_by_minimum_s offers DELIVERBY (RFC 2852) and takes by-mode R from so many seconds on; below 0: not offered.
    hold_max_s           FUTURERELEASE (RFC 4865) is known where ServerSession.future_release is set too; 0: nowhere.
    no_soliciting        keywords of NO-SOLICITING (RFC 3865), "," between, whose mail is refused; b"": none is; None: not offered.
    max_messages         MAIL commands that one session may have accepted; 0: no limit.
    announces_limits     offers LIMITS (RFC 9422).
    size, pipelining, eightbitmime, smtputf8, chunking, dsn   offers SIZE (RFC 1870), PIPELINING (RFC 2920), 8BITMIME (RFC 6152),
                         SMTPUTF8 (RFC 6531), CHUNKING (RFC 3030), DSN (RFC 3461). What is not offered is refused: a
                         parameter with 555, BDAT with 502; what stands behind a command ends a session without PIPELINING.
    vrfy                 VRFY is answered 252, else 502 (RFC 5321 §3.5.3).
    ends_group           bits of verbs behind which nothing may stand.
    Raises UnicodeEncodeError for a hostname that is not ASCII.
    """

    hostname: bytes
    greeting: bytes
    helo_reply: bytes
    ehlo_reply: bytes
    ehlo_starttls_reply: bytes
    ehlo_tls_reply: bytes
    quit_reply: bytes
    timeout_reply: bytes
    slow_reply: bytes
    shutdown_reply: bytes
    errors_reply: bytes
    refused_rcpt_reply: bytes
    trouble_reply: bytes
    too_many_reply: bytes
    starttls: bool
    requires_tls: bool
    requiretls: bool
    max_message_octets: int
    give_up_octets: int
    max_recipients: int
    max_line_octets: int
    max_errors: int
    max_junk: int
    max_refused_recipients: int
    run_octets: int
    command_timeout_s: int
    block_timeout_s: int
    auth_required: bool
    is_lmtp: bool
    path_flags: int
    completion: bytes | None
    refusal_ids: RefusalIds | None
    tells_refusal_ids: bool
    solicitation_reply: bytes
    refusal_words: dict[bytes, bytes]
    binarymime: bool
    priority: bool
    deliver_by_minimum_s: int
    hold_max_s: int
    no_soliciting: bytes | None
    max_messages: int
    size: bool
    eightbitmime: bool
    smtputf8: bool
    chunking: bool
    dsn: bool
    vrfy: bool
    ends_group: int
    def __init__(
        self,
        hostname: str | bytes,
        *,
        max_message_octets: int = ...,
        max_recipients: int = 1000,
        max_line_octets: int = 2048,
        max_errors: int = 20,
        starttls: bool = False,
        requires_tls: bool = False,
        requiretls: bool = False,
        run_octets: int = ...,
        command_timeout_s: int = 300,
        block_timeout_s: int = 180,
        auth_required: bool = False,
        lmtp: bool = False,
        must_qualify: bool = False,
        completion: bytes | None = None,
        refusal_ids: RefusalIds | None = None,
        tells_refusal_ids: bool = False,
        max_junk: int = 100,
        binarymime: bool = False,
        priority: bool = False,
        deliver_by_minimum_s: int = -1,
        hold_max_s: int = 0,
        no_soliciting: str | bytes | None = None,
        max_messages: int = 0,
        announces_limits: bool = False,
        max_refused_recipients: int = 20,
        size: bool = True,
        pipelining: bool = True,
        eightbitmime: bool = True,
        smtputf8: bool = True,
        chunking: bool = True,
        dsn: bool = True,
        vrfy: bool = True,
    ) -> None: ...
