"""`angarium explain`, gathered from all workers: what one of them knows of the way, what each has waiting, and the
lines of the configuration that set what is in force; and the one sentence that answers the question.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from angarium.config.explain_limits import LimitLine
from angarium.model.plan import Site
from angarium.model.units import Duration
from angarium.outbound.explanation import Explanation, Question, RecipientView, Subject
from angarium.outbound.reasons import Reason, of_queue
from angarium.process.control import Explain, Look, Request
from angarium.queue.adjustments import EVERYBODY
from angarium.queue.facts import Allowed, QueueFacts
from angarium.queue.in_force import Facts, InForce, as_notes


class Lines(Protocol):
    """The running configuration, and where it was written."""

    def limits(self, site: Site, domain: str, *, source: str, tenant: str, provider: str) -> list[LimitLine]: ...

    def of_automation(self, key: str, value: str, whose: str, by: Sequence[InForce]) -> LimitLine: ...

    def place_of(self, what: str, key: int | str) -> str:
        """Of a "route" or "egress" rule by its number, of a "pool" by its name; "" where no file says anything."""


# Worker, request and type of the answer: Desk._ask().
Ask = Callable[[int, Request, Any], Awaitable[Any]]


class Explaining:
    """count: of workers. in_force: what orders, quiet hours and automation say of some mail."""

    def __init__(self, ask: Ask, count: int, lines: Lines, in_force: Callable[[Facts], list[InForce]]) -> None:
        self._ask = ask
        self._in_force = in_force
        self._count = count
        self._lines = lines

    async def of_message(self, id_: str) -> dict[str, Any] | None:
        """Everything about one message that waits, whichever worker has it; None: no queue has it."""
        answers = await self._ask_all(Explain(id=id_), Explanation | None)
        found = next((answer for answer in answers if answer is not None), None)
        return None if found is None else await self._told(found, id_)

    async def of_address(self, question: Question) -> dict[str, Any]:
        """What a message to the address would meet, and who waits for its domain."""
        query, others = Explain(question=question), Explain(question=question, with_way=False)
        answers: list[Explanation] = await asyncio.gather(
            *(self._ask(number, others if number else query, Explanation) for number in range(self._count))
        )
        found = answers[0]
        for answer in answers[1:]:
            found.recipients += answer.recipients
            found.more += answer.more
        return await self._told(found, question.address)

    async def _ask_all(self, request: Request, kind: Any) -> list[Any]:
        return list(await asyncio.gather(*(self._ask(number, request, kind) for number in range(self._count))))

    async def _told(self, found: Explanation, asked: str) -> dict[str, Any]:
        limits = []
        for subject in found.subjects:
            looks = await self._ask_all(Look(subject), tuple[int, int, list[QueueFacts]])
            for number, (waiting, unrouted, queues) in enumerate(looks):
                subject.waiting += waiting
                subject.unrouted += unrouted
                for queue in queues:
                    queue.worker = number
                    subject.queues.append(queue)
            held = self._in_force(_facts(subject, found.address))
            subject.notes += as_notes(held)
            limits.append(self._limits(subject, held))
        subjects = [self._subject(subject, lines) for subject, lines in zip(found.subjects, limits, strict=True)]
        recipients = [_recipient(each, limits) for each in found.recipients]
        told: dict[str, Any] = {"asked": asked, "verdict": _verdict(found, recipients, limits)}
        if found.message is not None:
            message = msgspec.to_builtins(found.message)
            told["message"] = {key: message[key] for key in ("id", "sender", "received_utc_s", "octets", "waiting")}
            told["message"] |= {"attributes": message["attributes"]}
        return told | {"recipients": recipients, "more_recipients": found.more, "subjects": subjects}

    def _limits(self, subject: Subject, held: list[InForce]) -> list[LimitLine]:
        if subject.site is None:
            return []
        tenant = subject.kind[2] if subject.kind else ""
        lines = self._lines.limits(
            subject.site, subject.domain, source=subject.source, tenant=tenant, provider=subject.provider
        )
        if subject.used is not None:
            for line in lines:
                line.use = _use(line.key, subject.used)
            lines = [*self._of_automation(subject.used, held), *lines]
        return lines

    def _of_automation(self, used: QueueFacts, held: list[InForce]) -> Iterator[LimitLine]:
        for each in (*filter(None, [used.left]), *used.restrained):
            by = [one for one in held if one.slows == each.whose and not one.is_aside]
            for key, value, use in (
                ("connections", each.connections_limit, f"{each.connections} in use"),
                ("connection_rate", each.connection_rate, _rate_use(each.connection_rate_wait_s)),
                ("message_rate", each.rate, _rate_use(each.rate_wait_s)),
            ):
                if value:
                    line = self._lines.of_automation(key, _shown(key, value), each.whose, by)
                    line.use = use
                    yield line

    def _subject(self, subject: Subject, limits: list[LimitLine]) -> dict[str, Any]:
        """As the HTTP API tells it."""
        told: dict[str, Any] = {
            key: getattr(subject, key) for key in ("domain", "sender", "tenant", "campaign", "waiting", "unrouted")
        }
        by = "" if subject.route is None else self._lines.place_of("route", subject.route)
        told["route"] = {
            "next_hop": subject.next_hop, "said_by": "the message itself" if subject.is_by_message else by
        }  # fmt: skip
        told["notes"] = msgspec.to_builtins(subject.notes)
        if subject.site is None:
            return told | {"trouble": subject.trouble, "is_permanent": subject.is_permanent}
        site = subject.site
        told["site"] = {
            "name": site.name, "protocol": site.protocol, "is_secure": site.is_located_securely, "hosts": subject.tls
        }  # fmt: skip
        if site.sts is not None:
            told["site"]["sts"] = {"mode": site.sts.mode, "mx": list(site.sts.patterns)}
        by = self._lines.place_of("pool", subject.pool)
        if subject.pool_rule is not None:
            by = self._lines.place_of("egress", subject.pool_rule)
        kind = dict(zip(("provider", "domain", "tenant"), subject.kind or ("", "", ""), strict=True))
        told["pool"] = {
            "name": subject.pool,
            "said_by": "the message itself" if subject.is_pool_by_message else by,
            "sources": msgspec.to_builtins(subject.sources),
        }
        told |= {"provider": subject.provider, "kind": kind, "limits_for_source": subject.source}
        told["limits"] = msgspec.to_builtins(limits)
        told["queues"] = msgspec.to_builtins(subject.queues)
        return told


def _facts(subject: Subject, address: str) -> Facts:
    return Facts(
        domain=subject.domain,
        site=subject.site.name if subject.site is not None else "",
        provider=subject.provider,
        source=subject.source if subject.site is not None else "",
        pool=subject.pool,
        tenant=subject.tenant,
        campaign=subject.campaign,
        sender=subject.sender,
        recipient=address if "@" in address else "",
    )


def _recipient(view: RecipientView, limits: list[list[LimitLine]]) -> dict[str, Any]:
    told = msgspec.to_builtins(view)
    lines = [] if view.subject is None else limits[view.subject]
    told["reason"]["set_by"] = _place(view.reason, lines)
    del told["last"]
    if view.last is not None:
        told["last"] = msgspec.to_builtins(view.last)
        del told["last"]["utc_s"]       # of a recipient it is not kept
    assert isinstance(told, dict)
    return told


def _place(reason: Reason, lines: list[LimitLine]) -> str:
    if not reason.limit:
        return ""
    wanted = (reason.limit, reason.whose), (f"automation.{reason.limit}", EVERYBODY)     # which holds in its place
    found = [line.place for line in lines if (line.key, line.whose) in wanted]
    return found[0] if found else ""                # what automation does is told first


def _verdict(found: Explanation, recipients: list[dict[str, Any]], limits: list[list[LimitLine]]) -> str:
    """One sentence, the most important thing first."""
    for subject in found.subjects:
        held = next((note for note in subject.notes if note.holds_back), None)
        if held is not None:
            return f"{'waits' if found.recipients else 'would wait'}: {held.text}"
    asked = [each for each in recipients if _is_asked(each["to"], found)]
    if asked:
        return _of_waiting(found, asked)
    if found.message is not None:
        return "is over: only what follows from its outcomes is still to be written"
    subject = found.subjects[0]
    if subject.site is None:
        return f"would {'fail' if subject.is_permanent else 'wait'}: {subject.trouble}"
    if (first := next((note for note in subject.notes if not note.is_aside), None)) is not None:
        return first.text
    if all(each.why_not for each in subject.sources):
        return f"would wait: no source of pool {subject.pool} can be used ({subject.sources[0].why_not})"
    others = "1 other of the domain waits" if subject.waiting == 1 else f"{subject.waiting} others of the domain wait"
    waits = f"{others}, and " if subject.waiting else ""
    reason = _of_new_mail(subject)
    if reason is None:
        return f"{waits or 'nothing waits, and '}a message would be tried at once"
    return f"{waits}a message would wait because {_spoken(reason, _place(reason, limits[0]))}"


def _is_asked(to: str, found: Explanation) -> bool:
    """Whether the question is about this recipient, and not only about somebody of its domain."""
    return found.message is not None or "@" not in found.address or to.lower() == found.address.lower()


def _of_waiting(found: Explanation, recipients: list[dict[str, Any]]) -> str:
    """The reason that most have; of several the first."""
    texts = Counter(each["reason"]["text"] for each in recipients)
    (text, count) = texts.most_common(1)[0]
    chosen = next(each for each in recipients if each["reason"]["text"] == text)
    reason = next(each.reason for each in found.recipients if each.reason.text == text)
    spoken = _spoken(reason, chosen["reason"]["set_by"])
    total = len(recipients) + (found.more if len(recipients) == len(found.recipients) else 0)
    some = f"{count} of {total}" if total > count else f"all {total}"
    whom = "waits" if total == 1 else f"{some} recipients wait"
    return f"{whom} because {spoken}"


def _of_new_mail(subject: Subject) -> Reason | None:
    """Why a message that came now would not be tried at once, as far as somebody knows."""
    for queue in subject.queues:
        if queue.source == subject.source and (queue.waiting or queue.retry_dial_s or queue.paused_s):
            return of_queue(msgspec.structs.replace(queue, waiting=max(queue.waiting, 1)))
    if subject.used is None:
        return None
    idle = sum(queue.idle for queue in subject.queues)
    used = msgspec.structs.replace(subject.used)
    now_utc_s = time.time()
    if used.tenant_rate_wait_s > 0 or used.message_rate_wait_s > 0:
        used.is_paced, used.paused_s = True, max(used.tenant_rate_wait_s, used.message_rate_wait_s)
    elif not idle and (used.connections < used.connections_limit or not used.connections_limit):
        used.is_in_dial_line = any(map(_is_used_up, (used.source_used, used.tenant_used, *used.restrained)))
        if not used.is_in_dial_line and not used.connection_rate_wait_s:
            return None
    elif idle:
        return None
    return of_queue(used, now_utc_s=now_utc_s)


def _is_used_up(used: Allowed | None) -> bool:
    if used is None:
        return False
    return used.connection_rate_wait_s > 0 or 0 < used.connections_limit <= used.connections


def _spoken(reason: Reason, place: str) -> str:
    text = reason.text + (f" ({place})" if place else "")
    if reason.until_utc_s is None:
        return text
    left_s = max(reason.until_utc_s - time.time(), 0.0)
    return f"{text}; next attempt in {Duration(round(left_s))}" if left_s >= 1 else text


def _use(key: str, used: QueueFacts) -> str:
    """What of a limit is used now."""
    of_source, of_tenant = used.source_used or Allowed(), used.tenant_used or Allowed()
    match key:
        case "all_sites.connections":
            return f"{of_source.connections} in use"
        case "all_sites.connection_rate":
            return _rate_use(of_source.connection_rate_wait_s)
        case "all_sites.message_rate":
            return _rate_use(of_source.rate_wait_s)
        case "connections":
            return f"{used.connections} in use"
        case "connection_rate":
            return _rate_use(used.connection_rate_wait_s)
        case "message_rate":
            return _rate_use(used.message_rate_wait_s)
        case "tenant.connections":
            return f"{of_tenant.connections} in use"
        case "tenant.connection_rate":
            return _rate_use(of_tenant.connection_rate_wait_s)
        case "tenant.message_rate":
            return _rate_use(used.tenant_rate_wait_s)
        case "warmup" if used.today_limit is not None:
            return f"{used.sent_today} of {used.today_limit} messages of today sent"
        case "warmup":
            return "warm"
    return ""


def _shown(key: str, value: float) -> str:
    """As [shaping] would write it."""
    return f"{value}" if key == "connections" else f'"{value:.3g}/s"'


def _rate_use(wait_s: float) -> str:
    return f"used up: the next in {wait_s:.3g} s" if wait_s > 0 else "free"
