"""Which extensions a listener offers: [listener.extensions], and what each kind of listener offers by itself.

What each does, and the switches that are elsewhere (TLS, AUTH, ETRN, XCLIENT ...): docs/extensions.md.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from angarium.inbound.kinds import Kind
from angarium.inbound.send_time import check_name
from angarium.model.units import Duration

_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9.:_-]*")
# Nine digits are what HOLDFOR and BY have.
_SECONDS_MAXIMUM = 999_999_999

MONTH: Final = Duration(30 * 86400)


class KindDefaults(msgspec.Struct, frozen=True):
    """What a kind of listener offers of what strangers have no use for: they may neither hold mail nor order it."""

    deliver_by: bool
    future_release: Duration
    priority: bool


_OF_AUTHORS: Final = KindDefaults(deliver_by=True, future_release=MONTH, priority=True)
_OF_OTHERS: Final = KindDefaults(deliver_by=False, future_release=Duration(0), priority=False)
DEFAULTS: Final[dict[Kind, KindDefaults]] = {
    "smtp": _OF_OTHERS,
    "submission": _OF_AUTHORS,
    "submissions": _OF_AUTHORS,
    "lmtp": _OF_OTHERS,
}


class ExtensionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Extensions on one listener. What is switched off is neither announced nor known.

    size                SIZE (RFC 1870); max_message_octets holds without it, too.
    pipelining          PIPELINING (RFC 2920); without it what stands behind a command ends the session. LMTP needs it.
    eightbitmime        8BITMIME (RFC 6152), which smtputf8 and binarymime need.
    smtputf8            SMTPUTF8 (RFC 6531).
    chunking            CHUNKING (RFC 3030), which binarymime needs.
    dsn                 DSN (RFC 3461).
    vrfy                VRFY is answered 252, else 502.
    binarymime          BINARYMIME (RFC 3030): such mail goes only to next hops that offer it too, and fails elsewhere.
    deliver_by          DELIVERBY (RFC 2852). Absent: on submission listeners.
    deliver_by_minimum  the least by-time that is taken with by-mode R, and announced.
    future_release      FUTURERELEASE (RFC 4865): how long mail may be held, for clients that may relay; 0: not offered.
                        Absent: 30 days on submission listeners, else 0.
    future_release_field  name of a header field that says so of a message, for clients that may relay and cannot say
                        it with MAIL; it is taken out. "": none does.
    priority            MT-PRIORITY (RFC 6710); priorities count for clients that may relay. Absent: on submission
                        listeners.
    no_soliciting       keywords of NO-SOLICITING (RFC 3865) whose mail is refused; []: none is. Absent: not offered.
    limits              LIMITS (RFC 9422): announces max_recipients, and max_messages where there is one.
    tls_required_field  the header field "TLS-Required: No" (RFC 8689 §3) is heeded; else it is only passed on.
    max_messages        MAIL commands that one session may have accepted, then 452; 0: no limit.
    """

    size: bool = True
    pipelining: bool = True
    eightbitmime: bool = True
    smtputf8: bool = True
    chunking: bool = True
    dsn: bool = True
    vrfy: bool = True
    binarymime: bool = False
    deliver_by: bool | None = None
    deliver_by_minimum: Duration = Duration(0)
    future_release: Duration | None = None
    future_release_field: str = ""
    priority: bool | None = None
    no_soliciting: list[str] | None = None
    limits: bool = True
    tls_required_field: bool = True
    max_messages: int = 0

    def __post_init__(self) -> None:
        for key, needed, section in (
            ("smtputf8", "eightbitmime", "RFC 6531 §3.1"),
            ("binarymime", "eightbitmime", "RFC 3030 §3"),
            ("binarymime", "chunking", "RFC 3030 §3"),
        ):
            if getattr(self, key) and not getattr(self, needed):
                raise ValueError(f"{key}: needs {needed} ({section})")
        for key, value in (
            ("deliver_by_minimum", self.deliver_by_minimum),
            ("future_release", self.future_release or 0),
        ):
            if not 0 <= value <= _SECONDS_MAXIMUM:
                raise ValueError(f"{key}: between 0 and {_SECONDS_MAXIMUM} seconds")
        if self.future_release_field:
            try:
                check_name(self.future_release_field)
            except ValueError as error:
                raise ValueError(f"future_release_field: {error}") from None
        if not 0 <= self.max_messages <= 999_999:
            raise ValueError("max_messages: between 0 (no limit) and 999999")
        for index, word in enumerate(self.no_soliciting or []):
            if not _KEYWORD.fullmatch(word):
                raise ValueError(f'no_soliciting[{index}]: "{word}" is no keyword such as "net.example:ADV"')
        if len(",".join(self.no_soliciting or [])) > 400:
            raise ValueError("no_soliciting: more than fits into a line of EHLO")

    def hold_max_s(self, kind: Kind) -> int:
        """For how long mail may be held; 0: not at all."""
        return round(DEFAULTS[kind].future_release if self.future_release is None else self.future_release)

    def settings(self, kind: Kind) -> dict[str, Any]:
        """Keyword arguments for ServerSettings."""
        usual = DEFAULTS[kind]
        delivers_by = usual.deliver_by if self.deliver_by is None else self.deliver_by
        return {
            "size": self.size,
            "pipelining": self.pipelining,
            "eightbitmime": self.eightbitmime,
            "smtputf8": self.smtputf8,
            "chunking": self.chunking,
            "dsn": self.dsn,
            "vrfy": self.vrfy,
            "binarymime": self.binarymime,
            "priority": usual.priority if self.priority is None else self.priority,
            "deliver_by_minimum_s": round(self.deliver_by_minimum) if delivers_by else -1,
            "hold_max_s": self.hold_max_s(kind),
            "no_soliciting": None if self.no_soliciting is None else ",".join(self.no_soliciting),
            "max_messages": self.max_messages,
            "announces_limits": self.limits,
        }
