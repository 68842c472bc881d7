"""What the operator may set about who may come in: the [admission] table, and each listener's switches."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal, Self

import msgspec

from angarium.model.units import Duration, Octets

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RULES_MAX: Final = 4  # RULES_MAX of tallies.pxd

_ZONE: Final = re.compile(r"[a-zA-Z0-9_-]{1,63}(?:\.[a-zA-Z0-9_-]{1,63})*\.?", re.ASCII)

_PERIODS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHARE: Final = re.compile(r"([1-9]\d{0,8}) ?/ ?([smhd])", re.ASCII)


def require(key: str, least: float, value: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{key}: between {least} and {most}")


class Share(str):
    """So many in a period, "600/h": all at once if one likes, and given back steadily. "none" is no limit, amount 0."""

    amount: int
    interval_ns: int

    @classmethod
    def decode(cls, value: object) -> Self:
        """Raises ValueError for anything else."""
        text = value if isinstance(value, str) else ""
        self = cls(text)
        self.amount = self.interval_ns = 0
        if text == "none":
            return self
        found = _SHARE.fullmatch(text)
        if found is None:
            raise ValueError(f'expected a count in a period such as "600/h", "20/m" or "none", got {value!r}')
        self.amount = int(found[1])
        self.interval_ns = max(_PERIODS_S[found[2]] * 10**9 // self.amount, 1)
        return self


class LimitOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[[admission.limit]]: what the clients of one network may use, over all workers.

    ipv4_prefix, ipv6_prefix  how much of an address is one network: 32 is a host, 64 one subscriber's.
    connections       open at once; 0: no limit. Past it a connection is answered 421 4.7.0.
    connection_rate   that are let in; past it likewise.
    messages          MAIL accepted; past it MAIL is answered 450 4.7.0.
    recipients        RCPT accepted; past it RCPT is answered 450 4.7.0.
    handshakes        of TLS; past it STARTTLS is answered 454 4.7.0, and a connection that begins with TLS closed.
    errors            commands answered 5xx; past it the session ends, and the next is turned away, with 421 4.7.0.
    auth_attempts     AUTH commands that begin an exchange, whatever comes of it; past it AUTH is answered 454 4.7.0.
    own_clients       also counts clients that may relay.
    """

    ipv4_prefix: int = 32
    ipv6_prefix: int = 64
    connections: int = 0
    connection_rate: Share = Share.decode("none")
    messages: Share = Share.decode("none")
    recipients: Share = Share.decode("none")
    handshakes: Share = Share.decode("none")
    errors: Share = Share.decode("none")
    auth_attempts: Share = Share.decode("none")
    own_clients: bool = False

    def __post_init__(self) -> None:
        require("ipv4_prefix", 0, self.ipv4_prefix, 32)
        require("ipv6_prefix", 0, self.ipv6_prefix, 128)
        require("connections", 0, self.connections, 65_000)


class TightOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[admission.tight]: what holds instead of the listener's own while the load is high, if it is stricter.

    from_percent       of any bound on sessions or their memory; it is over at three quarters of that. 0: never.
    command_timeout    for a command.
    data_timeout       between two blocks of message data.
    message_time       a message may take this long, and then one second for each `data_octets_per_s`.
    """

    from_percent: int = 80
    command_timeout: Duration = Duration(10)
    data_timeout: Duration = Duration(20)
    message_time: Duration = Duration(60)
    data_octets_per_s: int = 5000

    def __post_init__(self) -> None:
        require("from_percent", 0, self.from_percent, 100)
        require("command_timeout", 1, self.command_timeout, 3600)
        require("data_timeout", 1, self.data_timeout, 3600)
        require("message_time", 1, self.message_time, 3600)
        require("data_octets_per_s", 1, self.data_octets_per_s, 1 << 20)


class ListOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[[admission.dns_list]]: a list of client addresses in DNS (RFC 5782).

    zone    "zen.example.org".
    score   points when the client is on it; negative: in its favour.
    values  answers that count: "127.0.0.2", "127.0.0.4-127.0.0.11", "127.0.0.0/24"; []: any but refusals to answer.
    """

    zone: str
    score: int = 5
    values: list[str] = []

    def __post_init__(self) -> None:
        if len(self.zone) > 180 or not _ZONE.fullmatch(self.zone):
            raise ValueError(f'zone: "{self.zone}" is not a domain')
        require("score", -100, self.score, 100)
        for index, text in enumerate(self.values):
            try:
                _range_of(text)
            except ValueError:
                raise ValueError(
                    f'values[{index}]: "{text}" is none of "127.0.0.2", "127.0.0.4-127.0.0.11", "127.0.0.0/24"'
                ) from None

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [_range_of(text) for text in self.values]


class CheckOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[admission.checks]: points for what a client's names look like; 0: not asked.

    no_ptr              the address has no name.
    ptr_unconfirmed     none of its names leads back to it.
    helo_unqualified    HELO with a name without a dot.
    helo_bare_address   with an address without brackets.
    helo_is_ours        with this machine's name.
    helo_wrong_literal  with an address in brackets that is not the client's.
    helo_unresolvable   with a name that has no address and no MX.
    """

    no_ptr: int = 0
    ptr_unconfirmed: int = 0
    helo_unqualified: int = 0
    helo_bare_address: int = 0
    helo_is_ours: int = 0
    helo_wrong_literal: int = 0
    helo_unresolvable: int = 0

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            require(key, 0, getattr(self, key), 100)

    @property
    def helo_points(self) -> dict[str, int]:
        """By the words of refusals, "helo-unqualified"."""
        keys = (key for key in self.__struct_fields__ if key.startswith("helo_"))
        return {key.replace("_", "-"): getattr(self, key) for key in keys}


class GreylistOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[admission.greylist]: who is not known yet is asked to come again.

    delay        before the second try counts.
    window       after which a second try is a first one again.
    keep         what is known is forgotten when it was not used for so long.
    passes       mail of that many triplets came back: the network is asked no more. 0: every triplet is.
    from_score   only clients with so many points; "none": everybody.
    ipv4_prefix, ipv6_prefix   how much of the address counts: senders have several machines.
    max_entries  kept on disk; the ones that would be forgotten first go first.
    path         of the file; "": greylist.db in the spool.
    """

    delay: Duration = Duration(300)
    window: Duration = Duration(86400)
    keep: Duration = Duration(35 * 86400)
    passes: int = 5
    from_score: int | None = None
    ipv4_prefix: int = 24
    ipv6_prefix: int = 64
    max_entries: int = 1_000_000
    path: str = ""

    def __post_init__(self) -> None:
        require("delay", 1, self.delay, 6 * 3600)
        require("window", self.delay + 60, self.window, 30 * 86400)
        require("keep", 3600, self.keep, 366 * 86400)
        require("passes", 0, self.passes, 1000)
        require("ipv4_prefix", 8, self.ipv4_prefix, 32)
        require("ipv6_prefix", 16, self.ipv6_prefix, 128)
        require("max_entries", 1000, self.max_entries, 100_000_000)
        if self.path and not (self.path.startswith("/") and self.path.isprintable()):
            raise ValueError(f'path: "{self.path}" is not an absolute path')


class AdmissionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[admission]: for all listeners that do not switch it off.

    exempt              networks that nothing of this table holds for.
    max_sessions        at once on the machine; 0: no limit but the listeners' own.
    max_session_memory  what all sessions of the machine may hold together; past it new ones are turned away. 0: no
                        limit. Absent: an eighth of the machine's memory, and 1 GiB at the least.
    greet_wait          a client that talks within this time is no mail server: 554, and the end.
    teaser              said before that wait, as a first line of the greeting; "": nothing.
    refuse_score        clients with so many points of lists and checks are refused; 0: nobody is.
    refuse_at           "connect": instead of the greeting; "rcpt": each recipient, which names it in the log, and lets
                        those in who authenticate.
    tarpit_score        replies to clients with so many points are kept back for `tarpit_delay`; 0: to nobody.
    tarpit_errors       likewise to those that had so many commands refused in their session; 0: to nobody.
    timeout             for all look-ups of one client; what has not come by then counts nothing.
    cache_time, cache_entries   how long points of a client are kept, and of how many clients per worker.
    """

    exempt: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    max_sessions: int = 0
    max_session_memory: Octets | None = None
    greet_wait: Duration = Duration(0)
    teaser: str = ""
    refuse_score: int = 0
    refuse_at: Literal["connect", "rcpt"] = "rcpt"
    tarpit_score: int = 0
    tarpit_errors: int = 0
    tarpit_delay: Duration = Duration(5)
    timeout: Duration = Duration(5)
    cache_time: Duration = Duration(600)
    cache_entries: int = 50_000
    dns_list: list[ListOptions] = []
    limit: list[LimitOptions] = []
    checks: CheckOptions = CheckOptions()
    greylist: GreylistOptions | None = None
    tight: TightOptions = TightOptions()

    def __post_init__(self) -> None:
        for index, text in enumerate(self.exempt):
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f'exempt[{index}]: {error}; expected such as "192.0.2.0/24"') from None
        require("max_sessions", 0, self.max_sessions, 10_000_000)
        require("greet_wait", 0, self.greet_wait, 60)
        if len(self.teaser) > 200 or not (self.teaser.isascii() and (self.teaser.isprintable())):
            raise ValueError("teaser: at most 200 printable ASCII characters")
        require("refuse_score", 0, self.refuse_score, 1000)
        require("tarpit_score", 0, self.tarpit_score, 1000)
        require("tarpit_errors", 0, self.tarpit_errors, 1000)
        require("tarpit_delay", 0.1, self.tarpit_delay, 60)
        require("timeout", 0.1, self.timeout, 60)
        require("cache_time", 1, self.cache_time, 86400)
        require("cache_entries", 1, self.cache_entries, 10_000_000)
        if len(self.dns_list) > 16:
            raise ValueError("dns_list: at most 16 tables")
        if len(self.limit) > RULES_MAX:
            raise ValueError(f"limit: at most {RULES_MAX} tables")

    @property
    def exempt_networks(self) -> list[Network]:
        return [ipaddress.ip_network(text) for text in self.exempt]


class ListenerAdmissionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[listener.admission]: which parts of [admission] hold here.

    limits    max_sessions and [[admission.limit]].
    checks    greet_wait, lists, checks and what follows from points.
    greylist  [admission.greylist].
    """

    limits: bool = True
    checks: bool = True
    greylist: bool = True


def _range_of(text: str) -> tuple[int, int]:
    """First and last address, as numbers. Raises ValueError."""
    low, dash, high = text.partition("-")
    if dash:
        return int(ipaddress.IPv4Address(low.strip())), int(ipaddress.IPv4Address(high.strip()))
    network = ipaddress.IPv4Network(text)
    return int(network.network_address), int(network.broadcast_address)
