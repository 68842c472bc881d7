"""A site with fewer connections than there are workers: one worker, its home, sends for all."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from end_to_end.next_hop import Delivery, NextHop
from end_to_end.relay import (
    MESSAGE,
    QUICK_RETRY,
    clean_relay,
    metrics,
    outcomes,
    queue,
    queued_ids,
    wait_until_empty,
    workers,
)
from end_to_end.smtp_client import SmtpClient
from end_to_end.test_workers import fill, recipients, sessions_of_all, wanted
from page_examples import of_page, retold
from relay_process import RelayProcess, wait_for

from angarium.spool.envelope import decode_id

# Nobody ends an unused connection while a test, or one who sends, is held up for seconds.
ONE = '[shaping.default]\nconnections = 1\nidle_time = "5m"\n'


class Valve:
    """Of a next hop's replies behind the last dot: while it is shut, the first waits, and all else behind it."""

    def __init__(self) -> None:
        self._is_open = threading.Event()

    def __call__(self, line: bytes) -> None:
        assert self._is_open.wait(100), "nobody opened the valve"

    def open(self) -> None:
        self._is_open.set()


def handing_worker(relay: RelayProcess) -> dict[str, Any]:
    """The one of two that is not the home, once it has handed something over."""
    found: list[dict[str, Any]] = wait_for(
        lambda: [each for each in workers(relay) if each["figures"].get("handed")], "one worker hands over"
    )
    (worker,) = found
    return worker


def home_worker(relay: RelayProcess) -> dict[str, Any]:
    number = handing_worker(relay)["figures"]["handed"][0]["worker"]
    (worker,) = (each for each in workers(relay) if each["number"] == number)
    return worker


def wait_for_guests(relay: RelayProcess) -> None:
    """Until the home has as much of the other's mail as it gets before it has answered."""
    wait_for(lambda: metrics(relay)["angarium_handover_guests"] >= 4, "4 references are at the home")


def test_mail_of_two_workers_leaves_over_one_connection(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + ONE, workers=2) as relay:
        fill(relay, 300, sessions=16)
        hop.wait_for_count(300)
        wait_until_empty(relay)
        values = metrics(relay)
        senders = {event["id"][:2] for event in relay.events("delivered")}
    assert recipients(hop) == wanted(300)
    assert len(senders) == 2, "both workers had mail"
    assert hop.peak == 1
    assert hop.connections == 1, "nobody gave it up for the other"
    assert 0 < values["angarium_handover_references_total"] < 300
    assert values["angarium_handover_out"] == values["angarium_handover_guests"] == 0
    assert values["angarium_recipients_delivered_total"] == 300


def test_the_example_of_the_page_gives_a_home_to_small_sites_only(tmp_path: Path) -> None:
    with NextHop() as small, NextHop() as other:
        routes = small.route.replace('"*"', '"small.example"') + other.route
        config = retold(of_page("home-workers.md").rest, {"connections = 32": 'connections = 32\nidle_time = "5m"'})
        with clean_relay(tmp_path, config + routes, workers=4) as relay:
            for number in range(40):
                with SmtpClient(relay.port) as client:
                    client.send(MESSAGE, f"u{number}@small.example")
                    client.send(MESSAGE, f"u{number}@large.example")
            small.wait_for_count(40)
            other.wait_for_count(40)
            wait_until_empty(relay)
            delivered = relay.events("delivered")
    assert len({event["id"][:2] for event in delivered if event["to"].endswith("small.example")}) > 1
    assert small.peak == 1 and small.connections == 1
    assert other.connections > 1, "each worker sends its own"


def test_one_worker_hands_nothing_over_and_has_no_socket(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + ONE, workers=1) as relay:
        fill(relay, 20)
        hop.wait_for_count(20)
        wait_until_empty(relay)
        assert not list(relay.spool.glob("worker-*.sock"))
        assert metrics(relay)["angarium_handover_references_total"] == 0


def test_a_site_with_a_connection_for_each_worker_has_no_home(tmp_path: Path) -> None:
    config = "[shaping.default]\nconnections = 2\n"
    with NextHop() as hop, clean_relay(tmp_path, hop.route + config, workers=2) as relay:
        fill(relay, 100, sessions=16)
        hop.wait_for_count(100)
        wait_until_empty(relay)
        assert metrics(relay)["angarium_handover_references_total"] == 0


