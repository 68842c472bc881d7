"""From commit to outcome: what happens to recipients, over restarts too."""

from __future__ import annotations

import asyncio
import collections
import email
import pathlib
import shutil
import time

from queue_harness import MESSAGE, NextHop, Queue, run, until

from angarium.model.plan import Host, Plan, RoutingTrouble, Site, Source
from angarium.model.units import Duration, Rate
from angarium.queue import inspect, orders
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.shaping_options import ShapingOptions
from angarium.routing.egress_pool import EgressPool

HOUR_MS = 3_600_000


def test_a_message_is_delivered_and_forgotten(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example")
        await until(lambda: queue.is_empty)
        assert hop.messages == [("a@x.example", ["b@y.example"], MESSAGE)]
        (line,) = queue.events("delivered")
        assert (line["from"], line["to"], line["code"], line["attempt"]) == ("a@x.example", "b@y.example", 250, 1)
        assert queue.depth["hot_octets"] == 0
        await queue.close()

    run(test, tmp_path)


def test_recipients_of_one_site_share_a_transaction(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", "c@z.example", "d@Y.EXAMPLE")
        await until(lambda: queue.is_empty)
        assert hop.transactions == 1
        assert hop.messages[0][1] == ["b@y.example", "c@z.example", "d@Y.EXAMPLE"]
        await queue.close()

    run(test, tmp_path)


def test_a_deferred_recipient_is_tried_again_after_the_schedule_and_alone(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["later@y.example"] = "450 4.2.1 busy"
        queue = Queue(directory, await hop.start())
        await queue.send("now@y.example", "later@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        (line,) = queue.events("deferred")
        assert (line["to"], line["code"]) == ("later@y.example", 450)
        assert (line["status"], line["reply"]) == ("4.2.1", "4.2.1 busy")
        queue.wheel.advance_by_ms(500_000)          # first = 600 s, jitter 10 %
        await asyncio.sleep(0)
        assert queue.depth["deferred"] == 1
        hop.rcpt.clear()
        queue.wheel.advance_by_ms(200_000)
        await until(lambda: queue.is_empty)
        assert [recipients for _, recipients, _ in hop.messages] == [["now@y.example"], ["later@y.example"]]
        assert queue.events("delivered")[-1]["attempt"] == 2
        await queue.close()

    run(test, tmp_path)


def test_recipients_deferred_together_travel_together_again(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.end_of_data = "451 4.3.0 not now"
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", "c@y.example", "d@z.example")
        await until(lambda: queue.depth["deferred"] == 3)
        hop.end_of_data = "250 ok"
        queue.wheel.advance_by_ms(HOUR_MS)
        await until(lambda: queue.is_empty)
        assert hop.transactions == 2
        await queue.close()

    run(test, tmp_path)


def test_retry_times_attempts_and_outcomes_survive_a_restart(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["later@y.example"] = "451 4.7.1 greylisted"
        site = await hop.start()
        queue = Queue(directory, site)
        await queue.send("now@y.example", "later@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        before = (await orders.listing(queue.scheduler))[1][0]
        await queue.close()

        hop.rcpt.clear()
        queue = Queue(directory, site)
        await queue.recover()
        after = (await orders.listing(queue.scheduler))[1][0]
        assert after["id"] == before["id"]
        assert after["waiting"] == 1 and after["recipients"] == 2
        assert abs(after["next_attempt_utc_s"] - before["next_attempt_utc_s"]) < 3
        shown = await orders.show(queue.scheduler, after["id"])
        assert shown is not None and shown["from"] == "a@x.example"
        assert [each["outcome"] for each in shown["recipients"]] == ["delivered", "waiting"]
        assert shown["recipients"][1]["attempts"] == 1
        assert shown["recipients"][1]["reply"] == "4.7.1 greylisted"
        queue.wheel.advance_by_ms(HOUR_MS)
        await until(lambda: queue.is_empty)
        assert hop.recipients() == ["later@y.example", "now@y.example"]
        await queue.close()

    run(test, tmp_path)


def test_mail_waiting_in_the_queue_is_delivered_after_a_restart(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site)
        queue.router.slow.add(b"y.example")         # never routed before the stop
        for number in range(50):
            await queue.send(f"r{number}@y.example")
        await queue.close()
        queue = Queue(directory, site)
        await queue.recover()
        await until(lambda: queue.is_empty)
        assert hop.recipients() == sorted(f"r{number}@y.example" for number in range(50))
        await queue.close()
        queue = Queue(directory, site)
        await queue.recover()
        assert queue.is_empty
        await queue.close()

    run(test, tmp_path)


def test_a_permanent_failure_is_reported_to_the_sender_with_the_reply(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["gone@y.example"] = "550 5.1.1 no such user"
        queue = Queue(directory, await hop.start())
        await queue.send("gone@y.example", "here@y.example")
        await until(lambda: queue.is_empty)
        report = next(each for each in hop.messages if each[0] == "")
        assert report[1] == ["a@x.example"]
        parsed = email.message_from_bytes(report[2])
        assert parsed.get_content_type() == "multipart/report"
        status = parsed.get_payload()[1].get_payload()
        assert status[1]["Final-Recipient"] == "rfc822; gone@y.example"
        assert status[1]["Status"] == "5.1.1" and status[1]["Action"] == "failed"
        assert "no such user" in status[1]["Diagnostic-Code"]
        assert len(status) == 2                     # nothing of the one that was delivered
        assert parsed.get_payload()[2].get_payload()[0]["Subject"] == "test"
        await queue.close()

    run(test, tmp_path)


def test_a_report_of_a_message_that_requires_tls_requires_it_too(tmp_path):
    """RFC 8689 §5: it holds the header of the message. Here no host will do for either, so nobody is told."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", flags=2048)
        await until(lambda: queue.is_empty)
        of_message, of_report = queue.events("failed")
        assert (of_message["to"], of_message["status"]) == ("b@y.example", "5.7.10")
        assert (of_report["to"], of_report["status"]) == ("a@x.example", "5.7.10")
        assert not hop.messages
        await queue.close()

    run(test, tmp_path)


def test_failures_of_one_message_at_several_domains_make_one_report(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        for name in ("u.example", "v.example", "w.example"):
            queue.router.by_domain[name.encode()] = RoutingTrouble(True, (5, 1, 2), f"no {name}")
        await queue.send("1@u.example", "2@v.example", "3@w.example", "4@y.example")
        await until(lambda: queue.is_empty)
        reports = [each for each in hop.messages if each[0] == ""]
        assert len(reports) == 1
        assert len(email.message_from_bytes(reports[0][2]).get_payload()[1].get_payload()) == 4
        await queue.close()

    run(test, tmp_path)


def test_a_null_reverse_path_never_gets_a_report(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["gone@y.example"] = "550 5.1.1 no such user"
        queue = Queue(directory, await hop.start())
        await queue.send("gone@y.example", sender="")
        await until(lambda: queue.is_empty)
        assert hop.messages == []
        await queue.close()

    run(test, tmp_path)


def test_a_report_that_fails_makes_no_report(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["gone@y.example"] = "550 5.1.1 no such user"
        hop.rcpt["a@x.example"] = "550 5.1.1 nor this one"
        queue = Queue(directory, await hop.start())
        await queue.send("gone@y.example")
        await until(lambda: queue.is_empty and len(queue.events("failed")) == 2)
        assert hop.messages == []
        await queue.close()

    run(test, tmp_path)


def test_a_message_too_old_expires_with_status_4_4_7_and_a_report(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["slow@y.example"] = "450 4.2.1 busy"
        site = await hop.start()
        for max_age_s in (1.5, 8.0):    # the longer one where the shorter was over before the first attempt
            options = QueueOptions(retry=RetryOptions(first=Duration(1), max=Duration(1)), max_age=Duration(max_age_s))
            queue = Queue(directory / f"{max_age_s}", site, options=options)
            await queue.send("slow@y.example")
            await until(lambda queue=queue: queue.is_empty)
            expired, deferred = queue.events("expired"), queue.events("deferred")
            await queue.close()
            if deferred:
                break
        assert len(expired) == 1 and deferred
        report = next(each for each in hop.messages if each[0] == "")
        assert b"Status: 4.4.7" in report[2] and b"450" in report[2]

    run(test, tmp_path)


def test_unknown_domain_fails_and_dns_trouble_waits(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        queue.router.by_domain[b"nowhere.example"] = RoutingTrouble(True, (5, 1, 2), "no such domain")
        queue.router.by_domain[b"servfail.example"] = RoutingTrouble(False, (4, 4, 3), "server failure")
        await queue.send("b@nowhere.example", "c@servfail.example")
        await until(lambda: queue.events("failed") and queue.depth["deferred"] == 1)
        assert queue.events("failed")[0]["status"] == "5.1.2"
        assert queue.events("deferred")[0]["reply"] == "server failure"
        await queue.close()

    run(test, tmp_path)


def test_one_look_up_serves_all_who_wait_for_a_domain(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        queue.router.slow.add(b"y.example")
        for number in range(20):
            await queue.send(f"r{number}@y.example")
        await until(lambda: queue.router.asked)
        assert queue.router.asked == [b"y.example"]
        assert queue.scheduler.domain_queues()[0].unrouted == 20
        queue.router.go_on.set()
        await until(lambda: queue.is_empty)
        assert len(hop.recipients()) == 20
        await queue.close()

    run(test, tmp_path)


def test_a_look_up_whose_answer_makes_no_sense_strands_nobody(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        queue = Queue(directory, await NextHop().start())
        queue.router.slow.add(b"odd.example")
        queue.router.by_domain[b"odd.example"] = None  # type: ignore[assignment]
        queue.router.go_on.set()
        await queue.send("a@odd.example")
        await until(lambda: queue.depth["deferred"] == 1)
        assert '"event":"error"' in queue.log_path.read_text()
        await queue.close()

    run(test, tmp_path)


def test_a_domain_whose_plan_is_over_does_not_wait_behind_those_that_nobody_has_seen(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site)
        router = queue.router
        over_mono_s = 0.0

        async def plan(domain: bytes) -> Plan:
            nonlocal over_mono_s
            router.asked.append(domain)
            if domain == b"known.example":
                if over_mono_s:
                    return Plan(site, float("inf"))
                over_mono_s = time.monotonic() + 0.2
                return Plan(site, over_mono_s)
            await router.go_on.wait()
            return Plan(site, float("inf"))

        router.slow.add(b"known.example")
        router.slow.update(b"cold%d.example" % number for number in range(300))
        router.plan = plan
        await queue.send("a@known.example")
        await until(lambda: queue.is_empty and time.monotonic() > over_mono_s)
        for first in range(0, 300, 100):
            await queue.send(*(f"a@cold{number}.example" for number in range(first, first + 100)))
        await until(lambda: len(router.asked) == 1 + 171)       # as many as are asked for at once for one tenant
        await queue.send("b@known.example")
        router.go_on.set()
        await until(lambda: queue.is_empty)
        assert b"known.example" in router.asked[172:174]
        assert len(router.asked) == 302
        await queue.close()

    run(test, tmp_path)


def test_few_look_ups_begin_in_one_turn_of_the_loop(tmp_path):
    """Hundreds in one turn made it 50 ms long, and mail whose way is known waited for the end of it."""

    async def test(directory: pathlib.Path) -> None:
        loop = asyncio.get_running_loop()
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site)
        turn = 0
        begun: collections.Counter[int] = collections.Counter()

        def next_turn() -> None:
            nonlocal turn, probe
            turn += 1
            probe = loop.call_soon(next_turn)

        async def plan(domain: bytes) -> Plan:
            begun[turn] += 1
            return Plan(site, float("inf"))

        domains = [f"cold{number}.example" for number in range(100)]
        queue.router.slow.update(each.encode() for each in domains)
        queue.router.plan = plan  # type: ignore[method-assign]
        probe = loop.call_soon(next_turn)
        await queue.send(*(f"b@{each}" for each in domains))
        await until(lambda: queue.is_empty)
        probe.cancel()
        assert len(hop.recipients()) == 100
        assert begun.total() == 100
        assert max(begun.values()) <= 16, begun
        await queue.close()

    run(test, tmp_path)


def test_senders_with_routes_of_their_own_queue_apart_also_after_a_restart(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        site, other_site = await hop.start(), await other.start()
        down = RoutingTrouble(False, (4, 4, 3), "not now")

        def open_queue() -> Queue:
            queue = Queue(directory, site)
            routed = {b"vip@x.example": b"<vip@x.example", b"": b"<<>"}
            queue.router.route_of_sender = routed.get
            queue.scheduler.plan_anew(router=queue.router, pool=queue.scheduler.pool, shaping=ShapingOptions())
            return queue

        queue = open_queue()
        queue.router.by_domain[b"y.example"] = queue.router.by_domain[b"y.example\0<vip@x.example"] = down
        await queue.send("b@Y.example", "c@y.example")
        id_ = await queue.send("d@y.example", sender="vip@x.example")
        await until(lambda: queue.depth["deferred"] == 3)
        found = sorted((domain.domain, domain.route, domain.count) for domain in queue.scheduler.domain_queues())
        assert found == [(b"y.example", b"", 2), (b"y.example", b"<vip@x.example", 1)]
        shown = inspect.show(queue.scheduler, id_)
        assert (shown["domains"], shown["recipients"][0]["route"]) == (["y.example"], "from vip@x.example")
        await queue.close()

        queue = open_queue()
        queue.router.by_domain[b"y.example\0<vip@x.example"] = other_site
        await queue.recover()
        assert await orders.retry(queue.scheduler, domain="y.example") == 3
        await until(lambda: queue.is_empty)
        assert (hop.recipients(), other.recipients()) == (["b@Y.example", "c@y.example"], ["d@y.example"])
        await queue.close()

    run(test, tmp_path)


def test_what_does_not_fit_in_memory_is_read_back(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), hot_limit_octets=0)
        bodies = [MESSAGE + b"%d\r\n" % number * 100 for number in range(20)]
        for number, body in enumerate(bodies):
            await queue.send(f"r{number}@y.example", body=body)
        await until(lambda: queue.is_empty)
        assert sorted(body for _, _, body in hop.messages) == sorted(bodies)
        assert queue.depth["hot_octets"] == 0
        await queue.close()

    run(test, tmp_path)


def test_a_dead_site_defers_all_its_mail_and_recovers(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        hop.stop()                                  # nobody listens there any more
        queue = Queue(directory, site)
        for number in range(5):
            await queue.send(f"r{number}@y.example")
        await until(lambda: queue.depth["deferred"] == 5)
        assert {line["status"] for line in queue.events("deferred")} == {"4.4.1"}
        await queue.close()

    run(test, tmp_path)


def test_new_routes_take_mail_out_of_ready_queues(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        good = await hop.start()
        # A site that accepts connections and never greets: mail for it stays in its ready queue.
        held: list[object] = []         # Python 3.13 closes a connection whose writer nobody keeps
        silent = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        bad = Site("smtp://silent", "smtp", (Host("silent", ("127.0.0.1",), port),))
        queue = Queue(directory, bad, shaping=ShapingOptions(connections=1))
        for number in range(5):
            await queue.send(f"r{number}@y.example")
        assert queue.depth["ready"] == 5
        queue.router.default = good
        scheduler = queue.scheduler
        scheduler.reconfigure(
            router=queue.router, pool=scheduler.pool, shaping=ShapingOptions(), options=scheduler.options
        )
        await until(lambda: queue.is_empty)
        assert len(hop.recipients()) == 5
        silent.close()
        await queue.close()

    run(test, tmp_path)


def test_the_rate_limit_spaces_messages(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=ShapingOptions(message_rate=Rate.decode("2/s")))
        begun = time.monotonic()
        await asyncio.gather(*(queue.send(f"r{number}@y.example") for number in range(4)))
        await until(lambda: len(hop.messages) >= 1)
        # Burst of one; the next may go half a second later.
        assert len(hop.messages) <= 1 + (time.monotonic() - begun) / 0.5
        await until(lambda: queue.is_empty)
        assert len(hop.messages) == 4 and time.monotonic() - begun > 1.4        # three intervals, less what ticks round
        await queue.close()

    run(test, tmp_path)


def test_orders_retry_and_delete_by_id_and_by_domain(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        for name in ("1@u.example", "2@u.example", "3@v.example", "4@v.example"):
            hop.rcpt[name] = "450 4.2.1 busy"
        queue = Queue(directory, await hop.start())
        for name in list(hop.rcpt):
            await queue.send(name)
        await until(lambda: queue.depth["deferred"] == 4)
        scheduler = queue.scheduler
        _, listed = await orders.listing(scheduler, domain="u.example")
        assert [each["domains"] for each in listed] == [["u.example"], ["u.example"]]
        assert await orders.delete(scheduler, id=listed[0]["id"]) == 1
        # Its last state record may still be on its way to the disk; it is gone behind that.
        await until(lambda: queue.depth["messages"] == 3)
        assert await orders.show(scheduler, listed[0]["id"]) is None
        assert await orders.delete(scheduler, domain="v.example") == 2
        assert len(queue.events("deleted")) == 3
        hop.rcpt.clear()
        assert await orders.retry(scheduler, id=listed[1]["id"].lower()) == 1
        await until(lambda: queue.is_empty)
        assert len(hop.recipients()) == 1
        assert await orders.delete(scheduler, id="nonsense") == 0
        await queue.close()

    run(test, tmp_path)


def test_orders_for_a_domain_leave_other_recipients_of_a_message_alone(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["1@u.example"] = hop.rcpt["2@v.example"] = "450 4.2.1 busy"
        queue = Queue(directory, await hop.start())
        await queue.send("1@u.example", "2@v.example")
        await until(lambda: queue.depth["deferred"] == 2)
        assert await orders.delete(queue.scheduler, domain="u.example") == 1
        (line,) = queue.events("deleted")
        assert (line["from"], line["to"]) == ("a@x.example", "1@u.example")
        hop.rcpt.clear()
        assert await orders.retry(queue.scheduler, domain="u.example") == 0
        assert await orders.retry(queue.scheduler, domain="v.example") == 1
        await until(lambda: queue.is_empty)
        assert hop.recipients() == ["2@v.example"]
        await queue.close()

    run(test, tmp_path)


def test_recipients_of_a_message_share_one_of_several_sources(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        scheduler = queue.scheduler
        pool = EgressPool({Source("a", "127.0.0.1", "a.example"): 1, Source("b", "127.0.0.1", "b.example"): 1})
        scheduler.reconfigure(
            router=queue.router, pool=pool, shaping=ShapingOptions(), options=scheduler.options
        )
        for _ in range(30):
            await queue.send("1@u.example", "2@v.example", "3@w.example")
        await until(lambda: queue.is_empty)
        assert hop.transactions == 30
        assert {line["source"] for line in queue.events("delivered")} == {"a", "b"}
        await queue.close()

    run(test, tmp_path)


def test_listing_goes_page_by_page_over_the_whole_queue(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        queue.router.slow.add(b"y.example")
        sent = {await queue.send(f"r{number}@y.example") for number in range(45)}
        cursor, seen = 0, []
        while cursor >= 0:
            cursor, page = await orders.listing(queue.scheduler, limit=10, cursor=cursor)
            assert len(page) <= 10
            seen += [each["id"] for each in page]
        assert len(seen) == len(set(seen)) == len(sent)
        await queue.close()

    run(test, tmp_path)


def test_sweeping_forgets_domains_that_nobody_needs(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        queue.router.by_domain[b"u.example"] = RoutingTrouble(True, (5, 1, 2), "no such domain")
        await queue.send("b@u.example", sender="")
        await until(lambda: queue.is_empty)
        assert queue.scheduler.sweep() == 1
        assert queue.scheduler.domain_queues() == []
        await queue.close()

    run(test, tmp_path)


def test_sweeping_forgets_troubles_that_no_recipient_has(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["one@y.example"] = hop.rcpt["two@y.example"] = "450 4.2.1 busy"
        hop.rcpt["three@y.example"] = "451 4.3.0 full"
        queue = Queue(directory, await hop.start())
        await queue.send("one@y.example")
        await queue.send("two@y.example")
        await queue.send("three@y.example")
        await until(lambda: queue.depth["deferred"] == 3)
        troubles = queue.scheduler.troubles
        queue.scheduler.sweep()
        assert len(troubles) == 2, "one for the two with the same reply"
        del hop.rcpt["one@y.example"], hop.rcpt["three@y.example"]
        queue.wheel.advance_by_ms(700_000)
        await until(lambda: queue.depth["messages"] == 1)
        queue.scheduler.sweep()
        await until(lambda: len(troubles) == 1)
        await queue.close()

    run(test, tmp_path)


def test_what_is_known_of_one_recipient_does_not_wait_for_another_site(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop, slow = NextHop(), NextHop()
        slow.is_held = True
        queue = Queue(directory / "one", await hop.start())
        queue.router.by_domain[b"slow.example"] = await slow.start()
        await queue.send("now@y.example", "later@slow.example")
        await until(lambda: slow.transactions == 1 and queue.events("delivered"))
        await until(lambda: queue.shard.statistics()["records"] == 3)      # envelope, body, outcome
        shutil.copytree(directory / "one", directory / "crashed")
        slow.release()
        await until(lambda: queue.is_empty)
        await queue.close()

        queue = Queue(directory / "crashed", await hop.start())
        queue.router.slow.update((b"y.example", b"slow.example"))
        await queue.recover()
        (found,) = (await orders.listing(queue.scheduler))[1]
        shown = await orders.show(queue.scheduler, found["id"])
        assert shown is not None
        assert [each["outcome"] for each in shown["recipients"]] == ["delivered", "waiting"]
        await queue.close()

    run(test, tmp_path)
