"""Several workers as one relay: limits of the whole machine, workers that die, and shards when their number changes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from end_to_end.next_hop import CLOSE, NextHop
from end_to_end.relay import (
    MESSAGE,
    NO_RETRY,
    QUICK_RETRY,
    clean_relay,
    metrics,
    queue,
    wait_until_empty,
    worker_of,
)
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for


def sessions_of_all(relay: RelayProcess, count: int) -> list[SmtpClient]:
    """So many sessions, to each worker its part. Left to the kernel that is chance, and while a worker is held up for
    more than a second, as on a busy machine, others accept for it.
    """
    of_worker: dict[int, list[SmtpClient]] = {}
    most = -(-count // relay.workers_wanted)

    def joins() -> bool:
        client = SmtpClient(relay.port)
        found = of_worker.setdefault(worker_of(relay, client.socket), [])
        if len(found) == most:
            client.close()
            return False
        found.append(client)
        return True

    for _ in range(count):
        wait_for(joins, "each worker has its part of the sessions")
    return [client for found in of_worker.values() for client in found]


def fill(relay: RelayProcess, count: int, sessions: int = 8, domains: tuple[str, ...] = ("y.example",)) -> None:
    """`count` messages by so many sessions at once, to every worker its part of them; to each domain in turn."""

    def send(first: int, client: SmtpClient) -> None:
        with client:
            for number in range(first, count, sessions):
                client.send(MESSAGE, f"r{number}@{domains[number // sessions % len(domains)]}")

    clients = sessions_of_all(relay, sessions)
    threads = [threading.Thread(target=send, args=(first, client)) for first, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def recipients(hop: NextHop) -> list[str]:
    return sorted(to for delivery in hop.deliveries for to in delivery.to)


def wanted(count: int) -> list[str]:
    return sorted(f"r{number}@y.example" for number in range(count))


def test_no_shard_is_orphaned_when_three_workers_become_one_and_two(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": lambda _: b"450 4.2.0 later"}) as hop:
        config = hop.route + NO_RETRY
        with clean_relay(tmp_path, config, workers=3) as relay:
            fill(relay, 60, sessions=24)
            wait_for(lambda: len(relay.events("deferred")) == 60, "all are deferred")
            assert len(list((tmp_path / "spool").glob("[0-9][0-9]"))) == 3
            assert len({each["id"][:2] for each in queue(relay)}) > 1, "several shards have mail"
        with clean_relay(tmp_path, config, workers=1) as relay:
            wait_for(lambda: len(queue(relay)) == 60, "one worker has loaded all three shards")
        hop.faults.clear()
        with clean_relay(tmp_path, config, workers=2) as relay:
            wait_for(lambda: len(queue(relay)) == 60, "two workers have loaded them")
            relay.command("queue", "retry", "--all")
            wait_for(lambda: len(hop.deliveries) == 60, "all are delivered")
            wait_until_empty(relay)
        assert recipients(hop) == wanted(60)


def test_a_killed_workers_queue_goes_on_within_seconds_and_the_other_worker_never_stops(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": lambda _: b"450 4.2.0 later"}) as hop, RelayProcess(
        tmp_path, hop.route + QUICK_RETRY, workers=2
    ) as relay:
        fill(relay, 40, sessions=16)
        wait_for(lambda: len(relay.events("deferred")) >= 40, "all were tried")
        first, second = relay.workers()
        os.kill(first, signal.SIGKILL)
        hop.faults.clear()
        wait_for(lambda: len(hop.deliveries) >= 40, "all are delivered")
        assert second in relay.workers()
        wait_until_empty(relay)
        assert set(recipients(hop)) == set(wanted(40))
        assert relay.stop() == 0


def test_the_connection_limit_holds_for_the_whole_machine(tmp_path: Path) -> None:
    slow = {"END": lambda _: time.sleep(0.002)}
    with NextHop(faults=slow) as hop:
        config = f"{hop.route}[shaping.default]\nconnections = 3\n"
        with clean_relay(tmp_path, config, workers=2) as relay:
            fill(relay, 300, sessions=16)
            hop.wait_for_count(300)
            wait_until_empty(relay)
        assert 1 < hop.peak <= 3
        assert recipients(hop) == wanted(300)


def test_one_connection_for_two_workers_serves_both(tmp_path: Path) -> None:
    """One of them, the home of the site, sends for both: test_home_workers.py."""
    with NextHop() as hop:
        config = f"{hop.route}[shaping.default]\nconnections = 1\n"
        with clean_relay(tmp_path, config, workers=2) as relay:
            fill(relay, 200, sessions=16)
            hop.wait_for_count(200)
            wait_until_empty(relay)
        assert hop.peak == 1
        assert recipients(hop) == wanted(200)


def test_the_rate_holds_for_the_whole_machine(tmp_path: Path) -> None:
    is_filled = threading.Event()
    with NextHop(faults={"greeting": lambda _: None if is_filled.wait(100) else CLOSE}) as hop:
        config = f'{hop.route}[shaping.default]\nmessage_rate = "50/s"\n'
        with clean_relay(tmp_path, config, workers=2) as relay:
            fill(relay, 150, sessions=16)
            is_filled.set()
            hop.wait_for_count(150)
            wait_until_empty(relay)
        times = [delivery.at_mono_s for delivery in hop.deliveries]
        took_s = times[-1] - times[0]
        # A burst of a tenth of a second's worth is allowed. Once the relay kept to half the rate: its timers were
        # ticks of 100 ms, rounded up.
        assert (150 - 1 - 5) / 50 * 0.95 <= took_s <= 150 / 50 * 1.4
        for start in range(0, 100, 10):
            assert times[start + 49] - times[start] > 0.7, "in no stretch faster than the rate and its burst"


OVER_TWO_SITES = {
    "provider": '[shaping.provider.both]\ndomains = ["a.example", "b.example"]\nshare = true\n'
    'message_rate = "80/s"\nconnections = 5\n',
    "source": '[source.mail1]\naddress = "127.0.0.1"\n'
    '[shaping.source.mail1]\nall_sites = { connections = 5, message_rate = "80/s" }\n',
}


@pytest.mark.parametrize("limits", OVER_TWO_SITES.values(), ids=OVER_TWO_SITES)
def test_one_rate_for_two_sites_over_two_workers(tmp_path: Path, limits: str) -> None:
    """Never faster than one worker alone would send. How near they come, benchmarks/macro/limits.py says."""
    count, rate = 400, 80
    with NextHop() as first, NextHop() as second:
        config = (
            f'[[route]]\ndomain = "a.example"\nnext_hop = "smtp://127.0.0.1:{first.port}"\n'
            f'[[route]]\ndomain = "b.example"\nnext_hop = "smtp://127.0.0.1:{second.port}"\n'
            f"{limits}"
        )
        with clean_relay(tmp_path, config, workers=2) as relay:
            filling = threading.Thread(target=fill, args=(relay, count, 20, ("a.example", "b.example")))
            filling.start()
            wait_for(lambda: len(first.deliveries) + len(second.deliveries) == count, "all are delivered", 30)
            filling.join()
            wait_until_empty(relay)
            senders = {event["id"][:2] for event in relay.events("delivered")}
        assert len(senders) == 2, "both workers sent"
        times = sorted(delivery.at_mono_s for hop in (first, second) for delivery in hop.deliveries)
        # The first second is left out: the burst of a tenth of a second's worth lies in it, and the filling.
        begun = next(index for index, at in enumerate(times) if at >= times[0] + 1.0)
        assert (count - 1 - begun) / (times[-1] - times[begun]) < 1.25 * rate, "each worker by itself sends twice that"
        assert len(first.deliveries) == len(second.deliveries) == count // 2
        assert 1 <= max(first.peak, second.peak) <= 5


def test_messages_per_connection_is_kept_to(tmp_path: Path) -> None:
    with NextHop() as hop:
        config = f"{hop.route}[shaping.default]\nmessages_per_connection = 5\n"
        with clean_relay(tmp_path, config, workers=2) as relay:
            fill(relay, 100)
            hop.wait_for_count(100)
            wait_until_empty(relay)
        of_connection: dict[int, int] = {}
        for delivery in hop.deliveries:
            of_connection[delivery.connection] = of_connection.get(delivery.connection, 0) + 1
        assert max(of_connection.values()) <= 5


def test_counters_add_up_over_workers(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, workers=2) as relay:
        fill(relay, 100)
        hop.wait_for_count(100)
        wait_until_empty(relay)
        wait_for(lambda: metrics(relay)["angarium_in_sessions"] == 0, "that clients have left is noticed")
        values = metrics(relay)
        assert values["angarium_in_messages_total"] == 100
        assert values["angarium_recipients_delivered_total"] == 100
        assert values["angarium_queue_messages"] == 0
        assert values["angarium_queue_recipients"] == 0


def test_a_reload_while_mail_flows_loses_nothing(tmp_path: Path) -> None:
    sent: list[str] = []
    is_over = threading.Event()

    def load(session: int) -> None:
        with SmtpClient(relay.port) as client:
            while not is_over.is_set():
                mailbox = f"r{session}.{len(sent)}@y.example"
                sent.append(mailbox)  # the last one may be another session's by now
                client.send(MESSAGE, mailbox)

    with NextHop() as first, NextHop() as second, clean_relay(tmp_path, first.route, workers=2) as relay:
        threads = [threading.Thread(target=load, args=(session,)) for session in range(1, 5)]
        for thread in threads:
            thread.start()
        for turn in range(6):
            before = len(sent)
            wait_for(lambda before=before: len(sent) > before + 50, "mail flows")
            relay.write_config((second if turn % 2 == 0 else first).route)
            assert relay.command("reload").returncode == 0
        is_over.set()
        for thread in threads:
            thread.join()
        wait_until_empty(relay)
        assert sorted(recipients(first) + recipients(second)) == sorted(sent)
        assert second.deliveries
