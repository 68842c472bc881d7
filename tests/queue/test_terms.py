"""What attributes of an envelope ask of the queue: holds, by-times, priorities; and reports of delays."""

from __future__ import annotations

import asyncio
import email
import email.message
import itertools
import pathlib
import time

import pytest
from queue_harness import NextHop, Queue, run, until

from angarium.model.units import Duration
from angarium.queue import orders
from angarium.queue.inspect import id_text
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.shaping_options import ShapingOptions
from angarium.spool.envelope import Attribute, Flag

DELAY = 8
NEVER = 1
HOUR_MS = 3_600_000


def reports(hop: NextHop) -> list[email.message.Message]:
    return [email.message_from_bytes(body) for sender, _, body in hop.messages if not sender]


def by_time(seconds: float, mode: str) -> dict[int, bytes]:
    return {Attribute.DELIVER_BY: b"%d;%s" % (time.time() + seconds, mode.encode())}


def held_for(seconds: float) -> dict[int, bytes]:
    return {Attribute.HOLD_UNTIL: b"%d" % (time.time() + seconds)}


# ---- FUTURERELEASE (RFC 4865) ----


def test_a_held_message_goes_when_its_time_has_come(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", "c@y.example", attributes=held_for(3600))
        await queue.send("d@y.example")
        await until(lambda: hop.messages)
        assert queue.depth["deferred"] == 2
        assert queue.depth["hot_octets"] == 0, "what waits for hours is not kept in memory"
        queue.wheel.advance_by_ms(HOUR_MS - 60_000)
        await asyncio.sleep(0)
        assert queue.depth["deferred"] == 2
        queue.wheel.advance_by_ms(120_000)
        await until(lambda: queue.is_empty)
        assert hop.recipients() == ["b@y.example", "c@y.example", "d@y.example"]
        assert [line["attempt"] for line in queue.events("delivered")] == [1, 1, 1]
        await queue.close()

    run(test, tmp_path)


def test_a_hold_is_shown_and_survives_a_restart(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site)
        id = await queue.send("b@y.example", attributes=held_for(3600))
        await queue.close()
        queue = Queue(directory, site)
        await queue.recover()
        assert queue.depth["deferred"] == 1
        shown = await orders.show(queue.scheduler, id_text(id))
        assert shown is not None
        assert shown["places"] == ["held"]
        assert shown["hold_until_utc_s"] == pytest.approx(time.time() + 3600, abs=60)
        queue.wheel.advance_by_ms(HOUR_MS + 60_000)
        await until(lambda: queue.is_empty)
        assert hop.recipients() == ["b@y.example"]
        await queue.close()

    run(test, tmp_path)


# ---- DELIVERY BY (RFC 2852) ----


def test_by_mode_r_returns_what_was_not_delivered_in_time(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["b@y.example"] = "450 4.2.1 busy"
        hop.extensions = ["PIPELINING", "DELIVERBY"]
        options = QueueOptions(retry=RetryOptions(first=Duration(86400), max=Duration(86400)))
        queue = Queue(directory, await hop.start(), options=options)
        await queue.send("b@y.example", attributes=by_time(600, "R"))
        await until(lambda: queue.depth["deferred"] == 1)
        queue.wheel.advance_by_ms(590_000)
        await asyncio.sleep(0)
        assert not queue.events("failed")
        queue.wheel.advance_by_ms(20_000)
        await until(lambda: queue.is_empty)
        (line,) = queue.events("failed")
        assert line["status"] == "5.4.7"
        (report,) = reports(hop)
        assert "Status: 5.4.7" in report.as_string()
        assert "Action: failed" in report.as_string()
        await queue.close()

    run(test, tmp_path)


def test_a_by_time_that_passed_while_nobody_ran_is_kept_at_start(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["b@y.example"] = "450 4.2.1 busy"
        hop.extensions = ["PIPELINING", "DELIVERBY"]
        site = await hop.start()
        for left_s in (2, 10):          # the longer one where the shorter is over before the first attempt
            sent = time.time()
            queue = Queue(directory / f"{left_s}", site)
            await queue.send("b@y.example", attributes=by_time(left_s, "R"))
            await until(lambda queue=queue: queue.depth["deferred"] == 1 or queue.events("failed"))
            is_tried = not queue.events("failed")
            await queue.close()
            if is_tried:
                break
        await until(lambda: time.time() > sent + left_s)
        queue = Queue(directory / f"{left_s}", site)
        await queue.recover()
        await until(lambda: queue.is_empty)
        (line,) = queue.events("failed")
        assert line["status"] == "5.4.7"
        await queue.close()

    run(test, tmp_path)


def test_by_mode_r_does_not_go_to_a_host_that_does_not_know_it(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", attributes=by_time(600, "R"))
        await until(lambda: queue.is_empty)
        (line,) = queue.events("failed")
        assert line["status"] == "5.4.7"
        assert [sender for sender, _, _ in hop.messages] == [""]
        await queue.close()

    run(test, tmp_path)


def test_by_mode_n_tells_once_and_goes_on(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["b@y.example"] = "450 4.2.1 busy"
        hop.extensions = ["PIPELINING", "DELIVERBY"]
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", attributes=by_time(60, "N"))
        await until(lambda: queue.depth["deferred"] == 1)
        queue.wheel.advance_by_ms(70_000)
        await until(lambda: len(reports(hop)) == 1)
        text = reports(hop)[0].as_string()
        assert "Action: delayed" in text
        assert "Will-Retry-Until:" in text
        hop.rcpt.clear()
        queue.wheel.advance_by_ms(HOUR_MS)
        await until(lambda: queue.is_empty)
        assert len(reports(hop)) == 1
        assert hop.recipients() == ["a@x.example", "b@y.example"]
        await queue.close()

    run(test, tmp_path)


def test_a_delay_by_by_time_says_so_to_programs(tmp_path):
    """RFC 2852 §4.1.3: status 4.4.7; §5: Deliver-By-Date beside Arrival-Date."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["b@y.example"] = "450 4.2.1 busy"
        hop.extensions = ["PIPELINING", "DELIVERBY"]
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", attributes={Attribute.DELIVER_BY: b"1764000000;N"})
        await until(lambda: queue.depth["deferred"] == 1)
        queue.wheel.advance_by_ms(1000)
        await until(lambda: len(reports(hop)) == 1)
        text = reports(hop)[0].as_string()
        assert "Action: delayed\n" in text
        assert "Status: 4.4.7\n" in text
        assert "Deliver-By-Date: Mon, 24 Nov 2025 16:00:00 +0000\n" in text
        assert "Arrival-Date: " in text
        assert "Future-Release-Request" not in text
        await queue.close()

    run(test, tmp_path)


@pytest.mark.parametrize(
    ("hold", "request_said"),
    [
        (b"1764000000;F3600", "Future-Release-Request: for;3600\n"),
        (b"1764000000;U", "Future-Release-Request: until;2025-11-24T16:00:00Z\n"),
        (b"1764000000", None),
    ],
)
def test_a_report_on_a_message_that_was_held_repeats_the_request(tmp_path, hold, request_said):
    """RFC 4865 §5.1.2: MUST. What a hook held, nobody asked for."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["b@y.example"] = "550 5.1.1 no"
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", attributes={Attribute.HOLD_UNTIL: hold})
        await until(lambda: queue.is_empty)
        text = reports(hop)[0].as_string()
        assert "Arrival-Date: " in text
        assert ("Future-Release-Request" in text) == (request_said is not None)
        assert (request_said or "") in text
        await queue.close()

    run(test, tmp_path)


@pytest.mark.parametrize(
    ("mode", "extensions", "notify", "is_told"),
    [
        ("N", ["PIPELINING"], 0, True),
        ("N", ["PIPELINING", "DELIVERBY"], 0, False),
        ("NT", ["PIPELINING", "DELIVERBY"], 0, True),
        ("RT", ["PIPELINING", "DELIVERBY"], 4, True),
        ("NT", ["PIPELINING", "DELIVERBY"], NEVER, False),
        ("N", ["PIPELINING"], NEVER, False),
    ],
)
def test_relayed_is_told_for_trace_and_where_the_way_of_a_by_time_ends(tmp_path, mode, extensions, notify, is_told):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.extensions = extensions
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", notify=notify, attributes=by_time(600, mode))
        await until(lambda: queue.is_empty)
        assert len(reports(hop)) == is_told
        if is_told:
            assert "Action: relayed" in reports(hop)[0].as_string()
        await queue.close()

    run(test, tmp_path)


# ---- MT-PRIORITY (RFC 6710) ----


def test_higher_priorities_go_first(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.is_held = True
        queue = Queue(directory, await hop.start(), shaping=ShapingOptions(connections=1))
        await queue.send("first@y.example")
        await until(lambda: hop.transactions == 1)
        for priority in (0, -9, 3, 0, 9, -1, 3):
            attributes = {Attribute.PRIORITY: b"%d" % priority} if priority else None
            await queue.send(f"p{priority}@y.example", attributes=attributes)
        hop.release()
        await until(lambda: queue.is_empty)
        order = [recipients[0].split("@")[0] for _, recipients, _ in hop.messages]
        assert order[1:] == ["p9", "p3", "p3", "p0", "p0", "p-1", "p-9"]
        await queue.close()

    run(test, tmp_path)


def test_lower_priorities_do_not_wait_for_ever(tmp_path):
    """Every sixteenth message is one of those that would wait, of each lower priority in turn."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.is_held = True
        queue = Queue(directory, await hop.start(), shaping=ShapingOptions(connections=1))
        await queue.send("first@y.example")
        await until(lambda: hop.transactions == 1)
        for priority, count in ((-9, 3), (0, 3), (4, 3), (9, 100)):
            attributes = {Attribute.PRIORITY: b"%d" % priority} if priority else None
            for _ in range(count):
                await queue.send(f"p{priority}@y.example", attributes=attributes)
        hop.release()
        await until(lambda: queue.is_empty)
        order = [recipients[0].split("@")[0] for _, recipients, _ in hop.messages][1:]
        turns = [index for index, name in enumerate(order[:96]) if name != "p9"]
        assert [order[index] for index in turns] == ["p4", "p0", "p-9", "p4", "p0", "p-9"]
        assert {later - earlier for earlier, later in itertools.pairwise(turns)} == {16}
        assert order[-3:] == ["p4", "p0", "p-9"], "when none of the first is left, the others go by priority"
        await queue.close()

    run(test, tmp_path)


def test_a_report_has_the_priority_of_its_message(tmp_path):
    """RFC 6710 §4.6."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["b@y.example"] = "550 5.1.1 no"
        hop.extensions = ["PIPELINING", "MT-PRIORITY"]
        queue = Queue(directory, await hop.start())
        await queue.send("b@y.example", attributes={Attribute.PRIORITY: b"5"})
        await until(lambda: queue.is_empty)
        assert len(reports(hop)) == 1
        assert [line for line in hop.mails if line.startswith("MAIL FROM:<>")] == ["MAIL FROM:<> MT-PRIORITY=5"]
        await queue.close()

    run(test, tmp_path)


def test_priorities_are_known_again_after_a_restart(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site)
        id = await queue.send("b@y.example", attributes={**held_for(3600), Attribute.PRIORITY: b"-3"})
        await queue.close()
        queue = Queue(directory, site)
        await queue.recover()
        shown = await orders.show(queue.scheduler, id_text(id))
        assert shown is not None
        assert shown["priority"] == -3
        await queue.close()

    run(test, tmp_path)


# ---- DELAY (RFC 3461) ----


@pytest.mark.parametrize(("notify", "is_told"), [(DELAY, True), (0, False), (4, False), (NEVER, False)])
def test_a_delay_is_told_once_to_who_asked(tmp_path, notify, is_told):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["b@y.example"] = "450 4.2.1 busy"
        site = await hop.start()
        options = QueueOptions(retry=RetryOptions(first=Duration(600)), delay_report=Duration(0.001))
        queue = Queue(directory, site, options=options)
        await queue.send("b@y.example", notify=notify)
        await until(lambda: queue.depth["deferred"] == 1)
        await until(lambda: len(reports(hop)) == is_told)
        queue.wheel.advance_by_ms(HOUR_MS)
        await until(lambda: len(queue.events("deferred")) == 2)
        await until(lambda: queue.scheduler.states_in_flight == 0 and queue.depth["deferred"] == 1)
        await queue.close()
        queue = Queue(directory, site, options=options)
        await queue.recover()
        await asyncio.sleep(0)
        queue.wheel.advance_by_ms(24 * HOUR_MS)
        await until(lambda: len(queue.events("deferred")) == 3)
        assert len(reports(hop)) == is_told
        if is_told:
            assert "Action: delayed" in reports(hop)[0].as_string()
            assert "450 4.2.1 busy" in reports(hop)[0].as_string()
        await queue.close()

    run(test, tmp_path)


# ---- BINARYMIME (RFC 3030) ----


def test_a_report_about_a_binary_message_holds_no_raw_octets(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        body = b"Subject: a\x00b\rc\nd\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\n\r\xff" + bytes(range(256))
        await queue.send("b@y.example", body=body, flags=Flag.BINARYMIME | Flag.EIGHT_BIT | Flag.NO_FINAL_CRLF)
        await until(lambda: queue.is_empty)
        (line,) = queue.events("failed")
        assert line["status"] == "5.6.1"
        ((_, _, report),) = hop.messages
        assert b"Subject: a?b?c?d\r\n" in report
        assert report.isascii()
        assert b"\x00" not in report
        assert report.replace(b"\r\n", b"").count(b"\r") == report.replace(b"\r\n", b"").count(b"\n") == 0
        await queue.close()

    run(test, tmp_path)
