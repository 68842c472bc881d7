"""From a recipient's domain to its ready queue (Cython callers see more, in the .pxd)."""

from asyncio import Lock, Task
from typing import Protocol

from angarium.model.outcome import Trouble
from angarium.model.plan import Plan, Source, StsRule
from angarium.queue.domains import DomainQueue, DomainTable
from angarium.queue.ledger import Ledger
from angarium.queue.ready import Appointer, Egress, ReadyQueue
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.troubles import Troubles

class Router(Protocol):
    """What routing/ offers: plans for the keys of domain queues (routing/route_key.py). One whose routes look at senders has
    besides a callable `route_of_sender`; one whose plans may wait for more than DNS, a coroutine `plan_or_wait`
    (routing/router.py)."""

    def plan_now(self, domain: bytes) -> Plan | None: ...
    async def plan(self, domain: bytes) -> Plan: ...

class Pool(Protocol):
    """What routing/egress_pool.py offers."""

    only: Source | None
    def choose(self, chance: float | None = None) -> Source: ...

    # Where there are several (routing/egress_rules.py), besides: part_of(), pool_for(), asks_messages, is_simple, ration_for.

class Planner(Ledger):
    """Knows domains and ready queues. A base of the Scheduler."""

    router: Router
    pool: Pool
    troubles: Troubles
    domains: DomainTable
    def policy_changed(self, domain: bytes, rule: StsRule | None) -> None:
        """What a domain (A-labels, lower case) asks by MTA-STS is not what its plans may say: they are made anew, and mail that
        waits in ready queues for its site is routed again, in slices."""
    def plan_anew(self, *, router: Router, pool: Pool, shaping: Shaping | ShapingOptions) -> None:
        """New routing and limits, at once: what is ready or unrouted is routed again, in slices."""
    def set_egress(self, protocol: str, egress: Egress) -> None:
        """Who serves ready queues whose site speaks `protocol`."""
    def set_appointer(self, appointer: Appointer) -> None:
        """Who says which worker serves a ready queue; before the first one is made."""
    def leave_source(self, ready: ReadyQueue, trouble: Trouble, is_down: bool = False) -> None:
        """Whoever waits in the ready queue takes another source of its pool, or is deferred where there is none.

        is_down: nothing of the source can be used for any site; told to other workers, whose mail waits in the queue too.
        """
    def planned(self, domain: DomainQueue, generation: int, task: Task[Plan]) -> None: ...
    unplanned_lock: Lock
    domain_parts: int
    """Of the table of domains; each is looked at in one piece."""
    def unplanned(self, part: int) -> list[DomainQueue]:
        """Of a part: domains that nobody has looked up, nor is looking up."""
    def plan_is_known(self, domain: DomainQueue) -> bool:
        """Gives it the plan that routing has at hand; False: it must be asked. Raises RoutingTrouble."""
    def plan_found(self, domain: DomainQueue, plan: Plan) -> bool:
        """Gives it the plan that was asked for, if it still has none. Whether it has one now."""
    def sweep(self) -> int:
        """Forgets domains, plans, ready queues and troubles nobody needs. Call every minute or so."""
    def ready_queues(self) -> list[ReadyQueue]: ...
    def domain_queues(self) -> list[DomainQueue]: ...
