"""What became of an attempt, as values."""

from __future__ import annotations

import msgspec


class Trouble(msgspec.Struct, frozen=True):
    """Why a recipient was deferred or failed.

    code     reply code of the peer, 0 when there was no reply (connection, DNS, local).
    status   enhanced status code (class, subject, detail), RFC 3463; ours when the peer gave none.
    text     the peer's reply text (lines joined by LF, control octets already replaced) or our own words.
    remote   "host[address]:port", or "" when no peer was reached.
    delay_s  wait at least this long before the next attempt; 0: the schedule decides.
    phase    where it was met, one of bounces.classes.PHASES; "" when that is not known (any more).
    is_of_source  it lies with the egress source, or with what the peer thinks of it: another may do better.
    """

    code: int
    status: tuple[int, int, int]
    text: str
    remote: str = ""
    delay_s: float = 0.0
    phase: str = ""
    is_of_source: bool = False