def test_both_workers_mail_gets_its_turn(tmp_path: Path) -> None:
    valve = Valve()

    def at_end(line: bytes) -> None:
        """Not before the home has more of the other's mail, if there is any, than what is on the wire: whoever is held
        up for a moment hands nothing over, and the home goes on with its own."""
        valve(line)
        left = handed - sum(shard_of(delivery) == owner for delivery in hop.deliveries)
        wait_for(lambda: metrics(relay)["angarium_handover_guests"] >= min(2, left), "the other has handed over")

    with NextHop(faults={"END": at_end}) as hop, clean_relay(tmp_path, hop.route + ONE, workers=2) as relay:
        fill(relay, 200, sessions=24)
        wait_for_guests(relay)
        owner = handing_worker(relay)["number"]
        handed = sum(decode_id(id_) >> 56 == owner for id_ in queued_ids(relay))
        valve.open()
        hop.wait_for_count(200)
        wait_until_empty(relay)
        sender = {event["to"]: event["id"][:2] for event in relay.events("delivered")}
    order = [sender[delivery.to[0]] for delivery in hop.deliveries]
    each = min(order.count(shard) for shard in set(order))
    assert len(set(order)) == 2 and each >= 40
    # As long as both have mail it is taken in turn; what was on its way before the other's came may be ahead.
    both = order[: 2 * each - 8]
    runs = [len(list(group)) for _, group in itertools.groupby(both[4:])]
    assert max(runs) <= 2, order


def shard_of(delivery: Delivery) -> int:
    """By the id in our trace field."""
    found = re.search(rb" id ([0-9A-Z]{13})", delivery.message)
    assert found is not None, delivery.message
    return decode_id(found[1].decode()) >> 56


SHARED = {
    "provider": '[shaping.provider.both]\ndomains = ["a.example", "b.example"]\nshare = true\nconnections = 1\n',
    "source": '[source.mail1]\naddress = "127.0.0.1"\n[shaping.source.mail1]\nall_sites = { connections = 1 }\n',
}


@pytest.mark.parametrize("limits", SHARED.values(), ids=SHARED)
def test_two_sites_that_share_one_connection_have_one_home(tmp_path: Path, limits: str) -> None:
    now, most = [0], [0]

    def came(line: bytes) -> None:
        now[0] += 1
        most[0] = max(most[0], now[0])

    def went(line: bytes) -> None:
        now[0] -= 1

    faults = {"greeting": came, "QUIT": went}
    with NextHop(faults=faults) as first, NextHop(faults=faults) as second:
        routes = "".join(
            f'[[route]]\ndomain = "{domain}"\nnext_hop = "smtp://127.0.0.1:{hop.port}"\n'
            for domain, hop in (("a.example", first), ("b.example", second))
        )
        with clean_relay(tmp_path, routes + limits, workers=2) as relay:
            fill(relay, 128, sessions=16, domains=("a.example", "b.example"))
            wait_for(lambda: len(first.deliveries) + len(second.deliveries) == 128, "all are delivered", 40)
            wait_until_empty(relay)
            homes = {each["worker"] for worker in workers(relay) for each in worker["figures"]["handed"]}
    assert len(homes) == 1, "one worker for both"
    assert len(first.deliveries) == len(second.deliveries) == 64
    assert most[0] == 1


