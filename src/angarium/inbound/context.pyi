"""What inbound connections share: one Intake per worker, one InboundContext per listener."""

from asyncio import AbstractEventLoop
from typing import Protocol, final

from angarium.admission.bounds import Bounds, Places
from angarium.events.journal import Journal
from angarium.inbound.authority import Authority
from angarium.inbound.etrn import EtrnDesk
from angarium.inbound.gate import Gate
from angarium.inbound.judgement import Appointing, Judges
from angarium.inbound.options import ListenerOptions
from angarium.inbound.refusals import Refusals
from angarium.inbound.slowness import Slowness
from angarium.inbound.tracing import Tracing
from angarium.queue.scheduler import Scheduler
from angarium.queue.wheel import Wheel
from angarium.smtp.server_settings import ServerSettings
from angarium.sockets.poll import Poll
from angarium.spool.shard import Shard
from angarium.tls.context import ServerContext

class _Client(Protocol):
    def close_if_idle(self) -> bool: ...
    def abort(self) -> None: ...

@final
class Intake:
    """What all inbound connections of one worker share: the shard for new mail, the scheduler, the read buffer.

    active      transactions between MAIL and end of data.
    committing  messages whose commit is under way; a shutdown waits for them.
    unsynced_octets  of message data on their way to stable storage; bounded, then streamed messages wait and MAIL
                     gets 452.
    own_domains      as relay_to of every listener (listener.apply() looks at it).
    has_postmaster   mail for <Postmaster> without a domain is taken from anybody, for a route says where it goes.
    appointing       makers of judges, in the order in which they are asked; set before the first listener is made.
    authority        who clients are; None where no listener offers AUTH.
    etrn             takes orders of ETRN; None: nobody does, and it is not offered.
    refusals         the last ones, for who asks why.
    tracing          traces under way; None: nobody looks.
    gate             limits of the machine and of clients' networks; set before listeners are applied.
    is_memory_full   sessions hold all they may: new ones get 421 (load.pyx).
    is_tight         the load is high: the tight_ figures hold for deadlines and rates.
    is_queue_full    set when the queue takes all the memory that it may: MAIL gets 452.
    slowness         a judge of MAIL that takes its time, while the queue is nearly full (queue/memory_watch.py).
    is_spool_low     set when the spool's file system is below a mark: MAIL gets 452.
    """

    shard: Shard
    scheduler: Scheduler
    journal: Journal
    wheel: Wheel
    loop: AbstractEventLoop
    bounds: Bounds
    clients: set[_Client]
    active: int
    committing: int
    unsynced_octets: int
    waiting: dict[_Client, None]
    is_draining: bool
    is_spool_low: bool
    is_queue_full: bool
    slowness: Slowness | None
    authority: Authority | None
    own_domains: frozenset[bytes]
    has_postmaster: bool
    appointing: tuple[Appointing, ...]
    etrn: EtrnDesk | None
    refusals: Refusals
    tracing: Tracing | None
    gate: Gate | None
    is_memory_full: bool
    is_tight: bool
    tight_command_ms: int
    tight_data_ms: int
    tight_message_ms: int
    tight_octets_per_s: int
    def __init__(
        self,
        shard: Shard,
        scheduler: Scheduler,
        journal: Journal,
        wheel: Wheel,
        loop: AbstractEventLoop,
        poll: Poll | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """poll: the worker's, when its outbound sockets are in it too. bounds: those of all workers; None: there is one."""
    def drain(self) -> None:
        """From now on sessions end: idle ones get 421 at once, others behind the message they are in."""
    def close_idle(self) -> int:
        """421 to every session that is not in a transaction; returns how many."""
    def abort_all(self) -> None:
        """Closes every connection without a word. What is being committed is finished all the same."""

@final
class InboundContext:
    """One listener's options, compiled. apply() changes it in place: open sessions see it at their next command."""

    intake: Intake
    options: ListenerOptions
    name: bytes
    settings: ServerSettings
    judges: Judges | None
    domains: frozenset[bytes]
    has_subdomains: bool
    generation: int
    session_count: int
    places: Places
    data_octets_per_s: int
    is_auth_offered: bool
    auth_mechanisms: frozenset[str]
    tls: ServerContext | None
    is_implicit_tls: bool
    handshake_timeout_ms: int
    relay_certificates: frozenset[bytes]
    relay_verified: bool
    gate: Gate | None
    def __init__(
        self, intake: Intake, hostname: str, options: ListenerOptions, tls: ServerContext | None = None
    ) -> None: ...
    def replace_certificates(self, tls: ServerContext) -> None:
        """Handshakes from now on use these; sessions under way keep theirs."""
    def apply(self, hostname: str, options: ListenerOptions, tls: ServerContext | None = None) -> None:
        """A reload. Raises UnicodeEncodeError for a hostname that is not ASCII; then nothing has changed."""
