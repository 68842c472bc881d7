"""The spool shard on an event loop. Compiled code uses the cdef methods of shard.pxd; this is the slow API beside them."""

from asyncio import AbstractEventLoop, Future
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from angarium.model.errors import SpoolError
from angarium.spool.notice import Notice

Place: TypeAlias = tuple[int, int, int]
"""(segment serial, offset of the record header, length of the payload)."""

def error_of(number: int, text: str) -> SpoolError:
    """The exception for an errno of the spool."""

class Stored:
    """What a durable append returns. body_place is None unless a body travelled with its envelope."""

    id: int
    place: Place
    body_place: Place | None
    def __init__(self, id: int, place: Place, body_place: Place | None) -> None: ...

class Recovered:
    """A message found at start: envelope octets, newest state octets or None, and where both lie."""

    id: int
    envelope: bytes
    state: bytes | None
    place: Place
    state_serial: int | None
    def __init__(self, id: int, envelope: bytes, state: bytes | None, place: Place, state_serial: int | None) -> None: ...

class Shard:
    """One shard directory, its commit thread and its reader thread; loop thread only.

    Opens (creates) `name` below directory_fd and locks it. New mail may be appended at once; old segments are scanned in
    the background, see recover(). Open it after the fork: its threads do not survive one.

    number          0 .. 255, part of every message id
    segment_octets  1 MiB .. 1 GiB
    spare_segments  free files kept for reuse
    window_us       longest wait for company before a sync when many transactions are active
    last_incarnation  of ids that will be put into a new shard (docs/spool-format.md, "Message ids"); its own come behind
    duplicate_window_ms  outcomes and freed ids are durable within this, from when they were said; 0: written at once
    Raises SpoolBusy (owned by another process, named), SpoolVersion, SpoolFull, SpoolError.
    """

    number: int
    name: str
    def __init__(self, directory_fd: int, name: str, number: int, *, segment_octets: int = ...,
                 spare_segments: int = 4, window_us: int = 1000, last_incarnation: int = 0,
                 duplicate_window_ms: int = 100) -> None: ...
    def attach(self, loop: AbstractEventLoop) -> None:
        """Callbacks and futures run on this loop from now on."""
    def stop(self) -> None:
        """Writes everything submitted, seals, calls what is still to be called; nothing is taken any more. Blocks for some
        milliseconds. What went wrong in that is among notices() until close()."""
    def close(self) -> None:
        """stop(), and unlocks."""
    def hurry(self) -> None:
        """From now on states and freed ids wait for no commit to ride on: the end is near."""
    def new_id(self) -> int:
        """A message id, unique for the life of the spool."""
    def append(self, reverse_path: bytes, recipients: Iterable[bytes], body: bytes | None, *,
               chunks: Sequence[Place] | None = None, message_id: int = 0, envid: bytes = b"", helo: bytes = b"",
               client_address: bytes = b"", listener: bytes = b"", flags: int = 0, received_utc_ms: int | None = None,
               orcpt: bytes = b"", notify: int = 0, message_octets: int | None = None) -> Future[Stored]:
        """Commits a message; the future is done when it is durable. `chunks`: places from append_body, then body is None."""
    def store(self, envelope: bytes, body: bytes | None) -> Future[Stored]:
        """Commits a message whose envelope is built already (Envelope.build); its id is kept. Raises ValueError unless it has
        either a body and Flag.INLINE or chunks."""
    def append_body(self, message_id: int, offset: int, data: bytes) -> Future[Stored]:
        """One run of a message's octets, before its envelope."""
    def write_state(self, message_id: int, home_serial: int, state: bytes, previous_serial: int | None = None) -> Future[Stored]:
        """Replaces a message's state; durable with the next commit, within the duplicate window."""
    def settle(self, message_id: int, home_serial: int, state_serial: int | None = None, chunk_serials: Iterable[int] = ()) -> None:
        """The message is over: durable with the next commit, within the duplicate window; then its segments may be recycled."""
    def fetch(self, serial: int, offset: int, length: int, *, body_of: int = 0, run_offset: int = 0) -> Future[bytes]:
        """Payload of a record. SpoolCorrupt when its checksum does not match; with body_of, too, when it is not the run of that
        message's octets that begins at run_offset."""
    def recover(self, limit: int = 500) -> list[Recovered] | None:
        """Messages found at start, at most `limit`; [] when none is ready yet, None when all have been handed out. Old segments
        are recycled only after that."""
    def expect_transactions(self, count: int) -> None:
        """How many inbound transactions are active; see company_wanted() in commit.c."""
    @property
    def is_full(self) -> bool:
        """No room for new mail: 452 4.3.1."""
    def statistics(self) -> dict[str, int | bool]: ...
    def notices(self) -> list[Notice]:
        """Takes what there is to tell the operator since the last call: torn ends, damage, sealed segments, no room."""
