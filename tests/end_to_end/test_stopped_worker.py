"""A worker that is stopped (SIGSTOP; one that hangs looks the same): only its own sessions wait, and they go on.

ANGARIUM_STOPPED_S says for how long, at least, it is stopped under load: `make stopped` takes twelve seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from crash.arrivals import Arrivals
from crash.load import Load, message_of
from crash.soak import numbered_workers
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, metrics, open_sockets, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

from angarium.spool.envelope import decode_id

STOPPED_S = float(os.environ.get("ANGARIUM_STOPPED_S", "0"))
PATIENCE_S = 60.0  # of clients whose worker is stopped, besides; a busy machine takes its time

NEW_CLIENTS = 10**9  # their messages have numbers from here on: the load does not come so far


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def of_worker(load: Load, number: int) -> int:
    """How many acknowledged messages lie in its shard."""
    return sum(decode_id(id_) >> 56 == number for id_, _ in list(load.acknowledged.values()))


def greeted(port: int, count: int) -> None:
    """So many new clients, one after the other, get their message taken."""
    for _ in range(count):
        with SmtpClient(port) as client:
            client.send(MESSAGE)


def goes_on(relay: RelayProcess, load: Load, arrivals: Arrivals, serial: int) -> None:
    """Old sessions of the other worker, its deliveries, and new clients, who send what has this number."""
    before, delivered = of_worker(load, 1), arrivals.messages
    with SmtpClient(relay.port) as client:
        client.send(message_of(serial))
    wait_for(lambda: of_worker(load, 1) > before + 20, "the other still takes mail")
    wait_for(lambda: arrivals.messages > delivered + 20, "and delivers it")


def is_silent(relay: RelayProcess, number: int) -> bool:
    """Whether the supervisor has noticed, as far as the log says. On a busy machine a worker may be missed that nobody
    has stopped, and be back: how often is nobody's business.
    """
    names = "worker-silent", "worker-back", "worker-restarted"
    told = [each["event"] for each in relay.events(*names) if each["worker"] == number]
    assert ("worker-silent", "worker-silent") not in itertools.pairwise(told), "each silence is told once"
    return told[-1:] == ["worker-silent"]


def wait_for_silence(relay: RelayProcess, number: int) -> None:
    wait_for(lambda: is_silent(relay, number), "the supervisor has noticed")


def wait_for_return(relay: RelayProcess, *numbers: int) -> None:
    wait_for(lambda: not any(is_silent(relay, number) for number in numbers), "who was stopped is back")


def test_a_stopped_worker_harms_only_its_own_sessions_and_they_go_on(tmp_path: Path) -> None:
    arrivals = Arrivals(message_of)
    with NextHop(take=arrivals.take) as hop, clean_relay(tmp_path, hop.route, workers=2) as relay:
        with Load(relay.port, seed=1, sessions=16, patience_s=PATIENCE_S + STOPPED_S) as load:
            load.is_held = lambda: len(load.acknowledged) > arrivals.messages + 100
            wait_for(lambda: of_worker(load, 0) > 10 and of_worker(load, 1) > 10, "both take mail")
            pids = numbered_workers(relay)
            with stopped(pids[0]):
                end = time.monotonic() + STOPPED_S
                before, delivered = of_worker(load, 1), arrivals.messages
                wait_for_silence(relay, 0)
                wait_for(lambda: of_worker(load, 1) > before + 200, "the other goes on taking mail", PATIENCE_S)
                wait_for(lambda: arrivals.messages > delivered + 200, "and delivers it", PATIENCE_S)
                serials = itertools.count(NEW_CLIENTS)
                while time.monotonic() < end:
                    goes_on(relay, load, arrivals, next(serials))
                assert relay.command("status").returncode == 1, "the supervisor answers, and says that one does not"
                wait_for(
                    lambda: metrics(relay)["angarium_worker_silences_total"] == len(relay.events("worker-silent")),
                    "silences are counted",
                )
                silent = of_worker(load, 0)
            wait_for_return(relay, 0)
            wait_for(lambda: of_worker(load, 0) > silent + 50, "its sessions go on")
            assert numbered_workers(relay) == pids, "nobody was ended"
        wait_until_empty(relay, PATIENCE_S)
        verdict = arrivals.judge(load.acknowledged, [], relay.all_events(), 0.0)
        assert verdict.is_good, verdict
        assert verdict.repeated == 0
        assert load.lost_connections == 0
        assert not load.refused


def test_new_clients_of_a_stopped_workers_share_are_served_by_another(tmp_path: Path) -> None:
    """The kernel went on giving half of them to the worker that was stopped: they were connected and heard nothing."""
    with NextHop() as hop, clean_relay(tmp_path, hop.route, workers=2) as relay:
        first = numbered_workers(relay)[0]
        with stopped(first):
            # Before anybody has noticed: of these some wait in its queue, and are taken out of it.
            waiting = [SmtpClient(relay.port, hello=b"") for _ in range(20)]
            for client in waiting:
                assert client.reply()[0] == 220
                client.close()
            greeted(relay.port, 20)
            assert is_silent(relay, 0)
        wait_for_return(relay, 0)
        greeted(relay.port, 20)
        hop.wait_for_count(40)
        wait_until_empty(relay)


def shared_sockets(relay: RelayProcess) -> set[str]:
    """What both workers have open: each has listening sockets of its own, unless one stands in for the other."""
    first, second = (open_sockets(pid) for pid in numbered_workers(relay).values())
    return first & second


def test_after_both_were_stopped_nobody_stands_in_for_anybody(tmp_path: Path) -> None:
    """As when a machine is suspended: each is asked to stand in for the other, and reads that when it is over."""
    with NextHop() as hop, clean_relay(tmp_path, hop.route, workers=2) as relay:
        pids = numbered_workers(relay)
        first, second = pids[0], pids[1]
        with stopped(first):
            wait_for_silence(relay, 0)
            wait_for(lambda: shared_sockets(relay), "the other stands in")
        wait_for_return(relay, 0)
        wait_for(lambda: not shared_sockets(relay), "and no longer")
        with stopped(first), stopped(second):
            wait_for_silence(relay, 0)
            wait_for_silence(relay, 1)
            time.sleep(5.5)  # longer than the supervisor waits for an answer: nobody can be had
        wait_for_return(relay, 0, 1)
        wait_for(lambda: not shared_sockets(relay), "each accepts for itself")
        greeted(relay.port, 10)


def test_who_stands_in_may_die_and_be_reloaded(tmp_path: Path) -> None:
    with NextHop() as hop, RelayProcess(tmp_path, hop.route, workers=2) as relay:
        pids = numbered_workers(relay)
        with stopped(pids[0]):
            wait_for_silence(relay, 0)
            greeted(relay.port, 10)
            os.kill(pids[1], signal.SIGKILL)
            wait_for(lambda: relay.events("worker-restarted"), "it has a successor")
            greeted(relay.port, 10)
        wait_for_return(relay, 0)
        assert relay.command("reload").returncode == 0
        with stopped(numbered_workers(relay)[0]):
            wait_for_silence(relay, 0)
            greeted(relay.port, 10)
        wait_until_empty(relay)
        assert len(relay.events("worker-died")) == 1
        assert relay.stop() == 0
