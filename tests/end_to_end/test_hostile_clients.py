"""Clients that break off, crawl, babble or push ahead: nothing of theirs in the queue, nothing left behind."""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, metrics, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

SEED = 5

DIALOGUES = {
    "DATA": b"EHLO x\r\nMAIL FROM:<a@x.example> BODY=8BITMIME\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\n"
    b"DATA\r\nSubject: cut\r\n\r\nbody\r\n..\r\n.\r",
    "BDAT": b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nBDAT 10\r\n0123456\r\n\r"
    b"BDAT 20 LAST\r\n0123456789012345678",
}


def reset(client: socket.socket) -> None:
    """Ends the connection with RST, as a crashed client's kernel would."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def wait_for_no_sessions(relay: RelayProcess) -> None:
    wait_for(lambda: metrics(relay)["angarium_in_sessions"] == 0, "all sessions are gone")


@pytest.mark.parametrize("way", DIALOGUES)
@pytest.mark.parametrize("end", ["close", "reset"])
def test_breaking_off_at_any_octet_leaves_nothing_behind(tmp_path: Path, way: str, end: str) -> None:
    """Every prefix of a dialogue but the whole one: sent in one go, as the pipelining of a hurried client."""
    octets = DIALOGUES[way]
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        before = None
        for cut in range(len(octets) + 1):
            client = socket.create_connection(("127.0.0.1", relay.port), 20)
            # Bytes before the greeting would end the session: read it first.
            assert client.recv(4096).startswith(b"220 ")
            client.sendall(octets[:cut])
            if cut % 3 == 0:
                client.settimeout(0.02)
                try:
                    while client.recv(65536):
                        pass
                except TimeoutError:
                    pass
            reset(client) if end == "reset" else client.close()
            if cut == 20:
                wait_for_no_sessions(relay)
                before = memory_octets(relay)
        wait_for_no_sessions(relay)
        assert before is not None
        assert memory_octets(relay) - before < 4 << 20
        assert metrics(relay)["angarium_in_messages_total"] == 0
        assert metrics(relay)["angarium_queue_messages"] == 0
        # And the relay is as well as before.
        with SmtpClient(relay.port) as good:
            good.send(MESSAGE)
        hop.wait_for_count(1)


def memory_octets(relay: RelayProcess) -> int:
    """Resident memory of the workers."""
    total = 0
    for pid in relay.workers():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def test_breaking_off_inside_a_streamed_message_gives_its_room_back(tmp_path: Path) -> None:
    """Chunks that are on disk already are nobody's: their segments must not stay pinned."""
    body = b"x" * 70 + b"\r\n"
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        for turn in range(40):
            client = SmtpClient(relay.port)
            client.open()
            if turn % 2:
                assert client.ask(b"DATA\r\n")[0] == 354
                client.say(body * 30_000)
            else:
                client.say(b"BDAT 5000000\r\n" + body * 30_000)
            reset(client.socket)
            client.replies.close()
        wait_for_no_sessions(relay)
        with SmtpClient(relay.port) as good:
            for _ in range(3):
                good.send(b"Subject: x\r\n\r\n" + body * 20_000)
        hop.wait_for_count(3)
        wait_until_empty(relay)
        # 80 MiB were written in vain, a segment is 64 MiB: sealed ones are free again.
        wait_for(lambda: metrics(relay)["angarium_spool_segments"] <= 2, "segments are free again")


def test_slow_clients_are_ended_by_the_deadline_and_hold_up_nobody(tmp_path: Path) -> None:
    listener = 'relay_from = ["127.0.0.0/8"]\ncommand_timeout = "6s"\ndata_timeout = "6s"'
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=listener) as relay:
        silent = [SmtpClient(relay.port, hello=b"") for _ in range(20)]
        in_data = SmtpClient(relay.port)
        in_data.open()
        assert in_data.ask(b"DATA\r\n")[0] == 354
        in_chunk = SmtpClient(relay.port)
        in_chunk.open()
        in_chunk.say(b"BDAT 100 LAST\r\nabc")
        crawler = SmtpClient(relay.port)
        said, began = 0, time.monotonic()
        # One octet of a command at a time: the deadline is for the whole command.
        while time.monotonic() - began < 30 and not select.select([crawler.socket], [], [], 0.1)[0]:
            crawler.say(b"N")
            said += 1
        assert crawler.reply()[0] == 421
        assert said > 3
        with SmtpClient(relay.port) as quick:
            quick.send(MESSAGE)
        assert in_data.reply()[0] == 421
        assert in_chunk.reply()[0] == 421
        for client in silent:
            assert client.reply()[0] == 220
            assert client.reply()[0] == 421
            assert client.reply() == (0, ""), "and then the connection ends"
            client.close()
        for client in (in_data, in_chunk, crawler):
            client.close()
        wait_for_no_sessions(relay)
        hop.wait_for_count(1)
        wait_until_empty(relay)
        assert metrics(relay)["angarium_in_messages_total"] == 1


