"""Why something is refused: for each reply of replies.py that refuses, the word that log, metrics and
`angarium explain-reject` share, a sentence for operators, and the keys of the configuration that decide.

Words are stable: dashboards and alerts are written against them. A refusal that is not in replies.py, of a hook or of
somebody else's policy, comes with a word of its own (OF_POLICIES); one that is unknown here counts as OTHER.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from angarium.smtp import replies

OTHER: Final = "other"


class Reason(NamedTuple):
    """word: lower case and hyphens. keys: as docs/configuration.md writes them; (): nothing to set."""

    word: str
    sentence: str
    keys: tuple[str, ...] = ()


# By the name of the reply.
REASONS: Final[dict[str, Reason]] = {
    # The connection
    "GREETING_TOO_MANY": Reason(
        "too-many-sessions",
        "This listener had as many sessions as it may have, over all workers.",
        ("listener.max_sessions",),
    ),
    "TIMEOUT": Reason(
        "timeout",
        "The client did not send a whole command, or a block of message data, in time.",
        ("listener.command_timeout", "listener.data_timeout"),
    ),
    "TOO_SLOW": Reason(
        "data-too-slow",
        "A message took longer than five minutes and a second for each so many octets.",
        ("listener.data_octets_per_s",),
    ),
    "SHUTTING_DOWN": Reason("shutting-down", "The relay was being stopped or restarted."),
    "TOO_MANY_ERRORS": Reason(
        "too-many-errors",
        "One session had too many commands refused; the lines before this one say which.",
        ("listener.max_errors",),
    ),
    "TOO_MANY_REFUSED_RECIPIENTS": Reason(
        "too-many-refused-recipients",
        "A client without relay rights had too many recipients refused in one session; "
        "the lines before this one say which.",
        ("listener.max_refused_recipients",),
    ),
    "INTERNAL_ERROR": Reason("internal-error", "Something went wrong inside; an `error` line says what."),
    "PROXY_HEADER_BAD": Reason(
        "proxy-header-bad",
        "A peer that is listed as a balancer did not begin with a PROXY header: it sends none, or it is no balancer.",
        ("listener.proxy_from",),
    ),
    "PROXY_HEADER_LATE": Reason(
        "proxy-header-late",
        "A peer that is listed as a balancer sent no whole PROXY header within five seconds.",
        ("listener.proxy_from",),
    ),
    # Who may come in
    "MACHINE_FULL": Reason(
        "machine-full",
        "As many sessions of strangers were open on this machine as may be.",
        ("admission.max_sessions",),
    ),
    "MEMORY_FULL": Reason(
        "session-memory-full",
        "The sessions of all workers held as much memory as they may.",
        ("admission.max_session_memory",),
    ),
    "NETWORK_CONNECTIONS": Reason(
        "network-connections",
        "As many connections of the client's network were open as may be.",
        ("admission.limit.connections",),
    ),
    "NETWORK_CONNECTION_RATE": Reason(
        "network-connection-rate",
        "Connections of the client's network came faster than they may.",
        ("admission.limit.connection_rate",),
    ),
    "NETWORK_ERRORS": Reason(
        "network-errors",
        "Clients of this network had more commands refused for good than they may.",
        ("admission.limit.errors",),
    ),
    "NETWORK_MESSAGES": Reason(
        "network-messages", "The client's network sent as many messages as it may.", ("admission.limit.messages",)
    ),
    "NETWORK_RECIPIENTS": Reason(
        "network-recipients",
        "The client's network sent to as many recipients as it may.",
        ("admission.limit.recipients",),
    ),
    "NETWORK_HANDSHAKES": Reason(
        "network-handshakes",
        "The client's network began TLS as often as it may.",
        ("admission.limit.handshakes",),
    ),
    "NETWORK_AUTH_ATTEMPTS": Reason(
        "network-auth-attempts",
        "Clients of this network began AUTH as often as they may, whether it went well or not.",
        ("admission.limit.auth_attempts",),
    ),
    # Extensions of MAIL
    "BINARYMIME_NEEDS_BDAT": Reason(
        "binarymime-needs-bdat", "DATA came in a transaction of BODY=BINARYMIME (RFC 3030 §3)."
    ),
    "BY_TIME_TOO_SHORT": Reason(
        "by-time-too-short",
        "DELIVERBY asked for less time than is announced (RFC 2852 §3).",
        ("listener.extensions.deliver_by_minimum",),
    ),
    "HOLD_BEYOND_BY": Reason(
        "hold-beyond-by", "A message was to be held until its by-time was over (RFC 4865 §5.2.2)."
    ),
    "HOLD_IS_PAST": Reason("hold-is-past", "HOLDUNTIL named a time that is over (RFC 4865 §4.2)."),
    "HOLD_NOT_ALLOWED": Reason(
        "hold-not-allowed",
        "A client that may not relay asked for its message to be held.",
        ("listener.relay_from", "listener.auth.offered"),
    ),
    "HOLD_TOO_LONG": Reason(
        "hold-too-long",
        "A message was to be held for longer than is announced (RFC 4865 §4.2).",
        ("listener.extensions.future_release",),
    ),
    "TWO_HOLDS": Reason("two-holds", "HOLDFOR and HOLDUNTIL came with one MAIL (RFC 4865 §4.2)."),
    "SOLICITATION": Reason(
        "solicitation",
        "SOLICIT, or the field Solicitation, named a class of mail that is not taken (RFC 3865 §2.3).",
        ("listener.extensions.no_soliciting",),
    ),
    "TOO_MANY_MESSAGES": Reason(
        "too-many-messages",
        "One session had as many messages accepted as it may; the client goes on in another.",
        ("listener.extensions.max_messages",),
    ),
    # Recipients
    "UNKNOWN_RECIPIENT": Reason(
        "unknown-recipient",
        "The domain is one of ours, and nobody of that name is in its list, or its next hop refused the name.",
        ("domain.recipients",),
    ),
    "NO_REPORT_ADDRESS": Reason(
        "no-report-address",
        "The recipient looks like one of our traces in reverse-paths, and we have not made it: forged, or damaged.",
        ("reports.verp",),
    ),
    "REPORT_APART": Reason(
        "report-apart",
        "An address for reports and another recipient came in one transaction; the client sends to it in another.",
        ("reports.addresses",),
    ),
    "SUPPRESSED": Reason(
        "suppressed",
        "Mail to the recipient has failed before, or somebody has put it on the suppression list.",
        ("suppression.action", "suppression.rules"),
    ),
    "RECIPIENT_TROUBLE": Reason(
        "map-trouble",
        "A list of recipients or of aliases could not be read; an `error` line says which.",
        ("domain.recipients", "recipients.aliases"),
    ),
    "CANNOT_ASK_NEXT_HOP": Reason(
        "next-hop-not-asked", "The next hop that knows the domain's recipients did not answer.", ("domain.recipients",)
    ),
    # The line and the verb
    "UNKNOWN_COMMAND": Reason("unknown-command", "The line began with no verb of SMTP."),
    "NOT_IMPLEMENTED": Reason(
        "not-implemented",
        "The verb exists and is not offered on this listener, or not to this client.",
        ("listener.tls.starttls", "listener.auth.offered"),
    ),
    "SAY_LHLO": Reason("say-lhlo", "EHLO or HELO came to a listener for LMTP.", ("listener.protocol",)),
    "LINE_TOO_LONG": Reason("command-too-long", "A command was longer than SMTP allows (RFC 5321 §4.5.3.1.4)."),
    "CONTROL_OCTETS": Reason("control-octets", "A command held NUL or another control octet."),
    "COMMAND_HAS_8BIT": Reason("command-8bit", "A command held octets above 127 where SMTPUTF8 was not said."),
    "BARE_LINE_ENDING": Reason(
        "bare-line-ending",
        "A command ended with CR or LF alone. Such lines are how messages are smuggled; the session was ended.",
    ),
    "NOT_SMTP": Reason("not-smtp", "The first octets were no text: TLS to a port that begins in clear, or a scanner."),
    "HTTP_HERE": Reason(
        "http", "The client spoke HTTP: a scanner, or a web page that made a browser post to this port."
    ),
    "SPOKE_TOO_EARLY": Reason("spoke-too-early", "The client spoke before the greeting, as no mail server does."),
    "IMPROPER_PIPELINING": Reason(
        "improper-pipelining",
        "Commands came behind one whose reply must be waited for (RFC 2920 §3.1), or without EHLO.",
    ),
    "IMPROPER_PIPELINING_DATA": Reason(
        "improper-pipelining-data",
        "Octets came behind the end of a message of a client that had not said EHLO: message smuggling looks so.",
    ),
    # Arguments and parameters
    "SYNTAX": Reason("bad-argument", "The argument of a command is not what its grammar says."),
    "BAD_HELO_NAME": Reason("bad-helo-name", "HELO or EHLO gave neither a domain nor an address literal."),
    "BAD_PARAMETER": Reason("bad-parameter", "A parameter of MAIL or RCPT is not what its grammar says."),
    "PARAMETER_TWICE": Reason("parameter-twice", "A parameter of MAIL or RCPT was given twice."),
    "TOO_MANY_PARAMETERS": Reason("too-many-parameters", "MAIL or RCPT had more parameters than there are."),
    "BAD_PARAMETER_VALUE": Reason("bad-parameter-value", "A parameter of MAIL or RCPT had a value it cannot have."),
    "UNKNOWN_PARAMETER": Reason("unknown-parameter", "MAIL or RCPT had a parameter that EHLO did not offer."),
    "NO_BINARYMIME": Reason("no-binarymime", "MAIL said BODY=BINARYMIME, which is not offered here."),
    "BAD_REVERSE_PATH": Reason("bad-reverse-path", "The argument of MAIL FROM is no address."),
    "REVERSE_PATH_TOO_LONG": Reason(
        "reverse-path-too-long", "The address of MAIL FROM is longer than RFC 5321 §4.5.3.1 allows."
    ),
    "BAD_FORWARD_PATH": Reason("bad-forward-path", "The argument of RCPT TO is no address."),
    "FORWARD_PATH_TOO_LONG": Reason(
        "forward-path-too-long", "The address of RCPT TO is longer than RFC 5321 §4.5.3.1 allows."
    ),
    "UNQUALIFIED_SENDER": Reason(
        "unqualified-sender",
        "A submitted message has a reverse-path without a full domain.",
        ("listener.submission.complete_with",),
    ),
    "UNQUALIFIED_RECIPIENT": Reason(
        "unqualified-recipient",
        "A submitted message has a recipient without a full domain.",
        ("listener.submission.complete_with",),
    ),
    "NEEDS_SMTPUTF8": Reason("needs-smtputf8", "An address has octets above 127, and MAIL did not say SMTPUTF8."),
    # Order
    "NEEDS_HELO": Reason("needs-helo", "A command came before EHLO or HELO."),
    "NEEDS_MAIL": Reason("needs-mail", "RCPT, DATA or BDAT came without MAIL, or after MAIL had been refused."),
    "NEEDS_RCPT": Reason("needs-rcpt", "DATA or BDAT came without RCPT."),
    "NESTED_MAIL": Reason("nested-mail", "MAIL came inside a transaction."),
    "IN_CHUNKS": Reason("in-chunks", "Another command than BDAT or RSET came between the chunks of a message."),
    "BDAT_NEEDS_EHLO": Reason("bdat-needs-ehlo", "BDAT came from a client that had said HELO."),
    "NO_VALID_RECIPIENTS": Reason(
        "no-valid-recipients", "DATA or BDAT came after every RCPT had been refused; the lines before say why."
    ),
    "BAD_CHUNK_SIZE": Reason(
        "bad-chunk-size", "BDAT gave no readable size, so that nobody can know where commands go on."
    ),
    # Limits and policy
    "TOO_MANY_RECIPIENTS": Reason(
        "too-many-recipients",
        "The transaction has as many recipients as it may have. The client sends the rest in another.",
        ("listener.max_recipients",),
    ),
    "MESSAGE_TOO_BIG": Reason(
        "message-too-big", "The message is larger than this listener takes.", ("listener.max_message_octets",)
    ),
    "MESSAGE_FAR_TOO_BIG": Reason(
        "message-far-too-big",
        "The message was so much larger than allowed that its end was not waited for.",
        ("listener.max_message_octets",),
    ),
    "RELAY_DENIED": Reason(
        "relay-denied",
        "The client may not relay, by network, certificate or AUTH, and the recipient's domain is not relayed for.",
        (
            "listener.relay_from",
            "listener.relay_to",
            "listener.tls.relay_verified",
            "listener.tls.relay_certificates",
            "listener.auth.offered",
        ),
    ),
    "LOCAL_PART_ROUTES": Reason(
        "local-part-routing",
        "The local-part holds %, ! or @, or begins with / or |: a host behind us might take it for a route, a file"
        " or a command.",
        ("listener.relay_from",),
    ),
    "NO_ROOM": Reason(
        "no-room",
        "The spool has no room for new mail, the file system is below its marks, or the disk is far behind.",
        ("node.min_free", "node.min_free_inodes"),
    ),
    "QUEUE_FULL": Reason(
        "queue-full",
        "The queue takes all the memory that it may: mail leaves more slowly than it comes in.",
        ("queue.memory.limit",),
    ),
    "LOCAL_TROUBLE": Reason("local-trouble", "Something failed here; an `error` or `spool` line says what."),
    "NO_MEMORY": Reason("no-memory", "No memory was left for it."),
    # TLS
    "TLS_NOT_NOW": Reason(
        "tls-unavailable",
        "STARTTLS is offered and there is no certificate to do it with: a `certificates-refused` line says why.",
        ("listener.tls.certificates.cert",),
    ),
    "TLS_ALREADY": Reason("tls-already", "STARTTLS came under TLS."),
    "TLS_REQUIRED": Reason("tls-required", "MAIL came in clear where TLS is required.", ("listener.tls.required",)),
    "STARTTLS_PIPELINED": Reason(
        "starttls-injection",
        "Octets in clear came behind STARTTLS: somebody tries to have them taken for said under TLS (CVE-2011-0411).",
    ),
    # AUTH
    "AUTH_FAILED": Reason(
        "auth-failed", "The credentials are wrong; the `auth-failed` line says how.", ("auth.credentials",)
    ),
    "AUTH_UNAVAILABLE": Reason(
        "auth-unavailable",
        "Nobody could say whether the credentials are right, or the identity has failed too often;"
        " the `auth-failed` line says which.",
        ("auth.credentials", "auth.timeout", "auth.failures_per_identity"),
    ),
    "AUTH_TOO_MANY_FAILURES": Reason(
        "auth-too-many-failures",
        "The client's address has failed to authenticate too often within an hour.",
        ("auth.failures_per_address",),
    ),
    "AUTH_CANCELLED": Reason("auth-cancelled", "The client gave up an AUTH exchange."),
    "AUTH_BAD_BASE64": Reason("auth-bad-base64", "A line of an AUTH exchange is not base64."),
    "AUTH_LINE_TOO_LONG": Reason("auth-line-too-long", "A line of an AUTH exchange is over 12,288 octets long."),
    "AUTH_UNKNOWN_MECHANISM": Reason(
        "auth-unknown-mechanism", "AUTH named a mechanism that EHLO did not offer.", ("listener.auth.mechanisms",)
    ),
    "AUTH_NEEDS_EHLO": Reason("auth-needs-ehlo", "AUTH came from a client that had said HELO."),
    "AUTH_TWICE": Reason("auth-twice", "AUTH came from a client that was authenticated."),
    "AUTH_NEEDS_TLS": Reason(
        "auth-needs-tls",
        "AUTH came in clear, where passwords could be read on the way.",
        ("listener.auth.allow_plaintext_from", "listener.tls.starttls"),
    ),
    "AUTH_REQUIRED": Reason(
        "auth-required", "MAIL came from a client that has not authenticated.", ("listener.auth.required",)
    ),
    "SENDER_NOT_OWN": Reason(
        "sender-not-own", "The authenticated identity may not use this reverse-path.", ("auth.senders",)
    ),
    "QUOTA_EXCEEDED": Reason(
        "quota-exceeded", "The authenticated identity has sent what it may in this hour or day.", ("auth.quota",)
    ),
    # Claims and ETRN
    "CLAIM_SYNTAX": Reason("claim-syntax", "XCLIENT or XFORWARD claims something that is not what its name says."),
    "ETRN_UNABLE": Reason("etrn-unable", "ETRN asked again too soon, or the queue could not be asked."),
    "ETRN_NOT_ALLOWED": Reason(
        "etrn-not-allowed", "ETRN named a node that its client may not ask for.", ("listener.etrn_for",)
    ),
    "ETRN_SYNTAX": Reason("etrn-syntax", "ETRN named no domain."),
    # Header sections of submitted messages
    "HEADER_TOO_BIG": Reason(
        "submitted-header-too-big", "The header section of a submitted message is larger than what can be looked at."
    ),
    "UNQUALIFIED_HEADER": Reason(
        "unqualified-header",
        "A submitted message has an address without a domain in its header.",
        ("listener.submission.complete_with",),
    ),
    "FROM_UNCLEAR": Reason(
        "from-unclear",
        "A submitted message has not one From field with an address that every reader finds in it.",
    ),
    "HOLD_FIELD_UNSEEN": Reason(
        "hold-field-unseen",
        "A line of the header section is no field or has no end: the field that says when to send it could be behind.",
        ("listener.extensions.future_release_field",),
    ),
    "HOLD_FIELD_UNREADABLE": Reason(
        "hold-field-unreadable",
        "The header field that says when a message is to be sent has no date and time with a zone.",
        ("listener.extensions.future_release_field",),
    ),
    "HOLD_FIELD_TWICE": Reason(
        "hold-field-twice",
        "The header field that says when a message is to be sent came twice, or with HOLDFOR or HOLDUNTIL.",
        ("listener.extensions.future_release_field",),
    ),
    "HOLD_FIELD_TOO_LATE": Reason(
        "hold-field-too-late",
        "The header field that says when a message is to be sent names a time for which it would be held too long.",
        ("listener.extensions.future_release", "listener.extensions.future_release_field"),
    ),
    "HOLD_FIELD_BEYOND_BY": Reason(
        "hold-field-beyond-by",
        "The header field that says when a message is to be sent names a time behind its by-time (RFC 2852).",
        ("listener.extensions.future_release_field",),
    ),
    "FROM_NOT_OWN": Reason(
        "from-not-own",
        "The authenticated identity may not use the address of the From field.",
        ("listener.submission.check_from",),
    ),
    # End of data
    "BARE_LF": Reason(
        "bare-lf", "The message has LF without CR: read by others, it might end somewhere else (SMTP smuggling)."
    ),
    "BARE_CR": Reason(
        "bare-cr", "The message has CR without LF: read by others, it might end somewhere else (SMTP smuggling)."
    ),
    "HAS_NUL": Reason("nul-octet", "The message has a NUL octet."),
    "TEXT_LINE_TOO_LONG": Reason(
        "text-line-too-long", "A line of the message is longer than this listener takes.", ("listener.max_line_octets",)
    ),
    "LOOP": Reason("mail-loop", "The message came through more than a hundred relays: two of them feed each other."),
}

# Replies that are filled in with what a client has said: known by their form. The widest comes last.
FILLED_IN: Final = ("ETRN_UNABLE", "ETRN_NOT_ALLOWED", "CLAIM_SYNTAX", "SOLICITATION")

OF_OTHER: Final = Reason(OTHER, "A hook or another policy refused, for a reason of its own: the log has its word.")

# Of refusals that say a reply of their own, or one of the above: policies bring the word along (model/refusal.py).
OF_POLICIES: Final = (
    Reason(
        "client-score",
        "Lists and names gave the client as many points as have it refused; the reply says which, and a `scored` line.",
        ("admission.refuse_score", "admission.dns_list", "admission.checks"),
    ),
    Reason(
        "greylisted",
        "The client was not known yet and is expected to come again.",
        ("admission.greylist",),
    ),
    Reason("policy-hook", "A hook of the operator's refused; the reply is its own.", ("policy.file",)),
    Reason("header-too-big", "A hook wanted the header changed, and it is larger than can be.", ("policy.file",)),
    Reason(
        "other-route",
        "A hook sends this recipient another way than those before; the client sends to it in another transaction.",
        ("policy.file",),
    ),
    Reason("policy-service", "A Postfix policy service refused; the reply is its own.", ("policy.service",)),
    Reason("judge-failed", "A hook or another policy failed, or did not answer in time; an `error` line says where."),
    OF_OTHER,
)

_BY_WORD: Final = {reason.word: reason for reason in (*REASONS.values(), *OF_POLICIES)}


def words() -> list[str]:
    """Every word, in the order of the tables."""
    return list(_BY_WORD)


def of_word(word: str) -> Reason | None:
    return _BY_WORD.get(word)


def word_of_filled_in(reply: bytes) -> bytes | None:
    """The word of a reply that holds what a client has said."""
    for name in FILLED_IN:
        begin, _, end = getattr(replies, name).partition(b"%s")
        if reply.startswith(begin) and reply.endswith(end):
            return REASONS[name].word.encode("ascii")
    return None


def words_of_replies(hostname: bytes) -> dict[bytes, bytes]:
    """The word of each reply, as it is said: replies that hold our name are filled in."""
    found = {}
    for name, reason in REASONS.items():
        if name in FILLED_IN:
            continue
        reply: bytes = getattr(replies, name)
        found[reply % hostname if b"%s" in reply else reply] = reason.word.encode("ascii")
    return found
