"""What the queue knows of why something waits, as values. Nothing is changed by asking."""

from angarium.model.plan import Site, Source
from angarium.queue.facts import MessageFacts, QueueFacts
from angarium.queue.ready import ReadyQueue
from angarium.queue.scheduler import Scheduler
from angarium.queue.shaping import Kind

def queue_facts(ready: ReadyQueue) -> QueueFacts:
    """A ready queue as it is now, without its connections (Dispatcher.add_connections())."""

def used_now(
    scheduler: Scheduler,
    site: Site,
    source: Source,
    kind: Kind | None,
    *,
    tenant: bytes = b"",
    campaign: bytes = b"",
) -> QueueFacts:
    """What of the limits of such mail is used over all workers, be there a ready queue for it here or not.

    tenant, campaign: as find_queue()'s; what automation allows them is in `restrained`.
    """

def find_queue(
    scheduler: Scheduler,
    site: Site,
    source: str,
    wish: int,
    kind: Kind | None,
    *,
    tenant: bytes = b"",
    campaign: bytes = b"",
) -> ReadyQueue | None:
    """None: there is no such queue. tenant, campaign: of the mail, which may wait apart (adjustments.py)."""

def domain_key(
    scheduler: Scheduler,
    domain: bytes,
    *,
    reverse_path: bytes = b"",
    tenant: bytes | None = None,
    campaign: bytes | None = None,
    pool: bytes | None = None,
) -> bytes:
    """The key of the domain queue that a message like this would have."""

def domain_state(scheduler: Scheduler, key: bytes) -> tuple[int, int, bool] | None:
    """Recipients waiting, of them without a plan, whether it is being looked up; None: nobody knows this key."""

def queue_of(scheduler: Scheduler, number: int) -> ReadyQueue | None:
    """The one with this number (RecipientFacts.queue_number); None: it has gone meanwhile."""

def route_key(key: bytes) -> bytes:
    """Of the key of a domain queue: what the router knows it by."""

def tenant_of(key: bytes) -> bytes:
    """Of the key of a domain queue: the tenant whose limits are its own, or b""."""

def message_facts(scheduler: Scheduler, id: int, most: int, domain: bytes | None = None) -> MessageFacts | None:
    """A message whose envelope is in memory (inspect.read_back()); None: it is not here.

    most  of its recipients that are not over; domain: only those of it.
    """
