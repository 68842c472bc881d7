"""Looking on at dialogues with next hops: who is meant, what is told under TLS and of AUTH, and that it ends."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
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
