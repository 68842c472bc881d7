"""[resolver]: which name servers are asked, how patiently, and how long answers are kept."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec

from angarium.model.units import Duration

DNS_PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")

# glibc reads no more than three (resolv.conf(5), MAXNS); more would only prolong a failure.
_RESOLV_CONF_NAMESERVERS = 3


class Nameserver(msgspec.Struct, frozen=True):
    """One name server: numeric address and port."""

    address: str
    port: int = DNS_PORT

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class ResolverOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[resolver]

    nameservers    "127.0.0.1", "127.0.0.1:53", "::1", "[::1]:53"; empty: those of /etc/resolv.conf.
    timeout        how long one name server may take for one try.
    tries          rounds over all name servers before a look-up has failed.
    concurrency    queries under way at once, per worker.
    cache_entries  answers kept, per worker; the least recently used goes first.
    min_ttl        a shorter TTL is taken for this; failures are remembered as long (RFC 9520 §3.2).
    max_ttl        a longer TTL is taken for this.
    prefetch       an answer that is asked for in the last tenth of its time is looked up anew meanwhile.
    trust_ad       the name servers named here validate (DNSSEC), and nobody can change what they say on its way here.
    """

    nameservers: list[str] = []
    timeout: Duration = Duration(3)
    tries: int = 2
    concurrency: int = 200
    cache_entries: int = 20_000
    min_ttl: Duration = Duration(5)
    max_ttl: Duration = Duration(86_400)
    prefetch: bool = True
    trust_ad: bool = False

    def __post_init__(self) -> None:
        for index, text in enumerate(self.nameservers):
            try:
                parse_nameserver(text)
            except ValueError as error:
                raise ValueError(f"nameservers[{index}]: {error}") from None
        if self.trust_ad and not self.nameservers:
            raise ValueError(
                "trust_ad: needs nameservers: whoever writes resolv.conf must not decide whose word counts as DNSSEC's"
            )
        _check_range("timeout", self.timeout, Duration(0.05), Duration(60))
        _check_range("tries", self.tries, 1, 10)
        _check_range("concurrency", self.concurrency, 1, 10_000)
        _check_range("cache_entries", self.cache_entries, 1, 10_000_000)
        _check_range("min_ttl", self.min_ttl, Duration(1), Duration(300))
        _check_range("max_ttl", self.max_ttl, self.min_ttl, Duration(7 * 86_400))


def parse_nameserver(text: str) -> Nameserver:
    """Raises ValueError that says what is wrong with the text."""
    host, port = text, str(DNS_PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [address]:port")
        port = rest[1:] if rest else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not a numeric address") from None
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port")
    return Nameserver(host, int(port))


def nameservers_of(options: ResolverOptions, resolv_conf: Path = RESOLV_CONF) -> tuple[Nameserver, ...]:
    """The name servers to ask, never none: without any named, the loopback's, as resolv.conf(5) has it."""
    if options.nameservers:
        return tuple(parse_nameserver(text) for text in options.nameservers)
    try:
        lines = resolv_conf.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ipaddress.ip_address(words[1])
        except ValueError:
            continue        # glibc skips what it cannot read, and so the system's other programs work
        found.append(Nameserver(words[1]))
    return tuple(found[:_RESOLV_CONF_NAMESERVERS]) or (Nameserver("127.0.0.1"),)


def _check_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{key}: {value} is not between {low} and {high}")
