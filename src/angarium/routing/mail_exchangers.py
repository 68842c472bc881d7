"""From a domain to the hosts that take its mail: RFC 5321 §5.1 and RFC 7505. Knows no configured route.

                    MX look-up of the domain
   NXDOMAIN ──── 5.1.2 failed
   failure ───── 4.4.3 waits
   no MX ─────── the domain itself is the host (implicit MX)
   null MX ───── 5.1.10 failed
   MX ────────── hosts by rising preference; ours and all that are not better than ours are left out
                    addresses of each host
   some ──────── the site
   none ──────── 4.4.3 waits when any look-up failed; 5.4.6 failed when the best one left is ourselves;
                 else 5.1.2 (implicit, NXDOMAIN) or 5.4.4 failed
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Final

import msgspec

from angarium.model.plan import Host, RoutingTrouble, Site
from angarium.resolver.answer import Answer, Kind, MxRecord, Resolver
from angarium.resolver.domain_name import is_host_name
from angarium.routing.next_hop import SMTP_PORT
from angarium.routing.ourselves import Ourselves
from angarium.tls.dane import find_tlsa

# Chosen: the largest providers publish five. Without a bound a hostile zone would turn one message into
# hundreds of look-ups and connections.
_EXCHANGERS_MAXIMUM: Final = 20
_ADDRESSES_MAXIMUM: Final = 8
_DANE_TA: Final = 2


async def site_by_mx(
    domain: str,
    resolver: Resolver,
    ourselves: Ourselves,
    port: int = SMTP_PORT,
    *,
    wants_tlsa: Callable[[Site], bool] | None = None,
) -> tuple[Site, float]:
    """The site of a domain, and when to look again (monotonic seconds).

    domain  A-labels in lower case.
    port    of every mail exchanger.
    wants_tlsa  whether TLSA records of the hosts of a site are looked up, where DNS vouches for the MX records
                (RFC 7672 §2.2.1); None: never.
    Raises RoutingTrouble.
    """
    mx = await resolver.mx(domain)
    if mx.kind is Kind.NXDOMAIN:
        raise RoutingTrouble(True, (5, 1, 2), f"Domain not found: {mx.detail}")
    if mx.kind.is_temporary:
        raise RoutingTrouble(False, (4, 4, 3), f"Name server trouble: {mx.detail}")
    if mx.kind is Kind.NO_DATA:
        # The canonical name: CNAMEs are followed as if they had been the domain asked for (§5.1).
        exchangers, is_implicit = [MxRecord(0, mx.name)], True
    else:
        exchangers, is_implicit = _usable(domain, mx), False
    own_preference = _own_preference(exchangers, ourselves)
    candidates = [record for record in exchangers if record.preference < own_preference][:_EXCHANGERS_MAXIMUM]
    if not candidates:
        raise _loop(domain)
    answers = await _addresses(candidates, resolver)
    expires_mono_s = min(mx.look_again_mono_s, *(answer.look_again_mono_s for answer in answers))

    hosts = []
    answer_of = {}
    for record, answer in zip(candidates, answers, strict=True):
        addresses = tuple(filter(_is_dialable, answer.records))[:_ADDRESSES_MAXIMUM]
        if ourselves.has_name(answer.name) or any(map(ourselves.has_address, answer.records)):
            own_preference = min(own_preference, record.preference)
        if addresses:
            answer_of[record.host] = answer
            hosts.append(Host(record.host, addresses, port, record.preference))
    hosts = [host for host in hosts if host.preference < own_preference]
    # Names of hosts that have no address just now belong to the site as well: its name is to be stable.
    names = [record.host for record in candidates if record.preference < own_preference]
    if not hosts:
        raise _nowhere(domain, candidates, answers, own_preference, is_implicit)
    site = Site(",".join(names), "smtp", tuple(hosts), is_located_securely=mx.is_secure)
    if wants_tlsa is not None and mx.is_secure and wants_tlsa(site):
        found = await asyncio.gather(*(find_tlsa(host.name, port, answer_of[host.name], resolver) for host in hosts))
        hosts = [msgspec.structs.replace(host, tlsa=tlsa) for host, (tlsa, _) in zip(hosts, found, strict=True)]
        expires_mono_s = min(expires_mono_s, *(look_again for _, look_again in found))
        if any(record.usage == _DANE_TA for tlsa, _ in found for record in tlsa.records):
            # RFC 7672 §3.2.2: the second and third reference identifier. They make the site this domain's alone.
            more_names = (domain,) if mx.name == domain else (domain, mx.name)
            site = msgspec.structs.replace(site, more_names=more_names)
        site = msgspec.structs.replace(site, hosts=tuple(hosts))
    return site, expires_mono_s


def site_of_literal(domain: str, ourselves: Ourselves, port: int = SMTP_PORT) -> Site:
    """The site of an address literal, "[192.0.2.1]" or "[ipv6:2001:db8::1]" (RFC 5321 §4.1.3), in lower case.

    Raises RoutingTrouble.
    """
    inner = domain[1:-1]
    try:
        if inner.startswith("ipv6:"):
            address = str(ipaddress.IPv6Address(inner[5:]))
        else:
            address = str(ipaddress.IPv4Address(inner))
    except ValueError:
        raise RoutingTrouble(True, (5, 1, 2), f"{domain} is not an address that mail can go to") from None
    if not _is_dialable(address):
        raise RoutingTrouble(True, (5, 1, 2), f"{domain} is not the address of one host")
    if ourselves.has_address(address):
        raise _loop(domain)
    return Site(f"[{address}]", "smtp", (Host(address, (address,), port),))


def _usable(domain: str, mx: Answer[MxRecord]) -> list[MxRecord]:
    """MX records by rising preference, each host once, without names that no host can have.

    Raises RoutingTrouble.
    """
    if all(record.host == "." for record in mx.records):
        # RFC 7505 §3 allows the null MX only alone; several of them say the same.
        raise RoutingTrouble(True, (5, 1, 10), f"Domain {domain} takes no mail (null MX)")
    seen = set()
    usable = []
    for record in mx.records:
        # §5.1 wants a name: an address (192.0.2.1 as a name is none) or an escape cannot be looked up.
        if record.host not in seen and is_host_name(record.host):
            seen.add(record.host)
            usable.append(record)
    if not usable:
        raise RoutingTrouble(True, (5, 4, 4), f"No MX record of {domain} names a host")
    return usable


def _own_preference(exchangers: list[MxRecord], ourselves: Ourselves) -> float:
    """The preference of the first exchanger with a name of ours; infinite without."""
    own = (record.preference for record in exchangers if ourselves.has_name(record.host))
    return next(own, float("inf"))


async def _addresses(exchangers: list[MxRecord], resolver: Resolver) -> list[Answer[str]]:
    if len(exchangers) == 1:
        return [await resolver.addresses(exchangers[0].host)]
    return await asyncio.gather(*(resolver.addresses(record.host) for record in exchangers))


def _is_dialable(text: str) -> bool:
    """0.0.0.0 and :: would reach ourselves, multicast nobody: seen in the DNS of mail-less domains."""
    address = ipaddress.ip_address(text)
    return not (address.is_unspecified or address.is_multicast or text == "255.255.255.255")


def _nowhere(
    domain: str,
    exchangers: list[MxRecord],
    answers: list[Answer[str]],
    own_preference: float,
    is_implicit: bool,
) -> RoutingTrouble:
    """Why no host is left."""
    for record, answer in zip(exchangers, answers, strict=True):
        if answer.kind.is_temporary and record.preference < own_preference:
            return RoutingTrouble(False, (4, 4, 3), f"Name server trouble: {answer.detail}")
    if own_preference != float("inf"):
        return _loop(domain)
    why = answers[0].detail or f"{exchangers[0].host} has no address that one host can have"
    if not is_implicit:
        return RoutingTrouble(True, (5, 4, 4), f"No mail exchanger of {domain} has an address: {why}")
    if answers[0].kind is Kind.NXDOMAIN:
        return RoutingTrouble(True, (5, 1, 2), f"Domain not found: {why}")
    return RoutingTrouble(True, (5, 4, 4), f"Domain {domain} has neither mail exchanger nor address: {why}")


def _loop(domain: str) -> RoutingTrouble:
    return RoutingTrouble(True, (5, 4, 6), f"Mail for {domain} loops back to this host")
