"""Which envelope of an id is the message, and which outcome holds: the rules of recovery (csrc/spool/recover.c) for
those who read a spool from outside. What it is not: it reads nothing.

Fed segment by segment, newest first, each with its outcomes and freed ids before its envelopes:

- A message may lie in the spool twice, because compaction copies it into a younger segment. Of the copies that are
  not freed the one in the youngest segment is the message; the older ones are stale.
- A copy whose envelope says that an outcome goes with it (flag COPY_FIRST), and for which none has been noted when it
  is met, was cut short: it waits for the end of the scan, and counts only if no older copy does. So does every copy in
  a segment in which something is damaged. Of several that waited the oldest counts. Whoever feeds sees to that.
- A freed id is about the one copy that lies in the home it names. It stands in that segment or in a younger one.
- The newest outcome of an id holds, whatever home it names: of two segments the younger one's, in a segment the last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class OutcomePlace(NamedTuple):
    """Where an outcome record lies."""

    serial: int
    offset: int
    length: int


class Resolution:
    """What was said about the messages of one shard. Memory grows with outcomes and live messages."""

    def __init__(self, serials: Iterable[int]) -> None:
        """serials  of the segments that exist: what is said about others concerns nobody."""
        self._serials = frozenset(serials)
        self._outcomes: dict[int, OutcomePlace] = {}
        self._freed: set[tuple[int, int]] = set()
        self._found: set[int] = set()

    def note_outcome(self, message_id: int, place: OutcomePlace) -> None:
        """In a segment by rising offset."""
        known = self._outcomes.get(message_id)
        if known is None or known.serial == place.serial:
            self._outcomes[message_id] = place

    def note_freed(self, message_id: int, home_serial: int) -> None:
        if home_serial in self._serials:
            self._freed.add((message_id, home_serial))

    def is_freed(self, message_id: int, home_serial: int) -> bool:
        """Whether the copy of the message with this home is over."""
        return (message_id, home_serial) in self._freed

    def take(self, message_id: int, home_serial: int) -> bool:
        """Whether the envelope there is the message; once, and only when it is valid: what is taken makes older copies
        stale.
        """
        if self.is_freed(message_id, home_serial) or message_id in self._found:
            return False
        self._found.add(message_id)
        return True

    def outcome(self, message_id: int) -> OutcomePlace | None:
        """The outcome that holds, if there is any; known when the message's envelope is met."""
        return self._outcomes.get(message_id)
