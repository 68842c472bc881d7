"""System calls of a worker that fail under load, one kind after the other: never a 250 for a lost message, never a
crash; who sends is told 4xx, the log and the metrics say so, and it is over when the fault is.

After each fault everything is killed, so that what is delivered comes from the disk and not from memory.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from crash.arrivals import Arrivals, Kill
from crash.load import Load, message_of
from crash.soak import numbered_workers
from end_to_end.next_hop import NextHop
from end_to_end.relay import fix_port, metrics, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from interop.system_calls import failing
from relay_process import RelayProcess, maildir_route, wait_for

SEED = 4
RETRY = '[queue.default]\nretry = { first = "300ms", factor = 1.0, max = "300ms" }\n'
EVERY, EVERY_SECOND = "1+", "1+2"
# Outcomes that could not be written are tried again once a second (csrc/spool/shard.c): after that nothing may be
# repeated.
RETRIED_S = 2.0
# What must be seen of it: refusals (and a report), or nothing but that the call is made again.
REFUSED, UNSEEN = "refused", "unseen"

RENAMES = "rename,renameat,renameat2,link,linkat"

CASES = [
    ("pwritev2", "EIO", EVERY, REFUSED),
    ("pwritev2", "ENOSPC", EVERY, REFUSED),
    ("pwritev2", "EDQUOT", EVERY, REFUSED),
    ("pwritev2", "EIO", EVERY_SECOND, REFUSED),
    ("pwritev2", "EINTR", EVERY_SECOND, UNSEEN),
    ("fdatasync", "EIO", EVERY, REFUSED),
    ("fdatasync", "ENOSPC", EVERY_SECOND, REFUSED),
    ("fdatasync", "EDQUOT", EVERY, REFUSED),
    ("fdatasync", "EINTR", EVERY_SECOND, UNSEEN),
    ("fallocate", "EIO", EVERY, REFUSED),
    ("fallocate", "ENOSPC", EVERY, REFUSED),
    ("fallocate", "EDQUOT", EVERY, REFUSED),
    ("fallocate", "EINTR", EVERY_SECOND, UNSEEN),
    ("openat", "EMFILE", EVERY, REFUSED),
    ("openat", "EIO", EVERY, REFUSED),
    ("openat", "EINTR", EVERY_SECOND, REFUSED),
    ("fsync", "EIO", EVERY, REFUSED),
]


@pytest.mark.parametrize(
    ("call", "error", "when", "seen"), CASES, ids=[f"{call}-{error}-{when}" for call, error, when, _ in CASES]
)
@pytest.mark.timeout(180)
def test_a_call_that_fails_under_load_loses_nothing(
    tmp_path: Path, call: str, error: str, when: str, seen: str
) -> None:
    arrivals = Arrivals(message_of)
    odds = random.Random(SEED)
    is_over = False
    faults = {"RCPT": lambda _: b"450 4.2.1 not now" if not is_over and odds.random() < 0.5 else None}
    with NextHop(take=arrivals.take, faults=faults) as hop:
        relay = RelayProcess(tmp_path)
        relay.node = 'segment_size = "4MiB"\n'
        relay.write_config(hop.route + RETRY)
        load = Load(0, seed=SEED)
        load.is_held = lambda: len(load.acknowledged) > arrivals.messages + 100
        with relay:
            fix_port(relay, hop.route + RETRY)
            load.port = relay.port

            def wait_for_mail(count: int) -> None:
                before = len(load.acknowledged)
                wait_for(lambda: len(load.acknowledged) >= before + count, "mail is taken", 30)

            with load:
                wait_for_mail(20)
                (pid,) = numbered_workers(relay).values()
                if call == "fdatasync":
                    without_direct_writes(pid, load)
                load.refused.clear()
                with failing(pid, call, error, when) as fault:
                    fault.wait_for_count(3)
                    if seen == REFUSED:
                        wait_for(lambda: load.refused.total() >= 5, "mail is refused", 30)
                    else:
                        wait_for_mail(50)
                refused = load.refused.copy()
                wait_for_mail(50)
                if seen == REFUSED:
                    wait_for(lambda: relay.events("spool"), "the log says so")
                    time.sleep(RETRIED_S)
                values = metrics(relay)
                assert numbered_workers(relay) == {0: pid}, "the worker lives"
                load.stop()
            killed_utc_s = time.time()
            relay.kill()
            kills = [Kill(killed_utc_s, time.time(), frozenset({0}))]
            is_over = True
            relay.start()
            wait_until_empty(relay)
            assert relay.stop() == 0
        if seen == REFUSED:
            assert set(refused) <= {"451 4.3.0", "452 4.3.1"}
            assert values["angarium_in_rejected_total"] >= 5
        else:
            assert not refused
        assert not relay.events("error", "failed", "expired", "worker-died")
        assert relay.command("spool", "check").returncode == 0
        verdict = arrivals.judge(load.acknowledged, kills, relay.all_events(), 0.1)
        print(f"{dict(refused)} {verdict}")
        assert verdict.is_good, verdict


def without_direct_writes(pid: int, load: Load) -> None:
    """Has the spool find, in a new segment, that the file system takes no direct writes (any more): it writes through
    the page cache from then on, and fdatasync is what makes that durable."""
    with failing(pid, "pwritev2", "EOPNOTSUPP") as fault:
        fault.wait_for_count(10)
    with failing(pid, "fdatasync", "EINTR", EVERY_SECOND) as fault:
        fault.wait_for_count(1)
    before = len(load.acknowledged)
    wait_for(lambda: len(load.acknowledged) > before, "mail is taken")


@pytest.mark.parametrize(
    ("calls", "error"),
    [
        (RENAMES, "EIO"),
        (RENAMES, "ENOSPC"),
        (RENAMES, "EDQUOT"),
        (RENAMES, "EINTR"),
        ("fsync", "EIO"),
        ("fsync", "EDQUOT"),
    ],
)
def test_a_maildir_that_cannot_be_written_gets_its_mail_later(tmp_path: Path, calls: str, error: str) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path) + RETRY) as relay:
        (pid,) = numbered_workers(relay).values()
        with SmtpClient(relay.port) as client:
            client.send(message_of(1))  # the directories are there
            wait_for(lambda: relay.events("delivered"), "one is delivered")
            with failing(pid, calls, error) as fault:
                ids = [client.send(message_of(number)) for number in range(2, 6)]
                fault.wait_for_count(4)
                wait_for(lambda: len(relay.events("deferred")) >= 4, "all are deferred")
                assert len(relay.events("delivered")) == 1
        wait_until_empty(relay)
        delivered = [event["id"] for event in relay.events("delivered")]
        assert sorted(delivered[1:]) == sorted(ids)
        found = [path.read_bytes() for path in (tmp_path / "mail/you/new").iterdir()]
        assert len(found) == 5
        for number in range(1, 6):
            assert sum(each.endswith(message_of(number).replace(b"\r\n", b"\n")) for each in found) == 1
        assert not relay.events("error", "failed", "expired", "worker-died")
        assert relay.stop() == 0