def test_a_large_body_is_handed_over_whole(tmp_path: Path) -> None:
    numbers = random.Random(1)
    bodies = [
        b"Subject: large\r\n\r\n" + b"".join(b"%0100x\r\n" % numbers.getrandbits(400) for _ in range(octets // 102))
        for octets in (1000, 100_000, 140_000, 300_000, 1_500_000, 4_000_000) * 4
    ]
    with NextHop() as hop, clean_relay(tmp_path, hop.route + ONE, workers=2) as relay:
        for number, body in enumerate(bodies):
            with SmtpClient(relay.port) as client:
                client.send(body, f"r{number}@y.example")
        hop.wait_for_count(len(bodies), 60)
        wait_until_empty(relay)
        assert metrics(relay)["angarium_handover_references_total"] >= 4
    for delivery in hop.deliveries:
        number = int(delivery.to[0].removeprefix("r").partition("@")[0])
        assert delivery.content == bodies[number], number
    assert hop.peak == 1


def test_refusals_come_back_to_the_owner_who_retries_and_reports(tmp_path: Path) -> None:
    later: set[bytes] = set()

    def rcpt(line: bytes) -> bytes | None:
        if b"gone" in line:
            return b"550 5.1.1 no such user"
        if b"later" in line and line not in later:
            later.add(line)
            return b"450 4.2.0 try again"
        return None

    config = QUICK_RETRY + ONE
    with NextHop(faults={"RCPT": rcpt}) as hop, clean_relay(tmp_path, hop.route + config, workers=2) as relay:
        for number in range(24):
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, f"good{number}@y.example", f"later{number}@y.example", f"gone{number}@y.example")
        wait_for(lambda: len(relay.events("failed")) == 24, "24 fail")
        wait_until_empty(relay)
        found = outcomes(relay)
        failed, deferred = relay.events("failed"), relay.events("deferred")
        assert metrics(relay)["angarium_handover_references_total"] > 0
    for number in range(24):
        assert found[f"good{number}@y.example"] == ["delivered"]
        assert found[f"later{number}@y.example"] == ["deferred", "delivered"]
        assert found[f"gone{number}@y.example"] == ["failed"]
    assert {event["reply"] for event in failed} == {"5.1.1 no such user"}
    assert {(event["code"], event["status"], event["class"]) for event in failed} == {(550, "5.1.1", "bad-mailbox")}
    assert all(event["attempt"] == 1 and event["remote"].endswith(f":{hop.port}") for event in failed + deferred)
    reports = [delivery for delivery in hop.deliveries if delivery.mail.startswith(b"MAIL FROM:<>")]
    assert len(reports) == 24, "each sender is told once"
    assert hop.peak == 1


def test_a_killed_home_loses_nothing(tmp_path: Path) -> None:
    valve, config = Valve(), QUICK_RETRY + ONE
    with NextHop(faults={"END": valve}) as hop, RelayProcess(tmp_path, hop.route + config, workers=2) as relay:
        fill(relay, 200, sessions=24)
        home = home_worker(relay)
        wait_for_guests(relay)
        relay.is_log_torn = True
        os.kill(home["pid"], signal.SIGKILL)
        valve.open()
        wait_for(lambda: set(recipients(hop)) == set(wanted(200)), "all are delivered")
        wait_until_empty(relay)
        assert not relay.events("deferred", "failed"), "no attempt is counted for what went down with it"
        assert hop.peak == 1
        assert relay.stop() == 0


def test_a_killed_owner_loses_nothing(tmp_path: Path) -> None:
    valve, config = Valve(), QUICK_RETRY + ONE
    with NextHop(faults={"END": valve}) as hop, RelayProcess(tmp_path, hop.route + config, workers=2) as relay:
        fill(relay, 200, sessions=24)
        owner = handing_worker(relay)
        wait_for_guests(relay)
        relay.is_log_torn = True
        os.kill(owner["pid"], signal.SIGKILL)
        valve.open()
        wait_for(lambda: set(recipients(hop)) == set(wanted(200)), "all are delivered")
        wait_until_empty(relay)
        assert not relay.events("deferred", "failed")
        assert hop.peak == 1
        assert relay.stop() == 0


def test_two_connections_serve_four_workers_of_which_some_die(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    is_over = threading.Event()

    def load(session: int) -> None:
        for number in itertools.count():
            # Whoever is told 250 and nothing less counts; a killed worker's sessions end.
            with contextlib.suppress(OSError, AssertionError), SmtpClient(relay.port) as client:
                client.send(MESSAGE, f"r{session}.{number}@y.example")
                acknowledged.append(f"r{session}.{number}@y.example")
            if is_over.is_set():
                return

    config = QUICK_RETRY + "[shaping.default]\nconnections = 2\n"
    with NextHop() as hop, RelayProcess(tmp_path, hop.route + config, workers=4) as relay:
        relay.is_log_torn = True
        threads = [threading.Thread(target=load, args=(session,)) for session in range(6)]
        for thread in threads:
            thread.start()
        for turn in range(4):
            before = len(hop.deliveries)
            wait_for(lambda before=before: len(hop.deliveries) > before + 50, "mail flows")
            wait_for(lambda: len(relay.workers()) == 4, "four workers run")
            os.kill(relay.workers()[turn % 2 * 2], signal.SIGKILL)
            wait_for(lambda turn=turn: len(relay.events("worker-died")) == turn + 1, "its death is noticed")
        is_over.set()
        for thread in threads:
            thread.join()
        wait_until_empty(relay, 40)
        assert set(acknowledged) <= set(recipients(hop)), "nothing is lost"
        assert hop.peak <= 2
        assert not relay.events("error", "handover-broken", "deferred", "failed")
        assert relay.stop() == 0


def test_an_orderly_stop_gives_back_what_has_not_begun(tmp_path: Path) -> None:
    valve = Valve()
    with NextHop(faults={"END": valve}) as hop:
        with clean_relay(tmp_path, hop.route + ONE, workers=2) as relay:
            fill(relay, 200, sessions=24)
            wait_for_guests(relay)
            idle = sessions_of_all(relay, 2)
            relay.signal(signal.SIGTERM)
            for client in idle:
                assert client.reply()[0] == 421, "each worker has been told"
                client.close()
            valve.open()
            assert relay.wait() == 0
            before = len(hop.deliveries)
            assert before < 200
        with clean_relay(tmp_path, hop.route + ONE, workers=2) as relay:
            hop.wait_for_count(200)
            wait_until_empty(relay)
    assert recipients(hop) == wanted(200), "each once"


def test_a_reload_ends_and_begins_homes_while_mail_flows(tmp_path: Path) -> None:
    sent: list[str] = []
    is_over = threading.Event()

    def load(session: int) -> None:
        with SmtpClient(relay.port) as client:
            while not is_over.is_set():
                mailbox = f"r{session}.{len(sent)}@y.example"
                sent.append(mailbox)  # the last one may be another session's by now
                client.send(MESSAGE, mailbox)

    with NextHop() as hop, clean_relay(tmp_path, hop.route + ONE, workers=2) as relay:
        threads = [threading.Thread(target=load, args=(session,)) for session in range(1, 7)]
        for thread in threads:
            thread.start()
        for turn in range(6):
            before = len(sent)
            wait_for(lambda before=before: len(sent) > before + 50, "mail flows")
            relay.write_config(hop.route + (ONE if turn % 2 else "[shaping.default]\nconnections = 8\n"))
            assert relay.command("reload").returncode == 0
        is_over.set()
        for thread in threads:
            thread.join()
        wait_until_empty(relay, 60)
        assert sorted(recipients(hop)) == sorted(sent), "each once"


def test_a_reload_that_lifts_the_limit_gives_back_what_waits_at_the_home(tmp_path: Path) -> None:
    valve = Valve()
    with NextHop(faults={"END": valve}) as hop, clean_relay(tmp_path, hop.route + ONE, workers=2) as relay:
        fill(relay, 200, sessions=24)
        wait_for_guests(relay)
        relay.write_config(hop.route + "[shaping.default]\nconnections = 8\n")
        assert relay.command("reload").returncode == 0
        wait_for(lambda: metrics(relay)["angarium_handover_guests"] <= 2, "all but what is on the wire has gone back")
        wait_for(lambda: not any(each["figures"]["handed"] for each in workers(relay)), "and nobody hands over")
        valve.open()
        hop.wait_for_count(200)
        wait_until_empty(relay)
        assert recipients(hop) == wanted(200)
        assert hop.peak > 1


def test_the_queue_says_where_a_message_is_and_why_the_rest_waits(tmp_path: Path) -> None:
    valve = Valve()
    with NextHop(faults={"END": valve}) as hop, clean_relay(tmp_path, hop.route + ONE, workers=2) as relay:
        fill(relay, 200, sessions=24)
        worker = handing_worker(relay)
        home = worker["figures"]["handed"][0]["worker"]
        wait_for_guests(relay)
        places = {tuple(each["places"]): each["id"] for each in queue(relay)}
        handed = places[f"handed to worker {home}",]
        done = relay.command("explain", handed)
        assert f"handed to worker {home}, which sends for its site" in done.stdout, done.stdout
        waiting = [each["id"] for each in queue(relay) if each["places"] == ["ready"]]
        texts = [relay.command("explain", id_).stdout for id_ in (waiting[0], waiting[-1])]
        assert any(f"worker {home} sends for its site" in text for text in texts), texts
        valve.open()
        hop.wait_for_count(200)
        wait_until_empty(relay)


def test_behind_a_reload_a_worker_that_was_started_again_hands_over_as_before(tmp_path: Path) -> None:
    """One has the configuration from the file, the other from its supervisor: what they know it by is the same."""
    config = '[shaping.default]\nconnections = 1\nidle_time = "7s"\n'
    with NextHop() as hop, RelayProcess(tmp_path, hop.route + ONE, workers=2) as relay:
        relay.write_config(hop.route + config)
        relay.signal(signal.SIGHUP)
        wait_for(lambda: relay.events("reloaded"), "the reload is over")
        relay.is_log_torn = True
        victim = workers(relay)[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: relay.events("worker-restarted"), "it has a successor")
        fill(relay, 200, sessions=16)
        hop.wait_for_count(200)
        wait_until_empty(relay)
        values = metrics(relay)
        assert relay.stop() == 0
    assert recipients(hop) == wanted(200)
    assert values["angarium_handover_references_total"] > 0
    assert hop.peak == 1
