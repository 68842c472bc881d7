"""Policies of MTA-STS and the mail that waits: while one is fetched nobody else waits; one that comes is heeded."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator

from dns_table import DnsTable
from queue_harness import NextHop, Queue, run, until
from tls import authority
from tls.test_sts import POLICY, web

from angarium.model.plan import Site, StsRule
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ShapingOptions
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router
from angarium.spool.envelope import Attribute
from angarium.tls.sts_policies import StsPolicies

MORE_THAN_SLOTS = 300


class Silent:
    """Takes connections and says nothing."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError):
            while await reader.read(1024):
                pass
        writer.close()

    def end(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


HEEDED = ShapingOptions(connections=1, mta_sts=True)


class Routed:
    """A queue whose domains are looked up in a table, and their policies fetched from `sts_port`."""

    def __init__(
        self,
        directory: pathlib.Path,
        hop: NextHop,
        queue: Queue,
        *,
        dns: DnsTable,
        sts_port: int,
        shaping: ShapingOptions,
    ) -> None:
        self.queue = queue
        self.policies = StsPolicies(
            dns, None, authority.write_authority(directory), lambda domain, reason: None, port=sts_port
        )
        self.policies.on_change = self._changed
        ourselves = Ourselves(["relay.example"], [])
        router = Router([], dns, ourselves, port=hop.port, sts=self.policies)
        scheduler = queue.scheduler
        scheduler.reconfigure(
            router=router, pool=scheduler.pool, shaping=Shaping(shaping), options=scheduler.options
        )

    def _changed(self, domain: str) -> None:
        policy = self.policies.remembered(domain)
        self.queue.scheduler.policy_changed(domain.encode(), None if policy is None else policy.rule)


@contextlib.asynccontextmanager
async def routed(
    directory: pathlib.Path, dns: DnsTable, sts_port: int, shaping: ShapingOptions
) -> AsyncIterator[tuple[Routed, NextHop]]:
    hop = NextHop()
    queue = Queue(directory, await hop.start(), shaping=shaping)
    found = Routed(directory, hop, queue, dns=dns, sts_port=sts_port, shaping=shaping)
    try:
        yield found, hop
    finally:
        await found.policies.close()
        await queue.close()
        hop.stop()


def test_policies_whose_servers_never_answer_keep_no_other_domain_waiting(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        silent = Silent()
        server = await asyncio.start_server(silent.serve, "127.0.0.1", 0)
        dns = DnsTable({"mx.example A": "127.0.0.1", "quick.example MX": "10 mx.example"})
        for number in range(MORE_THAN_SLOTS):
            name = f"d{number}.example"
            dns.rows |= {f"{name} MX": "10 mx.example", f"mta-sts.{name} A": "127.0.0.1"}
            dns.rows[f"_mta-sts.{name} TXT"] = "v=STSv1; id=1;"
        port = server.sockets[0].getsockname()[1]
        async with routed(directory, dns, port, ShapingOptions()) as (relay, hop):
            for number in range(MORE_THAN_SLOTS):
                await relay.queue.send(f"b@d{number}.example")
            await until(lambda: len(silent.writers) >= 20)
            announced = {f"_mta-sts.d{number}.example TXT" for number in range(MORE_THAN_SLOTS)}
            await until(lambda: announced <= set(dns.asked))
            await relay.queue.send("b@quick.example", "c@[127.0.0.1]")
            await until(lambda: len(hop.recipients()) == 2)
            assert hop.recipients() == ["b@quick.example", "c@[127.0.0.1]"]
            # More mail for a domain that waits asks for nothing again.
            asked = len(dns.asked)
            await relay.queue.send("more@d0.example")
            server.close()
            silent.end()                # nobody takes connections any more: every fetch fails
            await until(lambda: len(hop.recipients()) == 2 + MORE_THAN_SLOTS + 1, 20)
            assert dns.asked.count("d0.example MX") == 2 and len(dns.asked) > asked

    run(test, tmp_path)


def test_a_wait_that_a_reload_meets_is_begun_anew(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        silent = Silent()
        server = await asyncio.start_server(silent.serve, "127.0.0.1", 0)
        dns = DnsTable({"mx.example A": "127.0.0.1", "d.example MX": "10 mx.example"})
        dns.rows |= {"mta-sts.d.example A": "127.0.0.1", "_mta-sts.d.example TXT": "v=STSv1; id=1;"}
        port = server.sockets[0].getsockname()[1]
        async with routed(directory, dns, port, ShapingOptions()) as (relay, hop):
            await relay.queue.send("b@d.example")
            await until(lambda: len(silent.writers) == 1)
            before = relay.policies
            async with web() as there:
                there.content = POLICY.replace(b"mx.d.example", b"mx.example").replace(b"enforce", b"testing")
                Routed(directory, hop, relay.queue, dns=dns, sts_port=there.port, shaping=ShapingOptions())
                await before.close()
                await until(lambda: len(hop.recipients()) == 1)
                assert there.requests, "the new router waits for the policy, too"
        server.close()

    run(test, tmp_path)


def test_mail_that_waits_heeds_a_policy_that_comes(tmp_path: pathlib.Path) -> None:
    """It used to go over connections that were opened without, as long as anything waited in their ready queue."""

    async def test(directory: pathlib.Path) -> None:
        dns = DnsTable({"mx.example A": "127.0.0.1", "other.example MX": "10 mx.example"})
        dns.rows |= {"d.example MX": "10 mx.example", "mta-sts.d.example A": "127.0.0.1"}
        async with web() as server, routed(directory, dns, server.port, HEEDED) as (relay, hop):
            hop.is_held = True
            await relay.queue.send("first@d.example")
            await until(lambda: hop.transactions == 1)
            for number in range(5):
                await relay.queue.send(f"b{number}@d.example")
                await relay.queue.send(f"b{number}@other.example")
            # Another domain queue, with a plan of its own.
            await relay.queue.send("own@d.example", attributes={Attribute.ROUTE: b"mx"})
            # The policy names hosts that mx.example is none of.
            dns.rows["_mta-sts.d.example TXT"] = "v=STSv1; id=1;"
            found = await relay.policies.find("d.example")
            assert found.rule is not None and found.rule.mode == "enforce"
            queues = relay.queue.scheduler.ready_queues
            await until(lambda: {ready.site.sts for ready in queues() if ready.count} == {None, found.rule})
            hop.release()
            await until(lambda: relay.queue.scheduler.depth()["deferred"] == 6)
            await until(lambda: len(hop.recipients()) >= 6)
            assert [each for each in hop.recipients() if "d.example" in each] == ["first@d.example"]
            reasons = {each["reply"] for each in relay.queue.events("deferred")}
            assert all("MTA-STS" in reason for reason in reasons), reasons

    run(test, tmp_path)


def test_a_change_that_new_plans_do_not_bear_out_loses_no_mail(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        dns = DnsTable({"mx.example A": "127.0.0.1", "d.example MX": "10 mx.example"})
        async with routed(directory, dns, 1, ShapingOptions(connections=1)) as (relay, hop):
            hop.is_held = True
            await relay.queue.send("first@d.example")
            await until(lambda: hop.transactions == 1)
            await relay.queue.send("second@d.example")
            relay.queue.scheduler.policy_changed(b"d.example", StsRule("enforce", ("other.example",)))
            hop.release()
            await until(lambda: len(hop.recipients()) == 2)

    run(test, tmp_path)


def test_a_policy_that_comes_while_a_queue_is_routed_again_meets_its_first_half_too(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        hop.is_held = True
        site = Site("mx.example", "smtp", (await hop.start()).hosts)
        queue = Queue(directory, site, shaping=ShapingOptions(connections=1))
        for number in range(5):
            await queue.send(*(f"r{number}-{each}@y.example" for each in range(500)))
        await until(lambda: hop.transactions)
        scheduler = queue.scheduler
        scheduler.plan_anew(router=queue.router, pool=scheduler.pool, shaping=scheduler.shaping)    # in slices of 500
        queue.router.by_domain[b"y.example"] = await other.start()
        scheduler.policy_changed(b"y.example", StsRule("testing", ("*.example",)))
        in_hand = 2500 - queue.depth["ready"]
        assert in_hand <= 200
        await until(lambda: len(other.recipients()) == 2500 - in_hand)
        hop.release()
        await until(lambda: queue.is_empty)
        await queue.close()
        hop.stop()
        other.stop()

    run(test, tmp_path)
