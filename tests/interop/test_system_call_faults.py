"""System calls of a worker that fail under load, one kind after the other: never a 250 for a lost message, never a
crash; who sends is told 4xx, the log and the metrics say so, and it is over when the fault is.

After each fault everything is killed, so that what is delivered comes from the disk and not from memory.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import re
import time
from pathlib import Path

import pytest
from crash.arrivals import Arrivals, Kill
from crash.load import Load, message_of
from crash.soak import numbered_workers
from end_to_end.next_hop import NextHop
from end_to_end.relay import fix_port, metrics, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from interop.system_calls import failing, with_failing
from relay_process import RelayProcess, maildir_route, wait_for

SEED = 4
RETRY = '[queue.default]\nretry = { first = "300ms", factor = 1.0, max = "300ms" }\n'
EVERY, EVERY_SECOND = "1+", "1+2"
# Outcomes that could not be written are tried again once a second (csrc/spool/shard.c): after that nothing may be
# repeated.
RETRIED_S = 2.0
WINDOW_S = 0.1  # node.duplicate_window, the default


@dataclasses.dataclass(frozen=True)
class Seen:
    """How a fault is told, besides that senders are.

    report  in the event `spool`, with the error's own words behind it.
    counter, gauge  what rises, and stays; what is 1 while it lasts. "": not looked at.
    """

    report: str
    counter: str = ""
    gauge: str = ""


# A write or the sync that belongs to it: the segment is sealed. A new segment cannot be had: no room.
WRITE = Seen(" failed: ", counter="angarium_spool_write_errors_total")
NO_SEGMENT = Seen(": no new segment: ", gauge="angarium_spool_full")
# It is over too soon for a gauge.
NO_SEGMENT_NOW = Seen(": no new segment: ")
UNSEEN = None  # nothing but that the call is made again

RENAMES = "rename,renameat,renameat2,link,linkat"

CASES = [
    ("pwritev2", "EIO", EVERY, WRITE),
    ("pwritev2", "ENOSPC", EVERY, WRITE),
    ("pwritev2", "EDQUOT", EVERY, WRITE),
    ("pwritev2", "EIO", EVERY_SECOND, WRITE),
    ("pwritev2", "EINTR", EVERY_SECOND, UNSEEN),
    ("fdatasync", "EIO", EVERY, WRITE),
    ("fdatasync", "ENOSPC", EVERY_SECOND, WRITE),
    ("fdatasync", "EDQUOT", EVERY, WRITE),
    ("fdatasync", "EINTR", EVERY_SECOND, UNSEEN),
    ("fallocate", "EIO", EVERY, NO_SEGMENT),
    ("fallocate", "ENOSPC", EVERY, NO_SEGMENT),
    ("fallocate", "EDQUOT", EVERY, NO_SEGMENT),
    ("fallocate", "EINTR", EVERY_SECOND, UNSEEN),
    ("openat", "EMFILE", EVERY, NO_SEGMENT),
    ("openat", "EIO", EVERY, NO_SEGMENT),
    ("openat", "ENOSPC", EVERY, NO_SEGMENT),
    ("openat", "EDQUOT", EVERY, NO_SEGMENT),
    ("openat", "EINTR", EVERY_SECOND, NO_SEGMENT_NOW),
    ("fsync", "EIO", EVERY, NO_SEGMENT),
]


def slowest_commit_s(relay: RelayProcess) -> float:
    """An outcome that is known while one is under way is durable with the next: on a disk that others keep busy,
    through the page cache and with each call stopped by strace, that may take longer than the window by itself."""
    status = json.loads(relay.command("status", "--json").stdout)
    return max(
        shard["commit_us_max"] / 1e6 for worker in status["workers"] for shard in worker["figures"]["shards"]
    )


@pytest.mark.parametrize(
    ("call", "error", "when", "seen"), CASES, ids=[f"{call}-{error}-{when}" for call, error, when, _ in CASES]
)
@pytest.mark.timeout(180)
def test_a_call_that_fails_under_load_loses_nothing(
    tmp_path: Path, call: str, error: str, when: str, seen: Seen | None
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
                    if seen is None:
                        wait_for_mail(50)
                    else:
                        wait_for(lambda: load.refused.total() >= 5, "mail is refused", 30)
                    if seen is not None and seen.gauge:
                        wait_for(lambda: metrics(relay)[seen.gauge] >= 1, "the gauge says so")
                refused = load.refused.copy()
                wait_for_mail(50)
                if seen is not None:
                    words = seen.report + os.strerror(getattr(errno, error))
                    wait_for(
                        lambda: any(words in event["report"] for event in relay.events("spool")), "the log says so"
                    )
                if seen is not None or call == "fdatasync":     # that one began with writes that failed
                    time.sleep(RETRIED_S)
                values = metrics(relay)
                assert numbered_workers(relay) == {0: pid}, "the worker lives"
                load.stop()
                slowest_s = slowest_commit_s(relay)
            killed_utc_s = time.time()
            relay.kill()
            kills = [Kill(killed_utc_s, time.time(), frozenset({0}))]
            is_over = True
            relay.start()
            wait_until_empty(relay)
            assert relay.stop() == 0
        if seen is not None:
            assert set(refused) <= {"451 4.3.0", "452 4.3.1"}
            assert values["angarium_in_rejected_total"] >= 5
            assert not seen.counter or values[seen.counter] >= 1
            assert not seen.gauge or values[seen.gauge] == 0, "that is over too"
        else:
            assert not refused
        assert not relay.events("error", "failed", "expired", "worker-died")
        assert relay.command("spool", "check").returncode == 0
        verdict = arrivals.judge(load.acknowledged, kills, relay.all_events(), WINDOW_S + slowest_s)
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


def test_a_first_start_that_cannot_name_the_format_is_refused_and_the_next_one_is_none_the_worse(
    tmp_path: Path,
) -> None:
    """`format` is made as format.new, synced and renamed: a spool without it is not yet a spool."""
    relay = RelayProcess(tmp_path, maildir_route(tmp_path))
    for calls, error in ((RENAMES, "EIO"), (RENAMES, "ENOSPC"), (RENAMES, "EDQUOT"), ("fsync", "EIO")):
        relay.prefix = with_failing(calls, error)
        before = len(relay.errors()) if relay.errors_path.exists() else 0
        relay.launch()
        assert relay.wait() == 2
        said = relay.errors()[before:]
        reason = re.escape(os.strerror(getattr(errno, error)))
        assert re.fullmatch(rf"angarium: spool {relay.spool}: (format: )?{reason}\n", said), said
        assert not (relay.spool / "format").exists()
        assert not list(relay.spool.glob("[0-9a-f][0-9a-f]")), "no shard was made"
    relay.prefix = ()
    with relay:
        with SmtpClient(relay.port) as client:
            client.send(message_of(1))
        wait_for(lambda: relay.events("delivered"), "mail is taken and delivered")
        assert (relay.spool / "format").read_text() == "angarium-spool 1\n"
        assert not (relay.spool / "format.new").exists()
        assert relay.stop() == 0
