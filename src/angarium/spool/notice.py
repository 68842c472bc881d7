"""What a shard has to tell the operator (csrc/spool/spool.h, spool_notice)."""

from __future__ import annotations

import enum

import msgspec


class NoticeKind(enum.IntEnum):
    """SPOOL_NOTICE_* of csrc/spool/spool.h, which says what each means."""

    TROUBLE = 0
    TORN = 1
    DAMAGED = 2
    UNREAD = 3


class Notice(msgspec.Struct, frozen=True):
    """serial: of the segment, 0 when there is none or it is not known. offset, octets: where in it, of TORN and
    DAMAGED; 0 octets of a torn end of which nothing is there. text: all of it in a line.
    """

    kind: NoticeKind
    serial: int
    offset: int
    octets: int
    text: str
