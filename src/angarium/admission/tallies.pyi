"""What strangers use of the machine, over all workers (csrc/admission/tallies.h)."""

from collections.abc import Sequence
from typing import Final, Literal, final

from angarium.admission.options import LimitOptions

Kind = Literal["connections", "messages", "recipients", "handshakes", "errors", "auth_attempts"]
KINDS: Final[tuple[Kind, ...]]

@final
class Tallies:
    """The table in shared memory; make it before forking, attach() in each worker.

    slots  networks it can tell apart at once, a power of two; 192 octets each, touched when used.
    """

    worker: int
    def __init__(self, slots: int = 65536) -> None: ...
    def attach(self, worker: int) -> None:
        """From now on this process counts as `worker` (0..63)."""
    def forget_worker(self, worker: int) -> None:
        """A worker died: its connections and sessions are counted no more. Supervisor only."""
    @property
    def sessions(self) -> int:
        """Of the machine, where a limit of them is set."""

@final
class Rules:
    """[[admission.limit]], compiled; at most 4."""

    tallies: Tallies
    def __init__(self, tallies: Tallies, limits: Sequence[LimitOptions]) -> None: ...
    def visit(self, host: str, is_own: bool = False) -> Visit | Kind | Literal["open"]:
        """A connection from a numeric address, counted; or which limit is in its way.

        is_own  a client of relay_from: only rules that say `own_clients` count it.
        """

@final
class Visit:
    """One connection, until leave() or its end."""

    def leave(self) -> None: ...
    def try_take(self, kind: Kind) -> bool:
        """Takes one of what comes at a rate; False: a limit is reached."""
