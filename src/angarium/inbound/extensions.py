"""Which extensions of MAIL a listener offers: [listener.extensions]. What each does: docs/extensions.md."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from angarium.model.units import Duration

_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9.:_-]*")
# Nine digits are what HOLDFOR and BY have.
_SECONDS_MAXIMUM = 999_999_999


class ExtensionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Extensions of MAIL on one listener.

    binarymime          BINARYMIME (RFC 3030): such mail goes only to next hops that offer it too, and fails elsewhere.
    deliver_by          DELIVERBY (RFC 2852).
    deliver_by_minimum  the least by-time that is taken with by-mode R, and announced.
    future_release      FUTURERELEASE (RFC 4865): how long mail may be held, for clients that may relay; 0: not offered.
                        Absent: 30 days where AUTH is offered, else 0.
    priority            MT-PRIORITY (RFC 6710); priorities count for clients that may relay.
    no_soliciting       keywords of NO-SOLICITING (RFC 3865) whose mail is refused; []: none is. Absent: not offered.
    limits              LIMITS (RFC 9422): announces max_recipients, and max_messages where there is one.
    max_messages        MAIL commands that one session may have accepted, then 452; 0: no limit.
    """

    binarymime: bool = False
    deliver_by: bool = True
    deliver_by_minimum: Duration = Duration(0)
    future_release: Duration | None = None
    priority: bool = True
    no_soliciting: list[str] | None = None
    limits: bool = True
    max_messages: int = 0

    def __post_init__(self) -> None:
        for key, value in (
            ("deliver_by_minimum", self.deliver_by_minimum),
            ("future_release", self.future_release or 0),
        ):
            if not 0 <= value <= _SECONDS_MAXIMUM:
                raise ValueError(f"{key}: between 0 and {_SECONDS_MAXIMUM} seconds")
        if not 0 <= self.max_messages <= 999_999:
            raise ValueError("max_messages: between 0 (no limit) and 999999")
        for index, word in enumerate(self.no_soliciting or []):
            if not _KEYWORD.fullmatch(word):
                raise ValueError(f'no_soliciting[{index}]: "{word}" is no keyword such as "net.example:ADV"')
        if len(",".join(self.no_soliciting or [])) > 400:
            raise ValueError("no_soliciting: more than fits into a line of EHLO")

    def settings(self, is_auth_offered: bool) -> dict[str, Any]:
        """Keyword arguments for ServerSettings."""
        hold = self.future_release
        if hold is None:
            hold = Duration(30 * 86400) if is_auth_offered else Duration(0)
        return {
            "binarymime": self.binarymime,
            "priority": self.priority,
            "deliver_by_minimum_s": round(self.deliver_by_minimum) if self.deliver_by else -1,
            "hold_max_s": round(hold),
            "no_soliciting": None if self.no_soliciting is None else ",".join(self.no_soliciting),
            "max_messages": self.max_messages,
            "announces_limits": self.limits,
        }
