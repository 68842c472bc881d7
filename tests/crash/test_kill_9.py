"""kill -9 of a worker and of the whole tree under load: whatever was answered 250 is delivered, whole.

The short form of `make soak`; what is done, and how it is judged, stands in soak.py and arrivals.py.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from crash.arrivals import Arrivals, Kill
from crash.load import message_of
from crash.soak import Way, opened
from end_to_end.next_hop import Delivery, NextHop
from end_to_end.relay import NO_RETRY, queue, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

SEED = 20
START_S = 1.8e9
ROUNDS = {
    "worker": [Way.WORKER] * 6,
    "tree": [Way.TREE, Way.TREE, Way.SUPERVISOR] * 2,
    "mixed": [Way.WORKER, Way.TREE, Way.WORKERS, Way.WORKER, Way.SUPERVISOR, Way.WORKERS, Way.TREE],
    "sigterm": [Way.RESTART] * 3,
}


@pytest.mark.parametrize("name", ROUNDS)
@pytest.mark.timeout(240)
def test_acknowledged_mail_survives_the_end_of_processes_under_load(tmp_path: Path, name: str) -> None:
    ways = ROUNDS[name]
    with opened(tmp_path, SEED) as soak:
        for way in ways:
            soak.round(way)
        report = soak.end()
        print(report)
        verdict = report.verdict
        assert not verdict.missing, [soak.story(serial) for serial in verdict.missing]
        assert not verdict.corrupt
        assert not verdict.unexcused
        assert verdict.acknowledged > len(ways) * 20
        if name == "sigterm":
            assert verdict.repeated == 0, "who is asked to stop has written its outcomes"
        else:
            assert report.compacted[1], "compaction was at work"


def arrived(serial: int, to: str, at_s: float, worker: int = 0, message: bytes = b"") -> Delivery:
    """At so many seconds of a clock that counts from `START_S`."""
    trace = b"Received: from x by y id %s;\r\n Tue, 24 Nov 2026\r\n" % id_of(serial, worker).encode()
    at_mono_s = START_S + at_s - time.time() + time.monotonic()
    return Delivery(1, b"", (b"RCPT TO:<%s>" % to.encode(),), trace + (message or message_of(serial)), "", at_mono_s)


def logged(serial: int, to: str, at_s: float, worker: int = 0) -> dict[str, object]:
    at = datetime.fromtimestamp(START_S + at_s, UTC).isoformat()
    return {"event": "delivered", "id": id_of(serial, worker), "to": to, "time": at}


def id_of(serial: int, worker: int) -> str:
    return f"0{worker * 2}TR502HG06S{serial}"


def test_the_judge_sees_what_is_missing_changed_and_repeated() -> None:
    """A proof that cannot fail proves nothing."""
    arrivals = Arrivals(message_of)
    for each in (
        arrived(1, "a@x.example", 10.0),
        arrived(1, "a@x.example", 20.0),
        arrived(2, "a@x.example", 10.0),
        arrived(2, "b@x.example", 10.0),
        arrived(2, "b@x.example", 20.0),
        arrived(3, "a@x.example", 10.0, worker=1),
        arrived(3, "a@x.example", 20.0, worker=1),
        arrived(4, "a@x.example", 10.1, worker=1),
        arrived(4, "a@x.example", 11.0, worker=1),
        arrived(5, "a@x.example", 10.0, message=message_of(5)[:-3] + b"?\r\n"),
        arrived(6, "a@x.example", 10.0),
        arrived(6, "a@x.example", 20.0),
    ):
        arrivals.take(each)
    events = [
        logged(1, "a@x.example", 10.05),  # 50 ms before the kill: excused
        logged(1, "a@x.example", 20.05),
        logged(3, "a@x.example", 10.1, worker=1),  # two seconds before it
        logged(4, "a@x.example", 10.15, worker=1),  # it was the other that died in time
        logged(6, "a@x.example", 20.05),  # the first was not known: excused
    ]
    acknowledged = {number: ("", ["a@x.example"]) for number in range(1, 7)}
    acknowledged[2] = ("", ["a@x.example", "b@x.example", "c@x.example"])
    kills = [
        Kill(START_S + 10.1, START_S + 10.11, frozenset({0})),
        Kill(START_S + 12.1, START_S + 12.11, frozenset({1})),
    ]
    verdict = arrivals.judge(acknowledged, kills, events, 0.1)
    assert (verdict.acknowledged, verdict.deliveries, verdict.repeated) == (6, 11, 5)
    assert verdict.unexcused == [3, 4]
    assert sorted(verdict.missing) == [2, 5]
    assert verdict.corrupt == [5]
    assert not verdict.is_good
    assert 0.045 < verdict.oldest_repeated_s < 0.055


def test_mail_that_was_recovered_once_survives_the_second_kill(tmp_path: Path) -> None:
    """Of a recovered message whose body lies beside its envelope two pins were given back, one taken: when half the
    mail of a segment was delivered, the segment was recycled with the other half in it. Nobody noticed until the next
    crash."""
    refused: dict[str, int] = {"from": 0}

    def refuse(line: bytes) -> bytes | None:
        number = int(line.partition(b"<r")[2].partition(b"@")[0])
        return b"450 4.2.1 not now" if number >= refused["from"] else None

    with NextHop(faults={"RCPT": refuse}) as hop, RelayProcess(tmp_path, hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            ids = [client.send(message_of(1), f"r{number}@y.example") for number in range(30)]
        wait_for(lambda: len(relay.events("deferred")) == 30, "all are deferred")
        relay.kill()
        relay.start()
        wait_for(lambda: len(queue(relay)) == 30, "all are loaded")
        refused["from"] = 15
        relay.command("queue", "retry", "--all")
        wait_for(lambda: len(relay.events("delivered")) == 15, "half of them are delivered")
        wait_for(lambda: len(queue(relay)) == 15, "half of them are over")
        # Outcomes are on disk 100 ms later, and what is free then is recycled.
        time.sleep(0.5)
        relay.kill()
        relay.start()
        wait_for(lambda: {each["id"] for each in queue(relay)} == set(ids[15:]), "the other half is still there")
        refused["from"] = 30
        relay.command("queue", "retry", "--all")
        wait_until_empty(relay)
        assert all(delivery.content == message_of(1) for delivery in hop.deliveries)
        assert {to for delivery in hop.deliveries for to in delivery.to} == {
            f"r{number}@y.example" for number in range(30)
        }
