"""A spool on a file system of 64 MB that is filled to its last block under load and emptied again, twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash.arrivals import Arrivals
from crash.load import Load, message_of
from end_to_end.next_hop import NextHop
from end_to_end.relay import NO_RETRY, metrics, wait_until_empty
from end_to_end.small_disk import fill, free_octets, small_disk
from relay_process import RelayProcess, wait_for

DISK_OCTETS = 64 << 20
SEED = 64
PATIENCE_S = 60.0


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("min_free", "gauge", "event"),
    [("12MiB", "angarium_spool_low", "spool-low"), ("0B", "angarium_spool_full", "spool")],
    ids=["marks of a size with the disk", "no marks"],
)
def test_a_disk_filled_under_load_puts_mail_off_and_loses_none(
    tmp_path: Path, min_free: str, gauge: str, event: str
) -> None:
    """Full twice over: of mail that nobody takes, and then, to the last block, of somebody else's file."""
    arrivals = Arrivals(message_of)
    is_closed = True
    hold = {"RCPT": lambda _: b"450 4.2.0 later" if is_closed else None}
    with small_disk(tmp_path, DISK_OCTETS) as disk, NextHop(take=arrivals.take, faults=hold) as hop:
        relay = RelayProcess(tmp_path, workers=2)
        relay.spool = disk / "spool"
        relay.node = f'segment_size = "4MiB"\nmin_free = "{min_free}"\nmin_free_inodes = 0\n'
        relay.write_config(hop.route + NO_RETRY)
        with relay, Load(relay.port, seed=SEED) as load:

            def wait_for_refusals(count: int) -> None:
                before = load.refused.total()
                wait_for(lambda: load.refused.total() >= before + count, "mail is refused", PATIENCE_S)

            def wait_for_mail(count: int) -> None:
                before = len(load.acknowledged)
                wait_for(lambda: len(load.acknowledged) >= before + count, "mail is taken", PATIENCE_S)

            for turn in range(2):
                is_closed = True
                wait_for_mail(50)
                wait_for_refusals(50)
                # Not at once: the relay tries again and again to get a new segment, and gives back what it got of one.
                wait_for(lambda: fill(disk / "another's") or free_octets(disk) == 0, "the last block is taken")
                wait_for_refusals(200)
                wait_for(lambda: metrics(relay)[gauge] >= 1, "the gauge says so")
                wait_for(lambda turn=turn: len(relay.events(event)) > turn, "and so does the log")
                # What is inside leaves while there is no block to be had.
                load.is_held = lambda: True
                is_closed = False
                assert relay.command("queue", "retry", "--all").returncode == 0
                wait_until_empty(relay, PATIENCE_S)
                # A client may have been in the middle of a message when the queue was empty.
                wait_for(lambda: arrivals.messages >= len(load.acknowledged), "all that was taken has left")
                (disk / "another's").unlink()
                load.is_held = lambda: False
                wait_for_mail(50)
            load.stop()
            wait_until_empty(relay, PATIENCE_S)
            assert relay.stop() == 0
        assert not relay.events("error", "failed", "expired", "worker-died")
        assert relay.command("spool", "check").returncode == 0
        verdict = arrivals.judge(load.acknowledged, [], [], 0.0)
        print(f"{verdict}; refused: {dict(load.refused)}")
        assert verdict.is_good, verdict
        assert set(load.refused) <= {"452 4.3.1", "451 4.3.0"}, load.refused
        assert load.refused["452 4.3.1"] > load.refused["451 4.3.0"]
