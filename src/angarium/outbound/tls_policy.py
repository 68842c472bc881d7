"""What a connection must be, for the messages of one ready queue. Computed before one is dialled or taken again.

Messages that want something else of TLS than the rest lie in ready queues of their own (queue/planner.pyx), each with
its own pool: a message that requires TLS meets no connection without it, and keeps nobody else waiting.
"""

from __future__ import annotations

import enum
import ipaddress

import msgspec

from angarium.model.plan import Site, TlsName, TlsWish


class Level(enum.IntEnum):
    """How well a connection is protected."""

    CLEAR = 0
    ENCRYPTED = 1
    VERIFIED = 2


class TlsPolicy(msgspec.Struct, frozen=True):
    """name  for status and log. wants_tls: it is tried. floor: what a connection must have before mail goes over it.

    needs_requiretls  and the host must offer REQUIRETLS (RFC 8689 §4.2.1).
    """

    name: str
    wants_tls: bool
    floor: Level
    needs_requiretls: bool = False

    @property
    def may_go_clear(self) -> bool:
        return self.floor == Level.CLEAR


_OF_NAME: dict[str, TlsPolicy] = {
    "none": TlsPolicy("none", False, Level.CLEAR),
    "opportunistic": TlsPolicy("opportunistic", True, Level.CLEAR),
    "encrypt": TlsPolicy("encrypt", True, Level.ENCRYPTED),
    "required": TlsPolicy("required", True, Level.VERIFIED),
}
_REQUIRETLS = TlsPolicy("requiretls", True, Level.VERIFIED, needs_requiretls=True)


def policy_of(site: Site, wish: TlsWish, default: TlsName) -> TlsPolicy:
    """site.tls is the route's word, `default` the one for all; `wish` is the messages' own."""
    name = site.tls or default
    if is_local(site):
        return _OF_NAME[site.tls or "none"]
    if wish == TlsWish.REQUIRED:
        return _REQUIRETLS
    if wish == TlsWish.OPTIONAL and name != "none":
        name = "opportunistic"          # RFC 8689 §4.2.2: tried all the same, and no reason to hold the message
    if site.begins_with_tls and name in ("opportunistic", "none"):
        name = "encrypt"                # there is no clear text to fall back to
    return _OF_NAME[name]


def is_local(site: Site) -> bool:
    """The mail leaves this machine by no network: RFC 8689 has nothing to protect there."""
    if site.protocol in ("lmtp+unix", "maildir"):
        return True
    return site.protocol == "lmtp" and all(
        ipaddress.ip_address(address).is_loopback for host in site.hosts for address in host.addresses
    )
