"""Greylisting (RFC 6647): who is not known yet gets a 450 and is expected to come again. What is decided; where it is
kept is greylist_store.py's.

A triplet is network, reverse-path and forward-path. It is kept as a digest: of fixed size whatever the peer says, and
the file tells nobody who wrote to whom.
"""

from __future__ import annotations

import hashlib
import ipaddress

import msgspec

from angarium.admission.options import GreylistOptions


class Seen(msgspec.Struct, frozen=True):
    """What is known of a triplet. Times are UTC seconds."""

    first_utc_s: int
    expires_utc_s: int
    has_passed: bool


class Judgement(msgspec.Struct, frozen=True):
    """wait_s: 0: let through; else the seconds it should wait. seen: what to keep, or None: nothing has changed.

    is_first_pass: the triplet came back for the first time, which speaks for its network.
    """

    wait_s: int
    seen: Seen | None
    is_first_pass: bool = False


# A triplet in steady use is written again only when a day of its time is gone.
_RENEWAL_S = 86400


def judge(seen: Seen | None, now_utc_s: int, options: GreylistOptions) -> Judgement:
    """What one try means."""
    delay_s, window_s, keep_s = round(options.delay), round(options.window), round(options.keep)
    if seen is None or seen.expires_utc_s <= now_utc_s:
        return Judgement(delay_s, Seen(now_utc_s, now_utc_s + window_s, False))
    expires = now_utc_s + keep_s
    if seen.has_passed:
        is_stale = expires - seen.expires_utc_s >= min(_RENEWAL_S, keep_s // 2)
        return Judgement(0, Seen(seen.first_utc_s, expires, True) if is_stale else None)
    waited_s = now_utc_s - seen.first_utc_s
    if waited_s < delay_s:
        return Judgement(min(delay_s - waited_s, delay_s), None)
    return Judgement(0, Seen(seen.first_utc_s, expires, True), True)


def network_key(host: str, options: GreylistOptions) -> bytes:
    """host: a numeric address."""
    return _digest(_network(host, options))


def triplet_key(network: bytes, reverse_path: bytes, forward_path: bytes) -> bytes:
    """network: its key."""
    return _digest(network, reverse_path.lower(), forward_path.lower())


def _network(host: str, options: GreylistOptions) -> bytes:
    address = ipaddress.ip_address(host)
    bits = options.ipv4_prefix if address.version == 4 else options.ipv6_prefix
    network = ipaddress.ip_network((address, bits), strict=False)
    return network.network_address.packed + bytes([bits])


def _digest(*parts: bytes) -> bytes:
    whole = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.blake2b(whole, digest_size=16).digest()
