"""What a worker knows of why mail waits or where it would go: for a message, or an address that nobody wrote to yet.

The supervisor joins the workers' answers (process/explaining.py) and puts files and lines beside what set a limit.
Everything is read, nothing is changed: no message is moved, no place taken; the one thing that may happen is a look-up
of mail exchangers, as for a message.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from angarium.model.plan import Plan, RoutingTrouble, Site, TlsWish
from angarium.outbound.dispatcher import Dispatcher
from angarium.outbound.reasons import Reason, of_recipient
from angarium.outbound.tls_view import host_view
from angarium.queue import explain, inspect
from angarium.queue.facts import MessageFacts, QueueFacts, RecipientFacts, Reply
from angarium.queue.notes import Asked, Note, Speaker
from angarium.queue.scheduler import Scheduler
from angarium.routing.egress_pool import EgressPool
from angarium.routing.egress_rules import EgressPools
from angarium.routing.router import Router
from angarium.sasl.logins import Logins

RECIPIENTS_TOLD: Final = 100
SUBJECTS_TOLD: Final = 5
MESSAGES_TOLD: Final = 3
HOSTS_TOLD: Final = 20
# For messages of a domain: a tenth of a second of a worker's time over a backlog of a million.
_SLICES: Final = 200


class Question(msgspec.Struct):
    """About mail to an address: "user@domain", or a domain alone; and what is known of the message.

    source  whose limits to tell, "" for the first of the pool that can be used.
    """

    address: str
    sender: str = ""
    tenant: str = ""
    campaign: str = ""
    pool: str = ""
    source: str = ""


class SourceChoice(msgspec.Struct):
    """One source of the pool. percent: of messages that draw it now, none when there is a why_not. is_drawn: by the
    message."""

    name: str
    addresses: list[str]
    weight: int
    percent: float
    why_not: str = ""
    is_drawn: bool = False


class Subject(msgspec.Struct):
    """Mail for one domain that goes one way.

    key          of its domain queue.
    is_by_message  the message itself says where to. route: the place of its route among all routes, None: none.
    trouble      why there is no way (now); then what follows is not known.
    pool_rule    the place of the [[egress]] that chose the pool; is_pool_by_message: the message names it.
    provider     of [shaping], whose mail it is; "": nobody's that is known. kind: what tells it apart there, or None.
    source       that limits are told for: the message's, the one asked about, else the first that can be used.
    used         what of those limits is used, over all workers.
    queues       ready queues of its mail, of all workers.
    waiting      recipients, of all workers; unrouted: of them without a plan.
    """

    domain: str
    key: bytes
    sender: str = ""
    tenant: str = ""
    campaign: str = ""
    wish: int = 0
    next_hop: str = ""
    route: int | None = None
    is_by_message: bool = False
    trouble: str = ""
    is_permanent: bool = False
    site: Site | None = None
    tls: list[dict[str, Any]] = []
    pool: str = ""
    pool_rule: int | None = None
    is_pool_by_message: bool = False
    sources: list[SourceChoice] = []
    provider: str = ""
    kind: tuple[str, str, str] | None = None
    source: str = ""
    used: QueueFacts | None = None
    notes: list[Note] = []
    waiting: int = 0
    unrouted: int = 0
    queues: list[QueueFacts] = []


class RecipientView(msgspec.Struct):
    """A recipient that waits. subject: its place in Explanation.subjects, None: too many of them are concerned."""

    id: str
    to: str
    place: str
    attempts: int
    reason: Reason
    subject: int | None
    next_attempt_utc_s: float | None = None
    last: Reply | None = None


class Explanation(msgspec.Struct):
    """message: of a question about one; address: of any other.

    recipients  of the message, or of the first that wait for the address's domain; `more` are not told.
    """

    subjects: list[Subject]
    recipients: list[RecipientView] = []
    more: int = 0
    message: MessageFacts | None = None
    address: str = ""


class Explainer:
    """One per worker. speakers: who may have something to say about mail; each is asked for every subject."""

    def __init__(self, scheduler: Scheduler, dispatcher: Dispatcher, logins: Logins) -> None:
        self._scheduler = scheduler
        self._dispatcher = dispatcher
        self._logins = logins
        self.speakers: list[Speaker] = []

    async def of_message(self, id_: str) -> Explanation | None:
        """None: it is not in this worker's queue."""
        number = inspect.id_number(id_)
        message = None if number is None else await self._message(number, RECIPIENTS_TOLD)
        if message is None:
            return None
        found = Explanation([], more=message.more, message=message)
        await self._add_recipients(found, message)
        return found

    async def of_address(self, question: Question, *, with_way: bool) -> Explanation:
        """What a message to this address would meet, and who of its domain waits.

        with_way  the plan, too; without it only who waits: every worker would ask DNS for itself.
        """
        address, domain = question.address, question.address.rpartition("@")[2]
        key = explain.domain_key(
            self._scheduler,
            domain.encode(),
            reverse_path=question.sender.encode(),
            tenant=_octets(question.tenant),
            campaign=_octets(question.campaign),
            pool=_octets(question.pool),
        )
        subject = Subject(
            domain, key, question.sender, question.tenant, question.campaign, source=question.source
        )
        if with_way:
            await self._find_way(subject, address)
        found = Explanation([subject], address=address)
        for number in await self._messages_for(domain.lower().encode(), key):
            message = await self._message(number, MESSAGES_TOLD, domain.lower().encode())
            if message is not None:
                found.more += message.more
                found.recipients += [self._view(message, each, 0) for each in message.recipients if each.key == key]
        return found

    def look(self, subject: Subject) -> tuple[int, int, list[QueueFacts]]:
        """Waiting, unrouted and ready queues of a subject whose way is known, in this worker."""
        state = explain.domain_state(self._scheduler, subject.key)
        waiting, unrouted, _ = state or (0, 0, False)
        if subject.site is None:
            return waiting, unrouted, []
        queues = []
        for source in subject.sources:
            facts = self._queue(subject, subject.site, source.name)
            if facts is not None:
                queues.append(facts)
        return waiting, unrouted, queues

    async def _message(self, number: int, most: int, domain: bytes | None = None) -> MessageFacts | None:
        """With its envelope read back from the spool where it is not in memory."""
        answer: asyncio.Future[MessageFacts | None] = asyncio.get_running_loop().create_future()

        def is_there(error: int) -> None:
            if not answer.done():
                try:
                    answer.set_result(explain.message_facts(self._scheduler, number, most, domain))
                except Exception as problem:
                    answer.set_exception(problem)

        return await answer if inspect.read_back(self._scheduler, number, is_there) else None

    async def _messages_for(self, domain: bytes, key: bytes) -> list[int]:
        """The first few of the domain that a bounded look finds."""
        if explain.domain_state(self._scheduler, key) is None:
            return []
        found: list[int] = []
        cursor = 0
        for _ in range(_SLICES):
            cursor, more = inspect.list_slice(self._scheduler, cursor, MESSAGES_TOLD - len(found), domain)
            found += [number for each in more if (number := inspect.id_number(each["id"])) is not None]
            if cursor < 0 or len(found) >= MESSAGES_TOLD:
                break
            await asyncio.sleep(0)
        return found

    async def _add_recipients(self, found: Explanation, message: MessageFacts) -> None:
        places: dict[bytes, int | None] = {}
        for each in message.recipients:
            if each.key not in places:
                places[each.key] = len(found.subjects) if len(found.subjects) < SUBJECTS_TOLD else None
                if places[each.key] is not None:
                    attributes = message.attributes
                    subject = Subject(
                        each.domain,
                        each.key,
                        message.sender,
                        attributes.get("tenant", ""),
                        attributes.get("campaign", ""),
                        message.wish,
                    )
                    await self._find_way(subject, each.to, each.source)
                    found.subjects.append(subject)
            found.recipients.append(self._view(message, each, places[each.key]))

    def _view(self, message: MessageFacts, facts: RecipientFacts, subject: int | None) -> RecipientView:
        queue = None
        if facts.place in ("ready", "behind"):
            ready = explain.queue_of(self._scheduler, facts.queue_number)
            queue = None if ready is None else self._facts(ready)
        return RecipientView(
            message.id,
            facts.to,
            facts.place,
            facts.attempts,
            of_recipient(facts, queue),
            subject,
            facts.next_attempt_utc_s,
            facts.last,
        )

    async def _find_way(self, subject: Subject, address: str, drawn: str = "") -> None:
        scheduler = self._scheduler
        router: Router = scheduler.router  # type: ignore[assignment]
        key = explain.route_key(subject.key)
        try:
            subject.next_hop, subject.route, subject.is_by_message = router.said_by(key)
            plan: Plan = await router.plan(key)
            kind = scheduler.shaping.kind_of(plan.site, subject.domain.encode(), explain.tenant_of(subject.key))
            provider = scheduler.shaping.provider_of(plan.site, kind)
            pools = scheduler.pool
            pool = pools
            if isinstance(pools, EgressPools):
                pool = pools.pool_for(key, plan.site, provider)
                subject.pool_rule, subject.is_pool_by_message = pools.said_by(key)
            assert isinstance(pool, EgressPool)
        except RoutingTrouble as trouble:
            subject.trouble = f"{'.'.join(map(str, trouble.status))} {trouble.text}"
            subject.is_permanent = trouble.is_permanent
            subject.notes = self._notes(subject, address)
            return
        subject.site = plan.site
        subject.pool = pool.name
        subject.provider, subject.kind = provider, kind
        subject.sources = _choices(pool, drawn)
        names = {each.name for each in pool.sources}
        usable = next((each.name for each in subject.sources if not each.why_not), pool.sources[0].name)
        subject.source = next((each for each in (drawn, subject.source) if each in names), usable)
        (source,) = (each for each in pool.sources if each.name == subject.source)
        subject.used = explain.used_now(scheduler, plan.site, source, kind, **_whose(subject))
        options = scheduler.shaping.limits(plan.site, source.name, kind).options
        name, wish = plan.site.login or options.login, TlsWish(subject.wish)
        login = (name, self._logins.options_of(name))
        subject.tls = [
            host_view(plan.site, host, wish, options, login) for host in plan.site.hosts[:HOSTS_TOLD]
        ]
        subject.notes = self._notes(subject, address)

    def _notes(self, subject: Subject, address: str) -> list[Note]:
        asked = Asked(
            address,
            subject.domain,
            subject.sender,
            subject.tenant,
            subject.campaign,
            subject.site.name if subject.site is not None else "",
            tuple(each.name for each in subject.sources),
        )
        return [note for speaker in self.speakers for note in speaker(asked)]

    def _queue(self, subject: Subject, site: Site, source: str) -> QueueFacts | None:
        ready = explain.find_queue(self._scheduler, site, source, subject.wish, subject.kind, **_whose(subject))
        return None if ready is None else self._facts(ready)

    def _facts(self, ready: Any) -> QueueFacts:
        facts = explain.queue_facts(ready)
        self._dispatcher.add_connections(ready, facts)
        return facts


def _whose(subject: Subject) -> dict[str, bytes]:
    return {"tenant": subject.tenant.encode(), "campaign": subject.campaign.encode()}


def _choices(pool: EgressPool, drawn: str) -> list[SourceChoice]:
    shown = pool.shown()
    drawable = sum(weight for _, weight, why_not in shown if not why_not)
    return [
        SourceChoice(
            source.name,
            [each for each in (source.address, source.address6) if each],
            weight,
            0.0 if why_not or not drawable else round(100.0 * weight / drawable, 1),
            why_not,
            source.name == drawn,
        )
        for source, weight, why_not in shown
    ]


def _octets(text: str) -> bytes | None:
    return text.encode() or None