def test_garbage_is_answered_and_ended_and_changes_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    verbs = [b"EHLO", b"MAIL FROM:", b"RCPT TO:<", b"DATA", b"BDAT ", b"\r\n", b"\r", b"\n", b"\0", b">", b" ", b"RSET"]
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        for turn in range(60):
            client = socket.create_connection(("127.0.0.1", relay.port), 20)
            client.recv(4096)
            try:
                if turn % 3 == 0:
                    client.sendall(chance.randbytes(20_000))
                elif turn % 3 == 1:
                    client.sendall(b"A" * 100_000)
                else:
                    client.sendall(b"".join(chance.choice(verbs) for _ in range(3000)))
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except OSError:
                pass                # it was closed on us, as it should be
            client.close()
        wait_for_no_sessions(relay)
        assert metrics(relay)["angarium_in_messages_total"] == 0
        with SmtpClient(relay.port) as good:
            good.send(MESSAGE)
        hop.wait_for_count(1)


def test_bytes_before_the_greeting_and_behind_data_are_refused(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        # DATA ends a group (RFC 2920 §3.1): what stands behind it in the same write is message data, and a whole
        # second transaction behind the final dot is a group of its own.
        with SmtpClient(relay.port) as client:
            group = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
            client.say(group)
            assert client.codes(3) == [250, 250, 354]
            client.say(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n" + group)
            assert client.codes(4) == [250, 250, 250, 354]
            client.say(b".\r\nQUIT\r\nNOOP\r\n")
            assert client.codes(3) == [250, 221, 0], "nothing is heard after QUIT"
        hop.wait_for_count(2)


def test_a_client_that_never_reads_replies_costs_no_memory(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        before = memory_octets(relay)
        clients = []
        for _ in range(10):
            client = socket.create_connection(("127.0.0.1", relay.port), 20)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.recv(100)
            client.setblocking(False)
            clients.append(client)
        end = time.monotonic() + 2
        pushed = 0
        while time.monotonic() < end:
            for client in clients:
                try:
                    pushed += client.send(b"EHLO x\r\n" * 8000)
                except (BlockingIOError, ConnectionError):
                    continue
        assert memory_octets(relay) - before < 32 << 20, f"after {pushed} octets of commands"
        with SmtpClient(relay.port) as good:
            good.send(MESSAGE)
        hop.wait_for_count(1)
        for client in clients:
            client.close()
        wait_for_no_sessions(relay)


def test_many_connections_come_and_go(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, workers=2) as relay:

        def visit() -> None:
            for _ in range(100):
                with SmtpClient(relay.port) as client:
                    client.say(b"QUIT\r\n")

        visitors = [threading.Thread(target=visit) for _ in range(6)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        wait_for_no_sessions(relay)
        assert metrics(relay)["angarium_queue_messages"] == 0


def test_the_message_size_limit_holds_announced_and_actual(tmp_path: Path) -> None:
    listener = 'relay_from = ["127.0.0.0/8"]\nmax_message_octets = "1MiB"'
    body = b"x" * 70 + b"\r\n"
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=listener) as relay:
        with SmtpClient(relay.port) as client:
            assert f"SIZE {1 << 20}" in client.extensions.split("\n")
            assert client.ask(b"MAIL FROM:<a@x.example> SIZE=2000000\r\n")[0] == 552
            client.open()
            assert client.ask(b"DATA\r\n")[0] == 354
            assert client.ask(body * 20_000 + b".\r\n")[0] == 552
            client.open()
            code = 250
            for _ in range(4):
                code = client.ask(b"BDAT %d\r\n" % (len(body) * 5000) + body * 5000)[0]
                if code != 250:
                    break
            assert code == 552
            assert client.ask(b"RSET\r\n")[0] == 250
            client.send(body * 14_000)
        hop.wait_for_count(1)
        assert metrics(relay)["angarium_in_messages_total"] == 1


def test_relaying_is_denied_to_strangers_but_not_for_domains_of_ours(tmp_path: Path) -> None:
    listener = 'relay_from = ["192.0.2.0/24"]\nrelay_to = ["ours.example", ".below.example"]'
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=listener) as relay:
        with SmtpClient(relay.port) as client:
            client.ask(b"MAIL FROM:<a@x.example>\r\n")
            for denied in (
                b"b@other.example", b"b@notours.example", b"b@below.example", b"b%other.example@x.example",
                b"b@ours.example.", b"@ours.example:b@other.example", b'"b@ours.example"@other.example',
            ):  # fmt: skip
                code, text = client.ask(b"RCPT TO:<" + denied + b">\r\n")
                assert code in (550, 501, 553, 554), f"{denied!r}: {code} {text}"
            for allowed in (b"b@ours.example", b"b@OURS.Example", b"b@deep.below.example"):
                assert client.ask(b"RCPT TO:<" + allowed + b">\r\n")[0] == 250, allowed
            assert client.ask(b"DATA\r\n")[0] == 354
            assert client.ask(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")[0] == 250
        (delivery,) = hop.wait_for_count(1)
        assert len(delivery.to) == 3
