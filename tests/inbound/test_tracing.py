"""Live traces: who is looked at, what is told, what never is, and what a slow reader costs."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import auth_harness
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.events import dialogue, tracing
from angarium.events.dialogue import DATA_OCTETS, TooManyTraces
from angarium.inbound.tracing import Tracing

HERE = "127.0.0.0/8"


async def taken(looking: Tracing, last: str, network: str = HERE, data_octets: int = 0) -> list[dict[str, Any]]:
    """Events up to one whose text or kind is `last`."""
    events: list[dict[str, Any]] = []
    for _ in range(50):
        events += await looking.pull("t", network, data_octets)
        if any(last in (event.get("text"), event["event"]) for event in events):
            return events
    raise AssertionError(f"{last} did not come: {events}")


def lines(events: list[dict[str, Any]]) -> list[str]:
    return [f"{event['event']} {event.get('text', '')}".strip() for event in events]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "PULL_WAIT_S", 0.05)


def test_a_dialogue_is_told_as_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            looking = Tracing(harness.intake, 3)
            assert await looking.pull("t", HERE) == []
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            assert (await peer.ask(b"Subject: secret\r\n\r\nsecret\r\n.\r\n")).startswith("250 ")
            await peer.ask(b"XYZZY\x01\r\n")
            await peer.ask(b"QUIT\r\n")
            events = await taken(looking, "closed")
            told = lines(events)
            assert told[:2] == ["seen", "reply 220 mx.test.example ESMTP Angarium"]
            assert told[2] == "command EHLO client.example"
            assert "reply 250-SIZE 52428800" in told
            start = told.index("command MAIL FROM:<a@x.example>")
            assert told[start : start + 8] == [
                "command MAIL FROM:<a@x.example>", "reply 250 2.1.0 Ok", "command RCPT TO:<b0@y.example>",
                "reply 250 2.1.5 Ok", "command DATA", "reply 354 End data with <CR><LF>.<CR><LF>", "message 30 octets",
                told[start + 7],
            ]  # fmt: skip
            assert told[start + 7].startswith("reply 250 2.0.0 Ok: queued as ")
            assert told[start + 8 :] == [
                "command XYZZY\\x01", "reply 500 5.5.1 Command not recognised", "command QUIT",
                "reply 221 2.0.0 mx.test.example Bye", "closed",
            ]  # fmt: skip
            assert {event["session"] for event in events} == {"3.1"}
            assert {event["client"] for event in events} == {"127.0.0.1"}
            assert "secret" not in json.dumps(events)

    run(main())


def test_message_data_is_shown_to_who_asks_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            looking = Tracing(harness.intake, 0)
            await looking.pull("t", HERE, DATA_OCTETS)
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            assert (await peer.ask(b"Subject: x\r\n\r\nline\r\n..\r\n.\r\n")).startswith("250 ")
            told = lines(await taken(looking, "message", data_octets=DATA_OCTETS))
            start = told.index("data Subject: x")
            assert told[start : start + 6] == [
                "data Subject: x",
                "data",
                "data line",
                "data ..",
                "data .",
                "message 27 octets",
            ]

    run(main())


def test_only_clients_of_the_network_are_looked_at_and_only_while_somebody_looks(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            looking = Tracing(harness.intake, 0)
            before = await SmtpPeer.greeted(harness.port)
            await looking.pull("t", HERE)
            await looking.pull("other", "192.0.2.0/24")
            await before.ask(b"NOOP\r\n")
            assert "command NOOP" in lines(await taken(looking, "250 2.0.0 Ok"))
            assert await looking.pull("other", "192.0.2.0/24") == []
            looking.end("t")
            looking.end("other")
            assert harness.intake.tracing is None
            assert all(client.observer is None for client in harness.intake.clients)
            await before.ask(b"NOOP\r\n")

    run(main())


def test_secrets_of_auth_are_never_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            looking = Tracing(harness.intake, 0)
            await looking.pull("t", HERE, DATA_OCTETS)
            secret = base64.b64encode(b"\0alice@x.example\0wonderland")
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"AUTH PLAIN " + secret + b"\r\n")
            other = await SmtpPeer.greeted(harness.port)
            await other.ask(b"auth plain\r\n")
            await other.ask(secret + b"\r\n")
            third = await SmtpPeer.greeted(harness.port)
            # Rejected mechanisms, and clients that go on all the same: the password comes as a command.
            await third.ask(b"AUTH CRAM-MD5\r\n")
            await third.ask(secret + b"\r\n")
            await third.ask(b"NOOP\r\n")
            early = await SmtpPeer.greeted(harness.port)
            early.say(b"AUTH PLAIN " + secret + b"\n")
            await early.rest()
            events = await taken(looking, "250 2.0.0 Ok", data_octets=DATA_OCTETS)
            events += await looking.pull("t", HERE, DATA_OCTETS)
            told = lines(events)
            assert "command AUTH PLAIN (masked)" in told
            assert told.count("command (masked)") == 2
            assert "noise AUTH ... 55 octets" in told or any(line.startswith("noise AUTH") for line in told)
            assert "command NOOP" in told
            text = json.dumps(events)
            assert secret.decode() not in text
            assert secret.decode()[:12] not in text
            assert "wonderland" not in text

    run(main())


def test_a_slow_reader_gets_the_first_of_it_and_how_much_was_dropped(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_junk=1_000_000) as harness:
            looking = Tracing(harness.intake, 0)
            await looking.pull("t", HERE)
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(30):
                peer.say(b"RSET\r\n" * 100)
                await peer.replies(100)
            events = await looking.pull("t", HERE)
            assert len(events) == dialogue.KEPT_EVENTS + 1
            assert events[-1]["event"] == "dropped"
            assert events[-1]["count"] > 4000
            await peer.ask(b"NOOP\r\n")
            assert lines(await looking.pull("t", HERE)) == ["command NOOP", "reply 250 2.0.0 Ok"]

    run(main())


def test_a_trace_that_nobody_reads_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "IDLE_S", 0.01)

    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            looking = Tracing(harness.intake, 0)
            await looking.pull("t", HERE)
            await harness.until(lambda: harness.intake.tracing is None)

    run(main())


def test_traces_are_few(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            looking = Tracing(harness.intake, 0)
            for number in range(dialogue.TRACES_MAX):
                await looking.pull(str(number), HERE)
            with pytest.raises(TooManyTraces):
                await looking.pull("more", HERE)

    run(main())


def test_an_observer_that_fails_does_not_disturb_the_dialogue(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            looking = Tracing(harness.intake, 0)
            await looking.pull("t", HERE)
            peer = await SmtpPeer.greeted(harness.port)
            for client in harness.intake.clients:
                client.observer.traces = (None,)
            assert await peer.ask(b"NOOP\r\n") == "250 2.0.0 Ok"
            await asyncio.sleep(0)

    run(main())
