"""Decisions about a client's commands that need Python, or time: judges, and the cases put before them.

A judge is asked by inquiry.pyx, one after the other; the first that refuses decides. Where no judge is appointed
nothing of this is run.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from angarium.inbound.options import ListenerOptions
from angarium.model.refusal import Refusal
from angarium.policy.header import FieldChange, changed, header_end

if TYPE_CHECKING:
    from angarium.inbound.claims import Introduction
    from angarium.inbound.ends import Ends
    from angarium.inbound.policy_state import Visit
    from angarium.tls.session import TlsSession


class Peer(Protocol):
    """Whoever talks to us, as judges see it (client.pyx). visit: what policy keeps of the connection."""

    visit: Visit | None

    @property
    def host(self) -> str:
        """ "192.0.2.1", "2001:db8::1", or "" for a unix socket."""

    @property
    def network(self) -> bytes:
        """An IPv4 address (16 octets, mapped), or an IPv6 network of 64 bits (8 octets)."""

    @property
    def name(self) -> str:
        """Its host name, verified, as a listed peer has said it (XCLIENT); "" when nobody has."""

    @property
    def reverse_name(self) -> str:
        """Likewise the name of its address, verified or not."""

    @property
    def helo(self) -> bytes:
        """What HELO or EHLO named; b"" before."""

    @property
    def protocol(self) -> str:
        """ "SMTP" (also before EHLO), "ESMTP" or "LMTP"."""

    @property
    def identity(self) -> str | None:
        """Who authenticated; None: nobody."""

    @property
    def is_secure(self) -> bool:
        """Under TLS."""

    @property
    def mechanism(self) -> str:
        """By which it did, "PLAIN"; "XCLIENT": a listed peer has said so; "": nobody did."""

    @property
    def tls(self) -> TlsSession | None:
        """Of the connection; None in clear."""

    @property
    def introduced(self) -> Introduction | None:
        """For whom a listed peer speaks (XCLIENT), and what it has said of that client; None: for itself."""

    def ends(self) -> Ends:
        """Port of the client, address and port of ours; found out anew by each call."""

    @property
    def is_load_high(self) -> bool:
        """Deadlines are short (inbound/load.pyx)."""

    @property
    def may_relay(self) -> bool:
        """By its network, identity or certificate."""

    @property
    def listener(self) -> ListenerOptions: ...

    def hold_back(self, seconds: float) -> None:
        """From now on every reply comes so much later."""

    def let_in(self, seconds: float) -> None:
        """Judges of entry have nothing against any recipient of this client, and are not asked for so long, unless it
        says HELO again."""

    def say_first(self, line: bytes) -> None:
        """A line of the greeting, "220-...", ahead of it; CRLF included."""


class ConnectCase:
    """Somebody has connected and was not greeted yet; under implicit TLS the handshake is over."""

    __slots__ = ("client",)

    def __init__(self, client: Peer) -> None:
        self.client = client


class MailCase:
    """MAIL. reverse_path: mailbox without brackets, b"" for the null one. announced_octets: SIZE, or 0."""

    __slots__ = ("announced_octets", "attributes", "client", "envid", "is_smtputf8", "reverse_path")

    def __init__(
        self, client: Peer, reverse_path: bytes, envid: bytes, announced_octets: int, is_smtputf8: bool
    ) -> None:
        self.client = client
        self.reverse_path = reverse_path
        self.envid = envid
        self.announced_octets = announced_octets
        self.is_smtputf8 = is_smtputf8
        self.attributes: dict[int, bytes] = {}


class NewRecipient(msgspec.Struct, frozen=True):
    """One recipient of the envelope: mailbox without brackets, ORCPT as given or b"", SMTP_NOTIFY_* bits or 0."""

    forward_path: bytes
    orcpt: bytes = b""
    notify: int = 0


class RcptCase:
    """RCPT whose client may send to the domain. A judge may set `recipients`: who is written into the envelope
    instead; empty, the client hears 250 and nobody gets it. `attributes` hold for the whole message.
    recipient_count: in the envelope so far."""

    __slots__ = (
        "attributes",
        "client",
        "forward_path",
        "notify",
        "orcpt",
        "recipient_count",
        "recipients",
        "reverse_path",
    )

    def __init__(  # noqa: PLR0917
        self,
        client: Peer,
        reverse_path: bytes,
        forward_path: bytes,
        orcpt: bytes,
        notify: int,
        recipient_count: int = 0,
    ) -> None:
        self.client = client
        self.reverse_path = reverse_path
        self.forward_path = forward_path
        self.orcpt = orcpt
        self.notify = notify
        self.recipient_count = recipient_count
        self.recipients: list[NewRecipient] | None = None
        self.attributes: dict[int, bytes] = {}


class MessageCase:
    """All of a message, or its first 128 KiB while the rest is still to come.

    trace       our own fields in front.    content  what the client has sent of it so far, without them.
    fields      changes of the header section that judges want, in order.
    recipients  a judge may set it: who gets the message instead; empty, the client hears 250 and nobody does.
    attributes  hold for the message.
    """

    __slots__ = (
        "_header", "attributes", "client", "content", "fields", "id", "is_smtputf8", "is_whole", "recipients",
        "reverse_path", "trace",
    )  # fmt: skip

    def __init__(
        self,
        client: Peer,
        id_: int,
        reverse_path: bytes,
        *,
        trace: bytes,
        content: bytes,
        is_whole: bool,
        is_smtputf8: bool,
    ) -> None:
        self.client = client
        self.id = id_
        self.reverse_path = reverse_path
        self.trace = trace
        self.content = content
        self.is_whole = is_whole
        self.is_smtputf8 = is_smtputf8
        self.fields: list[FieldChange] = []
        self.recipients: list[NewRecipient] | None = None
        self.attributes: dict[int, bytes] = {}
        self._header: tuple[int, bool] | None = None

    @property
    def header_octets(self) -> int:
        """Of content: the header section without the empty line."""
        if self._header is None:
            self._header = header_end(self.content)
        return self._header[0]

    @property
    def is_header_whole(self) -> bool:
        return self.is_whole or (self.header_octets >= 0 and self._header is not None and self._header[1])

    def new_header(self) -> bytes:
        """What stands in the place of `trace` and the header section when the changes are made. Raises ValueError."""
        return changed(self.trace, self.content[: self.header_octets], self.fields, self.is_smtputf8)


Answer = Refusal | None | Coroutine[Any, Any, Refusal | None]


class Judges(msgspec.Struct, frozen=True):
    """Who is asked at which stage of a listener's sessions, in order.

    entry  ahead of `rcpt`, but not of clients that were let in (Peer.let_in).
    """

    connect: tuple[Callable[[ConnectCase], Answer], ...] = ()
    mail: tuple[Callable[[MailCase], Answer], ...] = ()
    entry: tuple[Callable[[RcptCase], Answer], ...] = ()
    rcpt: tuple[Callable[[RcptCase], Answer], ...] = ()
    message: tuple[Callable[[MessageCase], Answer], ...] = ()


Appointing = Callable[[ListenerOptions], Judges]


def appoint(makers: Iterable[Appointing], options: ListenerOptions) -> Judges | None:
    """The judges of one listener, those of the first maker first; None: nobody."""
    found = [maker(options) for maker in makers]
    judges = Judges(
        connect=tuple(judge for each in found for judge in each.connect),
        mail=tuple(judge for each in found for judge in each.mail),
        entry=tuple(judge for each in found for judge in each.entry),
        rcpt=tuple(judge for each in found for judge in each.rcpt),
        message=tuple(judge for each in found for judge in each.message),
    )
    return None if judges == Judges() else judges
