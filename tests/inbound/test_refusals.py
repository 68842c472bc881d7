"""Refusals of a listener: log, metrics, reply and memory name the same thing."""

from __future__ import annotations

import json
import re
from pathlib import Path

from inbound.intake_harness import IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.metrics import counters

NOBODY = {"relay_from": []}


def counted(reason: str) -> int:
    (found,) = (
        each for each in counters.registry()
        if each.name == "angarium_in_refused_total" and each.labels == {"reason": reason}
    )  # fmt: skip
    return found.value


def remembered(harness: IntakeHarness, id_: str) -> dict[str, object] | None:
    line = harness.intake.refusals.find(id_)
    return None if line is None else json.loads(line)


def test_log_metric_reply_and_memory_share_id_and_reason(tmp_path: Path) -> None:
    async def main() -> None:
        before = counted("relay-denied"), counted("unknown-command")
        async with intake_harness(tmp_path, **NOBODY, tell_refusal_ids=True) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert await peer.ask(b"MAIL FROM:<a@x.example>\r\n") == "250 2.1.0 Ok"
            denied = await peer.ask(b"RCPT TO:<b@other.example>\r\n")
            unknown = await peer.ask(b"XYZZY\r\n")
            first, second = harness.events("rejected")
            assert (first["reason"], second["reason"]) == ("relay-denied", "unknown-command")
            assert denied == f"550 5.7.1 Relaying denied [{first['id']}]"
            assert unknown == f"500 5.5.1 Command not recognised [{second['id']}]"
            assert first["id"] != second["id"]
            assert remembered(harness, first["id"]) == first
            assert remembered(harness, second["id"]) == second
            assert first["listener"] == f"127.0.0.1:{harness.port}"
            assert remembered(harness, "00000000") is None
        assert (counted("relay-denied"), counted("unknown-command")) == (before[0] + 1, before[1] + 1)

    run(main())


def test_a_pipelined_group_has_an_id_for_each_of_its_refusals(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **NOBODY, tell_refusal_ids=True) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            rcpts = b"RCPT TO:<b@y.example>\r\nRCPT TO:b\r\nRCPT TO:<c@y.example>\r\n"
            peer.say(b"MAIL FROM:<a@x.example>\r\n" + rcpts + b"DATA\r\n")
            replies = await peer.replies(5)
            told = [found[1] for reply in replies if (found := re.search(r"\[(\w{8})\]$", reply))]
            assert told == [event["id"] for event in harness.events("rejected")]
            assert len(set(told)) == 4

    run(main())


def test_a_refused_chunk_is_told_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **NOBODY, tell_refusal_ids=True) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            told = await peer.ask(b"BDAT 3 LAST\r\nabc")
            (event,) = harness.events("rejected")
            assert told == f"503 5.5.1 MAIL first [{event['id']}]"

    run(main())


def test_who_is_turned_away_is_told_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_sessions=1, tell_refusal_ids=True) as harness:
            await SmtpPeer.greeted(harness.port)
            second = await SmtpPeer.connect(harness.port)
            told = await second.reply()
            (event,) = harness.events("rejected")
            assert told.endswith(f"Too many connections, try again later [{event['id']}]")
            assert event["reason"] == "too-many-sessions"

    run(main())


def test_a_deadline_is_a_refusal_with_a_reason(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tell_refusal_ids=True) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            harness.wheel.advance_by_ms(301_000)
            told = await peer.reply()
            (event,) = harness.events("rejected")
            assert event["reason"] == "timeout"
            assert told.endswith(f"[{event['id']}]")

    run(main())


def test_what_a_peer_says_is_never_taken_for_an_id(tmp_path: Path) -> None:
    """The search goes through octets that peers chose."""

    async def main() -> None:
        async with intake_harness(tmp_path, **NOBODY) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            forged = b'RCPT TO:<"x\\",\\"id\\":\\"ABCDEFGH\\",\\""@y.example>\r\n'
            assert (await peer.ask(forged)).startswith("550 5.7.1 ")
            assert remembered(harness, "ABCDEFGH") is None
            (event,) = harness.events("rejected")
            assert "ABCDEFGH" in str(event["to"])
            assert remembered(harness, str(event["id"])) == event

    run(main())


def test_memory_of_refusals_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_errors=10_000) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(90):
                peer.say(b"RCPT TO:<x@y.example>\r\n" * 100)
                assert len(await peer.replies(100)) == 100
            events = harness.events("rejected")
            assert len(events) == 9000
            assert remembered(harness, events[-1]["id"]) == events[-1]
            assert remembered(harness, events[0]["id"]) is None
            known = [event for event in events if remembered(harness, event["id"]) is not None][:1]
            assert remembered(harness, known[0]["id"]) == known[0]

    run(main())
