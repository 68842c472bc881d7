"""Attacks from outside on a whole relay of two workers, each by its name: nobody gets more than the limits give, and
ordinary clients go on."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, metrics, worker_of
from end_to_end.smtp_client import SmtpClient
from end_to_end.test_hostile_clients import memory_octets, wait_for_no_sessions
from relay_process import RelayProcess, maildir_route, wait_for

PUBLIC = 'relay_to = ["y.example"]'
GOOD = "127.0.0.9"  # an ordinary client's address; strangers come from others
ROOT = Path(__file__).parents[2]


def connect(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20, (source, 0))


def first_code(client: socket.socket) -> int:
    client.settimeout(20)
    return int(client.recv(1000)[:3] or b"0")


@contextlib.contextmanager
def all_closed(clients: list[socket.socket]) -> Iterator[None]:
    try:
        yield
    finally:
        for client in clients:
            client.close()


def test_connection_flood_from_one_address_is_turned_away_over_all_workers(tmp_path: Path) -> None:
    config = "[admission]\nexempt = []\n[[admission.limit]]\nconnections = 20\n"
    with NextHop() as hop, clean_relay(tmp_path, config + hop.route, workers=2, listener=PUBLIC) as relay:
        clients = [connect(relay.port, "127.0.0.2") for _ in range(100)]
        with all_closed(clients):
            codes = [first_code(client) for client in clients]
            assert (codes.count(220), codes.count(421)) == (20, 80)
            with SmtpClient(relay.port, source=GOOD) as good:
                good.send(MESSAGE)
        hop.wait_for_count(1)
        wait_for_no_sessions(relay)
        assert metrics(relay)["angarium_in_network_connections_total"] == 80
        with connect(relay.port, "127.0.0.2") as again:
            assert first_code(again) == 220


def test_connection_flood_from_many_addresses_stops_at_what_the_machine_may_hold(tmp_path: Path) -> None:
    config = "[admission]\nexempt = []\nmax_sessions = 60\n"
    with NextHop() as hop, clean_relay(tmp_path, config + hop.route, workers=2, listener=PUBLIC) as relay:
        clients = [connect(relay.port, f"127.0.1.{number}") for number in range(1, 201)]
        with all_closed(clients):
            codes = [first_code(client) for client in clients]
            assert codes.count(220) == 60
            assert codes.count(421) == 140
            # Three quarters of the bound are over: who holds a place and says nothing loses it after ten seconds.
            wait_for(lambda: metrics(relay)["angarium_in_tight"] == 2, "both workers are tight")
            wait_for(lambda: metrics(relay)["angarium_in_sessions"] < 60, "places come back")
            with SmtpClient(relay.port, source=GOOD) as good:
                good.send(MESSAGE)
        hop.wait_for_count(1)


def test_a_dead_workers_places_are_given_back(tmp_path: Path) -> None:
    config = "[admission]\nexempt = []\nmax_sessions = 30\n[[admission.limit]]\nconnections = 10\n"
    listener = f'address = "127.0.0.1:0"\n{PUBLIC}\n'
    with NextHop() as hop, RelayProcess(tmp_path, config + hop.route, listener=listener) as relay:
        clients = [connect(relay.port, "127.0.0.2") for _ in range(10)]
        with all_closed(clients):
            assert {first_code(client) for client in clients} == {220}
            (worker,) = relay.workers()
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: relay.workers() and relay.workers() != [worker], "another worker")
            others = [connect(relay.port, "127.0.0.2") for _ in range(10)]
            with all_closed(others):
                assert {first_code(client) for client in others} == {220}


def test_a_listeners_sessions_are_limited_over_all_workers_and_a_dead_one_gives_its_places_back(tmp_path: Path) -> None:
    listener = f'address = "127.0.0.1:0"\n{PUBLIC}\nmax_sessions = 20\n'
    config = "[admission.tight]\nfrom_percent = 0\n"  # nobody is ended for saying nothing
    with NextHop() as hop, RelayProcess(tmp_path, config + hop.route, workers=2, listener=listener) as relay:
        clients: list[socket.socket] = []
        with all_closed(clients):
            # Both serve somebody; the other 18 places are whoever's.
            places = (relay.port, "127.0.0.2")
            clients.append(connect(*places))
            codes = [first_code(clients[0])]

            def is_served_by_the_other() -> bool:
                client = connect(*places)
                code = first_code(client)
                if worker_of(relay, client) in (0, worker_of(relay, clients[0])):
                    client.close()
                    wait_for(lambda: metrics(relay)["angarium_in_sessions"] == 1, "its place is free")
                    return False
                clients.append(client)
                codes.append(code)
                return True

            wait_for(is_served_by_the_other, "both workers serve")
            while len(codes) < 100:
                # One after the other: of a crowd the worker that wakes up first would take all places.
                clients.append(connect(relay.port, "127.0.0.2"))
                codes.append(first_code(clients[-1]))
            assert (codes.count(220), codes.count(421)) == (20, 80)
            before = relay.workers()
            os.kill(before[0], signal.SIGKILL)
            wait_for(lambda: len(relay.workers()) == 2 and before[0] not in relay.workers(), "another worker")
            alive = sum(1 for client, code in zip(clients, codes, strict=True) if code == 220 and not is_over(client))
            assert 0 < alive < 20, "one worker's sessions went with it"
            others = [connect(relay.port, "127.0.0.2") for _ in range(100)]
            with all_closed(others):
                assert [first_code(client) for client in others].count(220) == 20 - alive
        wait_for_no_sessions(relay)


def is_over(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_the_memory_of_sessions_is_limited_over_all_workers(tmp_path: Path) -> None:
    """Two workers, each well below the bound: together they are over it."""
    config = "[admission]\nmax_session_memory = \"400KiB\"\n[admission.tight]\nfrom_percent = 0\n"
    with NextHop() as hop, clean_relay(tmp_path, config + hop.route, workers=2, listener=PUBLIC) as relay:
        clients: list[socket.socket] = []
        with all_closed(clients):

            def is_full() -> bool:
                clients.append(connect(relay.port, GOOD))
                return first_code(clients[-1]) == 421

            wait_for(is_full, "together they hold too much")
            assert metrics(relay)["angarium_in_memory_full_total"] >= 1
            assert 400 << 10 <= metrics(relay)["angarium_in_session_memory_octets"] < 2 * (400 << 10)
        wait_for_no_sessions(relay)

        def is_let_in() -> bool:
            with connect(relay.port, GOOD) as client:
                return first_code(client) == 220

        wait_for(is_let_in, "there is room again")


@pytest.mark.parametrize("where", ["command", "data"])
def test_slowloris_clients_are_ended_whatever_they_trickle(tmp_path: Path, where: str) -> None:
    """An octet of a command, or of message data, every moment: when they are many the load is high and the time that
    they have short, until they are few again. Ordinary mail goes on beside them."""
    listener = f"{PUBLIC}\nmax_sessions = 40"
    config = '[admission.tight]\ncommand_timeout = "8s"\ndata_timeout = "8s"\nmessage_time = "10s"\n'
    with NextHop() as hop, clean_relay(tmp_path, config + hop.route, listener=listener) as relay:
        crawlers = [SmtpClient(relay.port) for _ in range(34)]
        for client in crawlers if where == "data" else []:
            client.open()
            assert client.ask(b"DATA\r\n")[0] == 354
        ended: set[int] = set()
        began = time.monotonic()
        while len(crawlers) - len(ended) >= 24:  # three fifths of max_sessions
            assert time.monotonic() - began < 60, "they hold on"
            for number, client in enumerate(crawlers):
                if number not in ended and select.select([client.socket], [], [], 0)[0]:
                    assert client.reply()[0] == 421
                    ended.add(number)
                elif number not in ended:
                    client.say(b"x")
            with SmtpClient(relay.port) as quick:
                quick.send(MESSAGE)
            time.sleep(0.05)
        for client in crawlers:
            client.close()
        wait_for(lambda: relay.events("load-normal"), "the load is normal again")
        assert relay.events("load-high")


def test_memory_growth_by_a_single_session_is_bounded(tmp_path: Path) -> None:
    """Whatever a session may pile up, in every state: endless lines, headers, recipients, chunks, AUTH and HELO."""
    endless = [
        b"EHLO " + b"a" * 8_000_000,
        b"EHLO x\r\nMAIL FROM:<" + b"a" * 8_000_000,
        b"EHLO x\r\nMAIL FROM:<a@x.example>" + b" X=" + b"y" * 8_000_000,
        b"EHLO x\r\nMAIL FROM:<a@x.example>\r\n" + b"RCPT TO:<bbbbbbbbbbbbbbbbbbbbbbbbbb@y.example>\r\n" * 200_000,
        b"EHLO x\r\nAUTH PLAIN " + b"A" * 8_000_000,
        b"EHLO x\r\n" + b"NOOP\r\n" * 1_000_000,
        b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n",
        b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nBDAT 50000000\r\n" + b"x" * 8_000_000,
    ]
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=PUBLIC) as relay:
        with SmtpClient(relay.port) as warm:
            warm.send(MESSAGE)
        before = memory_octets(relay)
        worst = 0
        for octets in endless:
            client = connect(relay.port, GOOD)
            assert first_code(client) == 220
            client.settimeout(5)
            more = b"x" * 990 + b"\r\n" if octets.endswith(b"DATA\r\n") else b""
            with contextlib.suppress(OSError):
                client.sendall(octets)
                for _ in range(20_000 if more else 0):
                    client.sendall(more)
            worst = max(worst, memory_octets(relay) - before)
            client.close()
        wait_for_no_sessions(relay)
        assert worst < 24 << 20, f"{worst >> 20} MiB"
        assert metrics(relay)["angarium_in_messages_total"] == 1


@pytest.mark.parametrize("is_routed", [True, False])
def test_postmaster_is_reached_by_strangers_where_the_host_name_is_routed(tmp_path: Path, is_routed: bool) -> None:
    """RFC 5321 §4.5.1; the listener's relay_to does not name mx.test."""
    with NextHop() as hop:
        address = f"smtp://{hop.address}:{hop.port}"
        route = f'[[route]]\ndomain = "{"MX.Test" if is_routed else "y.example"}"\nnext_hop = "{address}"\n'
        with clean_relay(tmp_path, route, listener=PUBLIC) as relay, connect(relay.port, GOOD) as client:
            assert first_code(client) == 220
            for command, code in ((b"HELO x", 250), (b"MAIL FROM:<a@x.example>", 250)):
                client.sendall(command + b"\r\n")
                assert first_code(client) == code
            client.sendall(b"RCPT TO:<b@mx.test>\r\n")
            assert first_code(client) == 550
            client.sendall(b"RCPT TO:<Postmaster>\r\n")
            assert first_code(client) == (250 if is_routed else 550)
            if is_routed:
                client.sendall(b"DATA\r\n")
                assert first_code(client) == 354
                client.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n")
                assert first_code(client) == 250
                hop.wait_for_count(1)
                assert hop.deliveries[0].to == ["Postmaster@mx.test"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS", "CONNECT", "PROPFIND"])
def test_http_cross_protocol_post_is_ended_at_its_first_line(tmp_path: Path, method: str) -> None:
    """A browser made to post a whole dialogue to port 25: no line of the body is taken for a command."""
    dialogue = b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n\r\nx\r\n.\r\nQUIT\r\n"
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=PUBLIC) as relay:
        request = b"%s / HTTP/1.1\r\nHost: mx:25\r\nContent-Length: %d\r\n\r\n" % (method.encode(), len(dialogue))
        with connect(relay.port, GOOD) as client:
            assert first_code(client) == 220
            client.sendall(request + dialogue)
            client.settimeout(20)
            answer = b""
            while octets := client.recv(4096):
                answer += octets
        assert answer.startswith(b"502 5.5.1 This is an SMTP server, not HTTP\r\n")
        assert answer.count(b"\r\n") == 1
        assert metrics(relay)["angarium_in_messages_total"] == 0


