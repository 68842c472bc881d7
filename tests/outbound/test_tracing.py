"""Looking on at dialogues with next hops: who is meant, what is told under TLS and of AUTH, and that it ends."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from outbound.fault_server import fault_server
from outbound.outgoing import FLAG_DOT_LINE, ONE_CONNECTION, on_uvloop, outgoing, smtp_site
from outbound.test_streaming import CHUNK, long_message, recover, store
from queue_harness import NextHop, Queue, run, until

from angarium.events import dialogue
from angarium.events.dialogue import Dialogue, TooManyTraces, Trace
from angarium.outbound.tracing import OutboundTracing, RemoteTrace, Target


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "PULL_WAIT_S", 0.05)


class Pretended:
    """A connection to mx.y.example."""

    site_name = "mx.y.example,mx2.y.example"
    remote = "mx.y.example[192.0.2.25]:25"
    host_key = ("mx.y.example", "192.0.2.25", 25)
    observer = None

    def watch(self, witness: object) -> None:
        pass


@pytest.mark.parametrize(
    ("target", "site_name", "is_meant"),
    [
        (Target(site="MX.y.example,mx2.y.example"), "", True),
        (Target(site="mx.y.example"), "", True),
        (Target(site="mx2.y.example"), "", False),
        (Target(domain="y.example"), "mx.y.example,mx2.y.example", True),
        (Target(domain="z.example"), "mx.z.example", False),
        (Target(next_hop="192.0.2.0/24"), "", True),
        (Target(next_hop="2001:db8::/32"), "", False),
    ],
)
def test_a_target_means_connections_by_site_host_and_address(target: Target, site_name: str, is_meant: bool) -> None:
    assert RemoteTrace(target, site_name).means(Pretended()) is is_meant


def test_secrets_of_our_own_auth_are_never_told() -> None:
    trace = Trace()
    looking = Dialogue((trace,), "0.o1", "mx", "remote")
    secrets = (b"AUTH PLAIN AGFsaWNlAHNlY3JldA==", b"AUTH LOGIN", b"YWxpY2U=", b"c2VjcmV0")
    for line in (*secrets, b"MAIL FROM:<a@x.example>"):
        looking.command(line)
        looking.reply(b"334 VXNlcm5hbWU6\r\n")
    told = str(trace._events)
    assert all(secret not in told for secret in ("AGFs", "YWxp", "c2Vj", "VXNl"))
    assert "MAIL FROM:<a@x.example>" in told


async def told_of_two(tmp_path: pathlib.Path, data_octets: int, **server: Any) -> list[str]:
    """What a trace says of two messages on one connection."""
    async with (
        fault_server(**server) as hop,
        outgoing(tmp_path, {b"*": smtp_site(hop.port)}, shaping=ONE_CONNECTION) as relay,
    ):
        looking = OutboundTracing(relay.scheduler, relay.dispatcher, 0)
        target = Target(next_hop="127.0.0.1")
        await looking.pull("t", target, data_octets)
        events: list[dict[str, Any]] = []
        for count in (1, 2):
            await relay.send(b"b@y.example", body=b"Subject: secret\r\n\r\n.dot\r\nthe rest\r\n", flags=FLAG_DOT_LINE)
            while sum(each.get("text") == "250 2.0.0 queued" for each in events) < count:
                events += await looking.pull("t", target, data_octets)
        assert len(hop.received) == 2 and hop.connections == 1
        return [f"{each['event']} {each.get('text', '')}".strip() for each in events]


@on_uvloop
@pytest.mark.parametrize("extensions", [[b"PIPELINING"], [b"PIPELINING", b"CHUNKING"], []])
async def test_the_beginning_of_message_data_is_shown_to_who_asks_for_it(
    tmp_path: pathlib.Path, extensions: list[bytes]
) -> None:
    told = await told_of_two(tmp_path, 22, extensions=extensions)
    assert told.count("data Subject: secret") == 2
    for start in [index for index, each in enumerate(told) if each == "data Subject: secret"]:
        assert told[start - 1].startswith(("reply 354", "command BDAT"))
        assert told[start + 1 : start + 4] == ["data", "data .do", "message 35 octets, of which the first 22 are shown"]
    assert "the rest" not in str(told)


@on_uvloop
async def test_message_data_is_never_shown_unasked(tmp_path: pathlib.Path) -> None:
    told = await told_of_two(tmp_path, 0)
    assert "secret" not in str(told) and "data" not in {each.split(" ")[0] for each in told}
    assert told.count("message 35 octets") == 2


@on_uvloop
async def test_of_a_message_in_chunks_the_beginning_is_shown_too(tmp_path: pathlib.Path) -> None:
    body = long_message(3 * CHUNK)
    await store(tmp_path, body, [b"b@y.example"], CHUNK)
    async with (
        fault_server() as hop,
        outgoing(tmp_path, {b"*": smtp_site(hop.port)}, shaping=ONE_CONNECTION) as relay,
    ):
        looking = OutboundTracing(relay.scheduler, relay.dispatcher, 0)
        target = Target(next_hop="127.0.0.1")
        await looking.pull("t", target, 4000)
        await recover(relay)
        events: list[dict[str, Any]] = []
        while not any(each.get("text") == "250 2.0.0 queued" for each in events):
            events += await looking.pull("t", target, 4000)
        shown = "".join(each.get("text", "") + "\r\n" for each in events if each["event"] == "data")
        assert shown.encode().rstrip() == body[:4000].rstrip()


def test_a_trace_begins_in_the_middle_and_ends_without_a_rest(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        looking = OutboundTracing(queue.scheduler, queue.dispatcher, 0)
        try:
            await queue.send("a@y.example")
            await until(lambda: len(hop.messages) == 1)
            await until(queue.dispatcher.connections)
            (connection,) = queue.dispatcher.connections()
            assert connection.observer is None and queue.dispatcher.dialer.tracing is None
            target = Target(domain="y.example")
            events: list[dict[str, Any]] = await looking.pull("t", target)
            await queue.send("b@y.example")
            await until(lambda: len(hop.messages) == 2)
            while not any(event.get("text", "").startswith("250 2.0.0 taken") for event in events):
                events += await looking.pull("t", target)
            told = [f"{event['event']} {event.get('text', '')}" for event in events]
            assert told[0] == f"seen {connection.site_name}"
            assert told[1].startswith("command MAIL FROM:<a@x.example>")
            assert told[2:4] == ["command RCPT TO:<b@y.example>", "command DATA"]
            assert {event["remote"] for event in events} == {connection.remote}
            for number in range(dialogue.TRACES_MAX - 1):
                await looking.pull(str(number), Target(site="nobody"))
            with pytest.raises(TooManyTraces):
                await looking.pull("one too many", target)
            for id_ in ("t", *map(str, range(dialogue.TRACES_MAX))):
                looking.end(id_)
            assert connection.observer is None and queue.dispatcher.dialer.tracing is None
        finally:
            await queue.close()
            hop.stop()

    run(test, tmp_path)
