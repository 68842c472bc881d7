"""A worker's composition root: shards, scheduler, routing, inbound and outbound, put together.

worker.py runs it; who starts workers, and with what, is daemon.py's. Worker i of N takes new mail into shard
i and serves besides it every shard j that exists with j % N == i, so that no shard is orphaned when N
changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from angarium.admission.bounds import Bounds
from angarium.admission.tallies import Tallies
from angarium.bounces.classifier import Classifier
from angarium.bounces.options import make_classifier
from angarium.bounces.secret import read_or_make, secret_path
from angarium.bounces.suppression import FILE_NAME, entry_key
from angarium.bounces.verp import Verp
from angarium.config.schema import Config, of_tables
from angarium.events.journal import Journal
from angarium.handover.desk import HandOverDesk
from angarium.inbound.admission import Admission
from angarium.inbound.authority import Authority
from angarium.inbound.context import Intake
from angarium.inbound.etrn import EtrnDesk
from angarium.inbound.gate import Gate
from angarium.inbound.limits import is_exempt
from angarium.inbound.listeners import BoundSocket, Listeners
from angarium.inbound.load import LoadWatch
from angarium.inbound.policy import Policy
from angarium.inbound.quota import Counts
from angarium.inbound.recipients import RecipientJudge, own_domain_keys
from angarium.inbound.report_desk import ReportDesk
from angarium.inbound.slowness import Slowness
from angarium.inbound.suppression_desk import SuppressionDesk
from angarium.inbound.tracing import Tracing
from angarium.mailbox.egress import MaildirEgress
from angarium.metrics.counters import counter
from angarium.model.address import ListenAddress
from angarium.model.errors import AngariumError
from angarium.model.memory import return_free_memory, share_one_arena
from angarium.outbound.dispatcher import Dispatcher
from angarium.outbound.explanation import Explainer, Explanation, Subject
from angarium.outbound.side_tls import SideTls
from angarium.outbound.tls_reporting import TlsReporting
from angarium.outbound.tracing import OutboundTracing
from angarium.policy.hook_file import HookSource
from angarium.process.control import Explain, Listing, Retry, Sample, Standing, Trace, Walk
from angarium.process.supervisor import Seat
from angarium.queue import orders
from angarium.queue.compaction import Compactor
from angarium.queue.facts import QueueFacts, SiteRow, SitesPart
from angarium.queue.injection import inject
from angarium.queue.memory_watch import MemoryWatch
from angarium.queue.notices import Notice, Notices, Tally, Treatments
from angarium.queue.order_watch import OrderWatch
from angarium.queue.quiet import quiet_hours
from angarium.queue.rations import Rations
from angarium.queue.recovery import AT_ONCE, recover
from angarium.queue.reports import Reporter
from angarium.queue.scheduler import Scheduler
from angarium.queue.shaping import Shaping
from angarium.queue.shares import Shares
from angarium.queue.steering import bounce_trouble
from angarium.queue.top_sites import TopSites
from angarium.queue.wheel import Wheel
from angarium.resolver.caching_resolver import CachingResolver
from angarium.routing.egress_rules import EgressPools, egress_pools
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router
from angarium.routing.routes import names_domain
from angarium.routing.source_health import SourceHealth
from angarium.routing.warmup import Warmups
from angarium.sasl.logins import Logins
from angarium.spool.directory import SpoolDirectory, shard_name
from angarium.spool.envelope import Flag
from angarium.spool.foreign import ForeignShard
from angarium.spool.shard import Shard
from angarium.spool.watch import SpoolWatch
from angarium.spool.watermark import Watermark
from angarium.tls.context import TicketKeys
from angarium.tls.sts_policies import StsPolicies
from angarium.tls.watch import CertificateWatch

SWEEP_S = 60.0
RETIRE_S = 300.0  # longer than any look-up may take: resolver/options.py, timeout times tries times servers
OUTCOMES_S = 1.0  # for on_outcome, at the end, to be told what it is behind with
LAST_S = 0.8  # likewise for files that workers share, and others may hold
# Until a shard's reader thread may have found more.
RECOVERY_PAUSE_S = 0.002

recovery_errors = counter(
    "angarium_recovery_errors_total", "Shards whose backlog could not be loaded to the end."
)


class Relay:
    """Everything of one worker. Made by open() on the worker's loop; close() last."""

    def __init__(
        self,
        seat: Seat,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        shares: Shares,
        counts: Counts,
        *,
        tallies: Tallies,
        bounds: Bounds | None = None,
        rations: Rations | None = None,
    ) -> None:
        self.journal = Journal(sys.stdout.fileno(), loop)
        self._loop = loop
        self._config = config
        self._hostname = config.node.own_hostname()
        self._policy = Policy(loop, self.journal)
        self._counts = counts
        self._authority = Authority(loop, self.journal, counts, self._policy.auth_hook)
        self._recipients = RecipientJudge(loop, self.journal, self._hostname, self._policy.recipient_hook)
        self._logins = Logins(config.login, report=self._token_failed)
        self._side_tls = SideTls(loop, self.journal, self._logins)
        self._shards: list[Shard] = []
        self._loading: set[asyncio.Task[None]] = set()
        self._compactors: list[Compactor] = []
        self._resolver = CachingResolver(config.resolver)
        self._sts = self._sts_policies(config)
        self._health = SourceHealth()
        self._rations = rations
        self._notices: Notices | None = None
        self._treatments = Treatments()
        self._send_notices: Callable[[list[Notice], list[Tally]], None] | None = None
        self._scheduler = Scheduler(
            loop,
            Wheel(loop),
            self.journal,
            shares,
            router=self._router(config),
            pool=self._pools(config),
            shaping=Shaping(config.shaping),
            options=config.queue.default,
            hostname=self._hostname,
        )
        self._scheduler.flows.weigh(config.weights())
        self._reporter = Reporter(self._hostname, self.journal)
        self._reporter.recipients_of = self._recipients.for_report
        self._scheduler.reporter = self._reporter
        self._order_watch = OrderWatch(loop, self.journal, self._scheduler)
        self._report_desk = ReportDesk(loop, self.journal, self._hostname, sys.stdout.fileno())
        self._suppression_desk = SuppressionDesk(loop, self.journal)
        self._report_desk.on_bounce = self._suppression_desk.reported
        self._dispatcher = Dispatcher(self._scheduler, health=self._health, logins=self._logins)
        self._outbound_tracing = OutboundTracing(self._scheduler, self._dispatcher, seat.number)
        self._top_sites = TopSites(self._scheduler)
        self._explainer = Explainer(self._scheduler, self._dispatcher, self._logins)
        self._explainer.speakers.append(self._suppression_desk.speak)
        self._maildirs = MaildirEgress(self._scheduler)
        for protocol in ("smtp", "lmtp", "lmtp+unix"):
            self._scheduler.set_egress(protocol, self._dispatcher)
        self._scheduler.set_egress("maildir", self._maildirs)
        self._handover: HandOverDesk | None = None  # one worker hands nothing over
        self._tls_reporting = TlsReporting(
            loop, self.journal, config.node.spool, self._hostname, self._mail_report if seat.number == 0 else None
        )
        self._tallies = tallies
        self._bounds = bounds if bounds is not None else Bounds()
        self._intake: Intake
        self._listeners: Listeners
        self._tracing: Tracing
        self._load_watch: LoadWatch
        self._admission: Admission
        self._spool_watch: SpoolWatch
        self._watermark: Watermark
        self._memory_watch: MemoryWatch
        self._sweeping = loop.call_later(SWEEP_S, self._sweep)
        shares.attach(seat.number)
        counts.attach(seat.number)
        tallies.attach(seat.number)
        self._bounds.attach(seat.number)

    @classmethod
    async def open(
        cls,
        seat: Seat,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        shares: Shares,
        counts: Counts,
        *,
        tallies: Tallies,
        bounds: Bounds | None = None,
        rations: Rations | None = None,
        spool: SpoolDirectory,
        sockets: Sequence[BoundSocket],
        hooks: HookSource | None = None,
        tickets: TicketKeys | None = None,
        standing: Standing | None = None,
    ) -> Relay:
        """Opens the shards and begins to accept; the backlog is loaded meanwhile.

        shares  limits of sites. counts  of identities and failures of AUTH (inbound/quota.py).
        tallies  of clients' networks (inbound/gate.pyx).
        bounds  of all sessions of the machine; None: this is the only worker.
        rations  of sources that are warmed up; None: all are warm.
        hooks  of policy.file.
        standing  orders that hold.
        Raises SpoolError, HookFileError, OSError.
        """
        share_one_arena()
        self = cls(seat, loop, config, shares, counts, tallies=tallies, bounds=bounds, rations=rations)
        if seat.count > 1:
            heard = self._dispatcher.sources.heard
            self._handover = HandOverDesk(
                self._scheduler, seat.number, seat.count, spool.fd, heard, configuration=config.delivery_digest()
            )
        for number in own_shards(spool.shards(), seat):
            window_ms = round(config.node.duplicate_window * 1000)
            shard = Shard(
                spool.fd,
                shard_name(number),
                number,
                segment_octets=config.node.segment_size,
                duplicate_window_ms=window_ms,
            )
            self._shards.append(shard)
            shard.attach(loop)
        if standing is not None:             # before the first message is routed
            self.set_orders(standing)
        self._order_watch.set_quiet(quiet_hours(config.quiet))
        self._spool_watch = SpoolWatch(loop, self.journal, self._shards, self._strange_shards)
        self._intake = Intake(
            self._shards[0],
            self._scheduler,
            self.journal,
            self._scheduler.wheel,
            loop,
            self._dispatcher.poll,
            self._bounds,
        )
        self._intake.authority = self._authority
        self._tracing = Tracing(self._intake, seat.number)
        self._authority.apply(config.auth)
        certificates = CertificateWatch(loop, self.journal, tickets)
        self._listeners = Listeners(self._intake, self._hostname, certificates)
        self._load_watch = LoadWatch(self._intake, self._listeners.contexts)
        self._admission = Admission(loop, self.journal, self._intake, is_exempt)
        self._policy.apply(config.policy, hooks)
        self._intake.appointing = (
            self._admission.judges_of,
            self._policy.appoint_services,
            self._report_desk.judges_of,
            self._policy.appoint_hooks,
            self._recipients.judges_of,
            self._suppression_desk.judges_of,
            self._policy.appoint_last,
        )
        self._apply_bounces(config, make_classifier(config.bounces))
        self._apply_admission(config)
        await self._tls_reporting.apply(config.tls_reports, self._resolver, self._sts)
        self._dispatcher.dialer.witness = self._tls_reporting.witness
        self._load_watch.start()
        await self._apply_recipients(config)
        self._memory_watch = MemoryWatch(loop, self.journal, self._scheduler, self._slow_down, workers=seat.count)
        self._memory_watch.apply(config.queue.memory)
        self._watermark = Watermark(
            loop,
            self.journal,
            spool.fd,
            self._set_spool_low,
            min_free_octets=config.node.min_free,
            min_free_inodes=config.node.min_free_inodes,
            spare_octets=self._spare_octets,
        )
        self._watermark.start()
        if self._handover is not None:
            await self._handover.open()
        for shard in self._shards:
            task = loop.create_task(self._load(shard))
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)
        await self._listeners.apply(config.listener, sockets)
        return self

    def notice_by(self, send: Callable[[list[Notice], list[Tally]], None]) -> None:
        """Where to say what automation counts."""
        self._send_notices = send
        self._apply_automation(self._config)

    def _apply_automation(self, config: Config) -> None:
        """Before that nothing is counted: no mail has left yet."""
        if self._notices is not None:
            self._notices.close()
            self._notices = None
        rules = config.automation.rules
        if rules and self._send_notices is not None:
            take = self._scheduler.take_tallies
            self._notices = Notices(self._loop, rules, self._scheduler.classifier, self._send_notices, take)
            self._notices.set_treatments(self._treatments)
        self._scheduler.notice_by(self._notices)

    def wish_by(self, wish: Callable[[Retry], Awaitable[int]]) -> None:
        """How to ask all workers: ETRN is offered from now on."""
        self._intake.etrn = EtrnDesk(lambda node: wish(Retry(domain=node)), self._counts.orders)

    async def apply(
        self, tables: dict[str, Any], sockets: list[tuple[str, socket.socket]], hooks: HookSource | None
    ) -> None:
        """A reload. The supervisor has checked all but what the hook file does when it is run: HookFileError, and
        nothing has changed. What fails besides is an error of ours."""
        config = of_tables(tables)
        classifier = make_classifier(config.bounces)
        self._policy.apply(config.policy, hooks)
        self._apply_bounces(config, classifier)
        if config.resolver != self._config.resolver:
            self._retire(self._resolver)
            self._resolver = CachingResolver(config.resolver)
        if config.resolver != self._config.resolver or _sts_key(config) != _sts_key(self._config):
            if self._sts is not None:
                self._retire(self._sts)
            self._sts = self._sts_policies(config)
        self._logins.apply(config.login)
        self._scheduler.flows.weigh(config.weights())
        if self._handover is not None:
            self._handover.work_by(config.delivery_digest())
        self._scheduler.reconfigure(
            router=self._router(config),
            pool=self._pools(config),
            shaping=Shaping(config.shaping),
            options=config.queue.default,
        )
        self._apply_automation(config)
        self._order_watch.set_quiet(quiet_hours(config.quiet))
        self._dispatcher.sources.keep(config.sources())
        self._authority.apply(config.auth)
        self._apply_admission(config)
        await self._tls_reporting.apply(config.tls_reports, self._resolver, self._sts)
        self._dispatcher.dialer.witness = self._tls_reporting.witness
        await self._apply_recipients(config)
        await self._listeners.apply(config.listener, _decoded(sockets))
        self._memory_watch.apply(config.queue.memory)
        self._watermark.set_marks(config.node.min_free, config.node.min_free_inodes)
        self._config = config

    async def stand_in(self, number: int, sockets: list[tuple[str, socket.socket]]) -> None:
        """Accepts for worker `number` too (process/deputies.py)."""
        self._listeners.stand_in(number, _decoded(sockets))

    def stand_down(self, number: int) -> None:
        self._listeners.stand_down(number)

    def status(self) -> dict[str, Any]:
        return {
            **self._scheduler.depth(),
            "sessions": len(self._intake.clients),
            "loading": len(self._loading),
            "shards": [shard.statistics() for shard in self._shards],
            "outbound": self._dispatcher.status(),
            "handed": self._handover.status() if self._handover is not None else [],
            "suspended": self._dispatcher.sources.shown(),
        }

    def sources(self) -> list[dict[str, Any]]:
        """Every configured source as this worker has it: admin.views.SourceView."""
        used = self._dispatcher.by_source()
        for each in self._handover.status() if self._handover is not None else ():
            figures = used.setdefault(each["source"], {"connections": 0, "waiting": 0})
            figures["waiting"] += each["waiting"]
        suspended = self._dispatcher.sources.shown()
        return [
            {
                "name": source.name,
                "addresses": [address for address in (source.address, source.address6) if address],
                "ehlo": source.ehlo,
                **used.get(source.name, {}),
                "suspended": [each for each in suspended if each["source"] == source.name],
            }
            for source in self._config.sources()
        ]

    async def listing(self, query: Listing) -> tuple[int, list[dict[str, Any]]]:
        """A page; with a state asked for, as many pages as it takes to fill one."""
        cursor, found = query.cursor, list[dict[str, Any]]()
        while cursor >= 0 and len(found) < query.limit:
            cursor, more = await orders.listing(
                self._scheduler, query.limit - len(found), cursor, query.domain
            )
            found += [each for each in more if query.state is None or query.state in each["places"]]
        return cursor, found

    async def show(self, id_: str) -> dict[str, Any] | None:
        return await orders.show(self._scheduler, id_)

    async def retry(self, id_: str | None, domain: str | None) -> int:
        return await orders.retry(self._scheduler, id_, domain)

    async def delete(self, id_: str | None, domain: str | None) -> int:
        return await orders.delete(self._scheduler, id_, domain)

    async def walk(self, walk: Walk) -> tuple[int, int, int]:
        trouble = bounce_trouble(walk.reason, walk.code, walk.status)
        done = await orders.carry_out(
            self._scheduler, walk.action, walk.where, trouble=trouble, before_utc_s=walk.before_utc_s
        )
        return done.recipients, done.messages, done.missed_domains

    async def sample(self, query: Sample) -> list[dict[str, Any]]:
        return await orders.sample(self._scheduler, query.where, query.limit)

    def set_orders(self, standing: Standing) -> None:
        self._order_watch.set_orders(standing.orders, standing.adjustments)
        self._treatments = standing.treatments
        if self._notices is not None:
            self._notices.set_treatments(standing.treatments)

    async def explain(self, query: Explain) -> Explanation | None:
        if query.question is not None:
            return await self._explainer.of_address(query.question, with_way=query.with_way)
        return await self._explainer.of_message(query.id)

    def look(self, subject: Subject) -> tuple[int, int, list[QueueFacts]]:
        return self._explainer.look(subject)

    async def top(self, order: str, limit: int) -> SitesPart:
        return await self._top_sites.look(order, limit)

    def sites_named(self, names: list[str]) -> list[SiteRow]:
        return self._top_sites.rows_of(names)

    def _token_failed(self, login: str, reason: str) -> None:
        self.journal.log("token-failed", login=login, reason=reason)

    async def trace(self, query: Trace) -> list[dict[str, Any]]:
        if query.target is not None:
            return await self._outbound_tracing.pull(query.id, query.target, query.data_octets)
        return await self._tracing.pull(query.id, query.network, query.data_octets)

    def end_trace(self, id_: str) -> None:
        self._outbound_tracing.end(id_)
        self._tracing.end(id_)

    def refusal(self, id_: str) -> dict[str, Any] | None:
        line = self._intake.refusals.find(id_)
        return None if line is None else msgspec.json.decode(line, type=dict[str, Any])

    async def drain(self, deadline_s: float) -> None:
        """Ends inbound sessions and outbound transactions, both by the deadline. Cancelled and called again it goes on
        with what is left; a reload that is under way opens nothing more."""
        self._sweeping.cancel()
        self._order_watch.close()
        if self._notices is not None:
            self._notices.close()
        for task in self._loading:
            task.cancel()
        await asyncio.gather(
            self._listeners.drain(deadline_s),
            self._dispatcher.drain(deadline_s),
            self._maildirs.drain(deadline_s),
            self._tls_reporting.end_reporter(max(deadline_s, LAST_S)),
            *([self._handover.drain(deadline_s)] if self._handover is not None else []),
        )
        self._scheduler.close()
        for shard in self._shards:
            shard.hurry()
        await self._reporter.drain()
        await self._suppression_desk.drain()
        await self._policy.drain(min(deadline_s, OUTCOMES_S))
        for compactor in self._compactors:
            await compactor.stop()
        # What they lead to (freed ids, newer states) must be written before the shards close, or a delivery is
        # repeated.
        while self._scheduler.states_in_flight:
            await asyncio.sleep(0.01)
        # No mail is in these, and a kill behind the deadline would take what the shards have not written yet.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._tls_reporting.end_counts()
                await self._admission.close()
                sts, self._sts = self._sts, None
                if sts is not None:
                    await sts.close()
                await self._resolver.close()

    def close(self) -> None:
        """Closes the shards: what was to be written is on disk afterwards."""
        self._listeners.close()
        self._logins.close()
        self._watermark.stop()
        self._memory_watch.stop()
        self._load_watch.stop()
        self._authority.close()
        self._policy.close()
        self._report_desk.close()
        self._suppression_desk.close()
        self._recipients.close()
        for shard in self._shards:
            shard.stop()
        self._spool_watch.stop()    # the last writes may have failed, too
        for shard in self._shards:
            shard.close()
        if self._handover is not None:
            self._handover.close_shards()

    def _strange_shards(self) -> list[ForeignShard]:
        return self._handover.incoming.open_shards if self._handover is not None else []

    def _spare_octets(self) -> int:
        """Of the files kept for reuse by the shard that takes new mail; none of another size is kept."""
        return int(self._shards[0].statistics()["free_segments"]) * self._config.node.segment_size

    def _set_spool_low(self, is_low: bool) -> None:
        self._intake.is_spool_low = is_low

    def _slow_down(self, wait_s: float, is_full: bool) -> None:
        self._intake.is_queue_full = is_full
        self._intake.slowness = None if is_full or not wait_s else Slowness(wait_s)

    def _apply_bounces(self, config: Config, classifier: Classifier) -> None:
        """Before listeners are, and before the first message leaves."""
        verp, secret = None, b""
        if config.reports.verp or config.suppression.action != "off":
            secret = read_or_make(secret_path(config.node.spool, config.bounces.secret_file))
        self._suppression_desk.apply(config.suppression, Path(config.node.spool) / FILE_NAME, secret)
        if config.reports.verp:
            has_tenants = config.suppression.action != "off" and config.suppression.scope == "tenant"
            key_of = functools.partial(entry_key, secret) if has_tenants else None
            verp = Verp(config.reports.verp, [each.lower() for each in config.reports.verp_senders], secret, key_of)
        self._scheduler.classifier = classifier
        self._scheduler.verp = None if verp is None else verp.path_for
        desk = self._suppression_desk
        self._scheduler.on_failed = desk.failed if desk.counts else None
        self._scheduler.suppressed = desk.suppressed if desk.looks_at_admission else None
        self._report_desk.apply(config.reports, verp, classifier)

    def _apply_admission(self, config: Config) -> None:
        """Before listeners are: they take over what there is to hold."""
        self._intake.gate = Gate(self._tallies, config.admission)
        self._load_watch.apply(config.admission)
        self._admission.apply(config.admission, config.resolver, self._hostname, config.node.spool)

    async def _mail_report(self, sender: bytes, to: str, content: bytes) -> None:
        """Done when it is on stable storage. Raises OSError, SpoolError."""
        done: asyncio.Future[int] = self._loop.create_future()

        def told(error: int, _: int) -> None:
            if not done.done():
                done.set_result(error)

        inject(self._scheduler, self._shards[0], sender, [to.encode()], content, Flag.TLS_OPTIONAL, told)
        if error := await done:
            raise OSError(error, os.strerror(error))

    def _pools(self, config: Config) -> EgressPools:
        warmups = Warmups(config.warmup, config.shaping.provider, self._rations)
        return egress_pools(
            config.source, config.pool, config.egress, self._hostname, health=self._health, warmups=warmups
        )

    def _router(self, config: Config) -> Router:
        addresses = [listener.address for listener in config.listener if not listener.address.is_unix]
        names = [self._hostname, *(source.ehlo for source in config.source.values() if source.ehlo)]
        ourselves = Ourselves(names, [(address.host, address.port) for address in addresses])
        shaping = Shaping(config.shaping)
        return Router(
            config.all_routes(),
            self._resolver,
            ourselves,
            with_tlsa=shaping.ever_looked_up().tlsa and config.resolver.trust_ad,
            sts=self._sts,
            published=None if shaping.looks_up_alike else shaping.looked_up,
        )

    def _sts_policies(self, config: Config) -> StsPolicies | None:
        if not Shaping(config.shaping).ever_looked_up().sts:
            return None
        path = f"{config.node.spool}/mta-sts.db"

        def report(domain: str, reason: str) -> None:
            self.journal.log("sts-failed", domain=domain, reason=reason if domain else f"{path}: {reason}")

        found = StsPolicies(self._resolver, path, config.shaping.default.tls_ca, report)

        def changed(domain: str) -> None:
            policy = found.remembered(domain)
            self._scheduler.policy_changed(domain.encode(), None if policy is None else policy.rule)

        found.on_change = changed
        return found

    async def _apply_recipients(self, config: Config) -> None:
        """Before the listeners are told of the same configuration."""
        self._side_tls.shaping = Shaping(config.shaping)
        plan = self._scheduler.router.plan
        await self._recipients.apply(config.domain, config.recipients, config.bcc, plan, self._side_tls.terms)
        self._intake.own_domains = own_domain_keys(config.domain)
        self._intake.has_postmaster = names_domain(config.all_routes(), self._hostname)

    async def _load(self, shard: Shard) -> None:
        try:
            while (taken := recover(self._scheduler, shard)) >= 0:
                # A worker serves while it loads its backlog: whatever has come in meanwhile is next.
                await asyncio.sleep(0 if taken == AT_ONCE else RECOVERY_PAUSE_S)
            return_free_memory()
            if shard.statistics()["is_scan_broken"]:    # the shard's own report says why
                recovery_errors.add(1)
            compactor = Compactor(self._scheduler, shard)
            self._compactors.append(compactor)
            compactor.start()
        except AngariumError as error:
            recovery_errors.add(1)
            self.journal.log("error", where="recovery", shard=shard.name, reason=str(error))

    def _retire(self, source: CachingResolver | StsPolicies) -> None:
        """Closes a resolver, or policies, when the look-ups that were under way have ended."""
        self._loop.call_later(RETIRE_S, lambda: self._loop.create_task(source.close()))

    def _sweep(self) -> None:
        self._scheduler.sweep()
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)


def _sts_key(config: Config) -> tuple[bool, str | None]:
    return Shaping(config.shaping).ever_looked_up().sts, config.shaping.default.tls_ca


def _decoded(sockets: Sequence[tuple[str, socket.socket]]) -> list[BoundSocket]:
    return [(ListenAddress.decode(address), sock) for address, sock in sockets]


def own_shards(existing: Sequence[int], seat: Seat) -> list[int]:
    """The shards a worker opens: its own, made when missing, then the others that fall to it."""
    return [
        seat.number,
        *(shard for shard in existing if shard % seat.count == seat.number and shard != seat.number),
    ]