@pytest.mark.parametrize(
    "hello",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),  # a TLS ClientHello on a plain port
        b"\x80\x2e\x01\x00\x02",  # SSL 2
        b"SSH-2.0-x\r\n",
        b"\x00\x00\x00\x71\xffSMB",
        b"\x03\x00\x00\x13\x0e\xe0",  # RDP
    ],
    ids=["tls", "ssl2", "ssh", "smb", "rdp"],
)
def test_other_protocols_are_ended_or_understood_as_nothing(tmp_path: Path, hello: bytes) -> None:
    with (
        NextHop() as hop,
        clean_relay(tmp_path, hop.route, listener=PUBLIC) as relay,
        connect(relay.port, GOOD) as client,
    ):
        assert first_code(client) == 220
        client.sendall(hello)
        assert first_code(client) in (521, 500)
        if not hello[:1].isascii() or hello[0] < 32:
            assert client.recv(100) == b"", "closed at once"


@pytest.mark.parametrize(
    "octets",
    [
        b"HELO x\r\nMAIL FROM:<a@x.example>\r\n",  # before EHLO has offered PIPELINING
        b"EHLO x\r\nMAIL FROM:<a@x.example>\r\n",  # behind EHLO, which ends a group
        b"EHLO x\r\nNOOP\r\nMAIL FROM:<a@x.example>\r\n",
    ],
    ids=["helo", "ehlo", "noop"],
)
def test_unauthorised_pipelining_ends_the_session(tmp_path: Path, octets: bytes) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=PUBLIC) as relay:
        with connect(relay.port, GOOD) as client:
            assert first_code(client) == 220
            client.sendall(octets)
            client.settimeout(20)
            answer = b""
            while more := client.recv(4096):
                answer += more
        assert answer.splitlines()[-1].startswith(b"503 5.5.0 Improper pipelining")


