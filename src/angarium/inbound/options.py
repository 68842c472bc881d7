"""What the operator may set about one listener: a [[listener]] table."""

from __future__ import annotations

import ipaddress

import msgspec

from angarium.admission.options import ListenerAdmissionOptions
from angarium.inbound.extensions import ExtensionOptions
from angarium.inbound.kinds import Kind, check_etrn, settle
from angarium.inbound.socket_options import SocketOptions
from angarium.inbound.submission_options import SubmissionOptions
from angarium.model.address import ListenAddress
from angarium.model.units import Duration, Octets
from angarium.sasl.exchange import MECHANISMS
from angarium.smtp import limits
from angarium.tls.options import ServerTlsOptions

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ListenerAuthOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """AUTH on one listener; who people are says [auth].

    offered               in EHLO, under TLS.
    required              MAIL needs it (530 otherwise); it is offered then, too.
    mechanisms            which of those that the source of credentials can do; []: all.
    allow_plaintext_from  networks whose clients are offered it without TLS: only where nobody can listen in.
    """

    offered: bool = False
    required: bool = False
    mechanisms: list[str] = []
    allow_plaintext_from: list[str] = []

    def __post_init__(self) -> None:
        for index, name in enumerate(self.mechanisms):
            if name not in MECHANISMS:
                raise ValueError(f'mechanisms[{index}]: "{name}" is none of {", ".join(MECHANISMS)}')
        for index, text in enumerate(self.allow_plaintext_from):
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(
                    f'allow_plaintext_from[{index}]: {error}; expected such as "127.0.0.0/8"'
                ) from None

    @property
    def is_offered(self) -> bool:
        return self.offered or self.required

    @property
    def networks(self) -> list[Network]:
        return [ipaddress.ip_network(text) for text in self.allow_plaintext_from]


class ListenerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One listener.

    address             "127.0.0.1:25", "[::]:25", "unix:/path"; its clients count as 127.0.0.1.
    protocol            see kinds.py: "smtp", "submission", "submissions" or "lmtp".
    relay_from          networks whose clients may send to anybody; to a submission listener without AUTH.
    proxy_from          networks of load balancers: their connections begin with a PROXY header (version 1 or 2) and
                        count as the client's that it names.
    xclient_from        networks whose clients may say for whom they speak (XCLIENT): they count as those.
    xforward_from       networks whose clients may say where a message came from (XFORWARD), for the log.
    etrn_for            domain -> networks and identities that may have its mail tried now (ETRN, RFC 1985); "*": any.
    relay_to            domains that anybody may send to: "example.com", ".example.com" (all below it).
    max_message_octets  announced as SIZE (RFC 1870).
    max_recipients      in one transaction; RFC 5321 §4.5.3.1.8 asks for 100 at least.
    max_sessions        at once on the machine; more are answered 421. 20,000 slow clients leave the load of a
                        listener that says nothing below tight.from_percent, and below where a high load ends.
    max_line_octets     in messages, with CRLF. RFC 5321 §4.5.3.1.6: 1000 must be taken, more may be;
                        programs that forget to fold are common, so the default leaves them twice that.
    max_errors          commands refused in one session before 421.
    max_refused_recipients
                        more than were accepted, of a client that may not relay and has not authenticated, before
                        421; 0: no bound.
    max_junk            commands that lead to no message (EHLO, RSET, NOOP, VRFY, HELP) between two messages; then 421.
    command_timeout     for a whole command, from our last reply on (RFC 5321 §4.5.3.2.7: five minutes).
    data_timeout        between two blocks of message data (§4.5.3.2.5).
    tls                 None: no TLS on this listener.
    auth                see ListenerAuthOptions.
    tell_refusal_ids    each refusal ends with its id in brackets, the one of the log (angarium explain-reject).
    admission           which parts of [admission] hold here.
    data_octets_per_s   a message may take five minutes and then one second for each so many octets.
    socket              see SocketOptions. submission: see SubmissionOptions. extensions: see ExtensionOptions.
    """

    address: ListenAddress
    protocol: Kind = "smtp"
    relay_from: list[str] = []
    proxy_from: list[str] = []
    xclient_from: list[str] = []
    xforward_from: list[str] = []
    etrn_for: dict[str, list[str]] = {}
    relay_to: list[str] = []
    max_message_octets: Octets = Octets(50 << 20)
    max_recipients: int = 1000
    max_sessions: int = 50_000
    max_line_octets: int = 2048
    max_errors: int = 20
    max_refused_recipients: int = 20
    max_junk: int = 100
    command_timeout: Duration = Duration(limits.SERVER_TIMEOUT_S)
    data_timeout: Duration = Duration(limits.DATA_BLOCK_TIMEOUT_S)
    data_octets_per_s: int = 500
    tell_refusal_ids: bool = False
    tls: ServerTlsOptions | None = None
    auth: ListenerAuthOptions = ListenerAuthOptions()
    admission: ListenerAdmissionOptions = ListenerAdmissionOptions()
    socket: SocketOptions = SocketOptions()
    submission: SubmissionOptions = SubmissionOptions()
    extensions: ExtensionOptions = ExtensionOptions()

    def __post_init__(self) -> None:
        settle(self)
        check_etrn(self.etrn_for)
        for key in ("relay_from", "proxy_from", "xclient_from", "xforward_from"):
            for index, text in enumerate(getattr(self, key)):
                try:
                    ipaddress.ip_network(text)
                except ValueError as error:
                    raise ValueError(f'{key}[{index}]: {error}; expected such as "192.0.2.0/24"') from None
        for index, text in enumerate(self.relay_to):
            try:
                domain_key(text)
            except ValueError as error:
                raise ValueError(f"relay_to[{index}]: {error}") from None
        if self.extensions.future_release_field and not self.extensions.hold_max_s(self.protocol):
            raise ValueError(
                "extensions.future_release_field: needs extensions.future_release, for how long mail may be held"
            )
        _require("max_message_octets", 64 << 10, self.max_message_octets, 4 << 30)
        _require("max_recipients", limits.RECIPIENTS_MINIMUM, self.max_recipients, 100_000)
        _require("max_sessions", 1, self.max_sessions, 1_000_000)
        _require("max_line_octets", limits.TEXT_LINE_OCTETS, self.max_line_octets, 16 << 20)
        _require("max_errors", 1, self.max_errors, 10_000)
        _require("max_refused_recipients", 0, self.max_refused_recipients, 100_000)
        _require("max_junk", 10, self.max_junk, 10_000_000)
        _require("command_timeout", 1, self.command_timeout, 3600)
        _require("data_timeout", 1, self.data_timeout, 3600)
        _require("data_octets_per_s", 1, self.data_octets_per_s, 1 << 20)

    @staticmethod
    def networks(texts: list[str]) -> list[Network]:
        return [ipaddress.ip_network(text) for text in texts]

    @property
    def domains(self) -> frozenset[bytes]:
        """The domains of relay_to as they are compared: lower case, A-labels and U-labels both."""
        return frozenset(key for text in self.relay_to for key in domain_key(text))


def domain_key(text: str) -> tuple[bytes, ...]:
    """How a recipient may spell the domain `text` of relay_to, a leading dot kept. Raises ValueError."""
    import idna

    dot = "." if text.startswith(".") else ""
    name = text.removeprefix(".").removesuffix(".").lower()
    if not name or name.startswith("."):
        raise ValueError(f'"{text}" is not a domain')
    if name.startswith("[") and name.endswith("]"):
        return (name.encode("ascii"),)
    try:
        ascii_name = idna.encode(name, uts46=True).decode("ascii").lower()
        unicode_name = idna.decode(ascii_name)
    except idna.IDNAError:
        # Underscores and the like: not IDNA's, but in use.
        if not name.isascii() or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError(f'"{text}" is not a domain') from None
        ascii_name = unicode_name = name
    keys = {(dot + ascii_name).encode("ascii"), (dot + unicode_name).encode()}
    return tuple(sorted(keys))


def _require(key: str, least: int, value: float, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{key}: between {least} and {most}")