def test_greylisting_holds_over_workers_and_restarts(tmp_path: Path) -> None:
    config = "[admission]\nexempt = []\n[admission.greylist]\ndelay = \"1s\"\npasses = 0\n"
    with NextHop() as hop, clean_relay(tmp_path, config + hop.route, workers=2, listener=PUBLIC) as relay:

        def code() -> int:
            with SmtpClient(relay.port) as client:
                client.ask(b"MAIL FROM:<a@x.example>\r\n")
                return client.ask(b"RCPT TO:<b@y.example>\r\n")[0]

        assert code() == 450
        assert relay.stop() == 0
        relay.start()
        assert wait_for(lambda: code() == 250, "the second try passes")
        assert [code() for _ in range(20)] == [250] * 20, "in every worker"
        assert (tmp_path / "spool" / "greylist.db").exists()


def test_the_example_of_the_page_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "admission.md").read_text()
    example = re.search(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert example is not None
    whole = example[1].replace("127.0.0.1:2525", "127.0.0.1:0").replace('greet_wait    = "3s"', 'greet_wait = "100ms"')
    # The public listener only: the fixture's own takes its place, and loopback is a stranger here.
    rest = whole[whole.index("[admission]") :] + '[resolver]\nnameservers = ["127.0.0.1:9"]\ntimeout = "100ms"\n'
    listener = 'relay_to = ["example.net"]'
    with clean_relay(tmp_path, rest + maildir_route(tmp_path), workers=2, listener=listener) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "you@example.net")
            for _ in range(5):
                assert client.ask(b"WHAT\r\n")[0] == 500
            began = time.monotonic()
            assert client.ask(b"NOOP\r\n")[0] == 250
            assert time.monotonic() - began > 1.5
        with SmtpClient(relay.port, hello=b"") as client:
            assert client.reply()[0] == 220
            client.ask(b"HELO mx.test\r\n")
            client.ask(b"MAIL FROM:<a@x.example>\r\n")
            code, text = client.ask(b"RCPT TO:<you@example.net>\r\n")
            assert (code, text) == (550, "5.7.1 Client [127.0.0.1] refused: helo-is-ours")
