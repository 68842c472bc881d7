"""`angarium sink` as a user runs it, in a process of its own, spoken to over sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

MESSAGE = "Message-ID: <1@test.example>\r\nSubject: a\r\n folded one\r\n\r\nbody\r\n.dot\r\n..two dots\r\n"


class RunningSink:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def end(self) -> dict[str, object]:
        """Ends it as Ctrl-C does; the counters it prints."""
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        counters = json.loads(out.splitlines()[-1])
        assert isinstance(counters, dict)
        return counters


@contextlib.contextmanager
def sink(*options: str) -> Iterator[RunningSink]:
    process = subprocess.Popen(
        [sys.executable, "-m", "angarium.cli.main", "sink", "--listen", "127.0.0.1:0", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "listening on 127.0.0.1:" in said, said
        yield RunningSink(process, int(said.rsplit(":", 1)[1]))
    finally:
        process.kill()
        process.communicate()


def dialogue(port: int, octets: bytes, *, then_half_close: bool = True) -> bytes:
    """Everything the sink says to these octets, sent at once."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(octets)
        if then_half_close:
            s.shutdown(socket.SHUT_WR)
        said = b""
        while more := s.recv(65536):
            said += more
        return said


def codes(said: bytes) -> list[int]:
    return [int(line[:3]) for line in said.split(b"\r\n") if line[3:4] == b" "]


def wait_until(condition: object, timeout_s: float = 10.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def unix_client(path: Path) -> socket.socket:
    """A connection to a socket that is listened on soon: its name is there a moment before."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)

    def is_connected() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            client.connect(os.fspath(path))
            return True
        return False

    wait_until(is_connected)
    return client


def test_mail_is_counted_and_recorded_as_it_came(tmp_path: Path) -> None:
    record, maildir = tmp_path / "mail.jsonl", tmp_path / "box"
    with sink("--record", str(record), "--maildir", str(maildir)) as s:
        with smtplib.SMTP("127.0.0.1", s.port, timeout=10) as client:
            client.sendmail("a@x.example", ["b@y.example", "c@y.example"], MESSAGE)
        wait_until(lambda: record.exists() and record.read_text())
        counters = s.end()
    assert counters["messages"] == 1
    assert counters["recipients"] == 2
    assert counters["connections"] == 1
    line = json.loads(record.read_text())
    assert line["reverse_path"] == "a@x.example"
    assert line["forward_paths"] == ["b@y.example", "c@y.example"]
    assert line["message_id"] == "<1@test.example>"
    assert line["subject"] == "a folded one"
    (kept,) = (maildir / "new").iterdir()
    assert kept.read_bytes() == MESSAGE.encode()


def test_pipelined_group_and_chunks_are_answered_in_order(tmp_path: Path) -> None:
    record = tmp_path / "mail.jsonl"
    group = (
        b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nBDAT 5\r\nA: b\r"
        b"BDAT 8 LAST\r\n\n\r\n.\r\n.\r"
        b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n.\r\nQUIT\r\n"
    )
    with sink("--record", str(record)) as s:
        assert codes(dialogue(s.port, group)) == [220, 250, 250, 250, 250, 250, 250, 250, 354, 250, 221]
        counters = s.end()
    assert counters["messages"] == 2
    assert [json.loads(line)["octets"] for line in record.read_text().splitlines()] == [13, 0]


@pytest.mark.parametrize("end", [b".\r\n", b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r"])
def test_only_crlf_dot_crlf_ends_data(end: bytes) -> None:
    with sink() as s:
        octets = b"MAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nDATA\r\ntext" + end + b"QUIT\r\n"
        assert codes(dialogue(s.port, octets)) == [220, 250, 250, 354]


def test_end_of_data_is_found_however_the_octets_are_cut() -> None:
    whole = b"MAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nDATA\r\none\r\n..\r\n.\r\nQUIT\r\n"
    with sink() as s:
        with socket.create_connection(("127.0.0.1", s.port), timeout=10) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in whole:
                client.sendall(bytes([octet]))
                time.sleep(0.0005)
            said = b""
            while more := client.recv(65536):
                said += more
        assert codes(said) == [220, 250, 250, 354, 250, 221]


def test_commands_out_of_order_get_503() -> None:
    with sink() as s:
        said = dialogue(s.port, b"RCPT TO:<a@b>\r\nDATA\r\nBDAT 3 LAST\r\nabcXYZZY\r\nQUIT\r\n")
        assert codes(said) == [220, 503, 503, 503, 500, 221]


def test_reply_rule_refuses_and_421_closes() -> None:
    with sink("--reply", "rcpt=450", "--reply", "noop=421 4.3.2 Enough") as s:
        octets = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nNOOP\r\nQUIT\r\n"
        said = dialogue(s.port, octets)
        counters = s.end()
    assert codes(said) == [220, 250, 450, 503, 421]
    assert counters["replies"] == {"220": 1, "250": 1, "450": 1, "503": 1, "421": 1}
    assert counters["messages"] == 0


def test_greeting_rule_turns_clients_away() -> None:
    with sink("--reply", "connect=554 5.3.2 Not here") as s:
        assert codes(dialogue(s.port, b"")) == [554]


def test_disconnect_rule_closes_without_a_word() -> None:
    with sink("--disconnect", ".") as s:
        octets = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\nNOOP\r\n"
        assert codes(dialogue(s.port, octets, then_half_close=False)) == [220, 250, 250, 354]
        assert s.end()["messages"] == 0


def test_delay_holds_back_everything_behind_it() -> None:
    with sink("--delay", "mail=0.3", "--delay", ".=0.2") as s:
        begun = time.monotonic()
        octets = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"
        assert codes(dialogue(s.port, octets, then_half_close=False)) == [220, 250, 250, 354, 250, 221]
        assert time.monotonic() - begun >= 0.49


def test_lmtp_answers_each_recipient() -> None:
    with sink("--lmtp", "--reply", ".@50=452 4.2.2 Full", "--seed", "3", "--delay", ".=0.01") as s:
        octets = b"LHLO x\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<a@b>\r\n" * 8 + b"DATA\r\nx\r\n.\r\nQUIT\r\n"
        found = codes(dialogue(s.port, octets, then_half_close=False))
        counters = s.end()
    assert found[:12] == [220] + [250] * 10 + [354]
    assert set(found[12:20]) == {250, 452}
    assert found[20:] == [221]
    assert counters["recipients"] == found[12:20].count(250)


def test_extension_that_is_switched_off_is_not_offered() -> None:
    with sink("--without", "pipelining", "--size", "10M") as s:
        said = dialogue(s.port, b"EHLO x\r\nQUIT\r\n")
    assert b"PIPELINING" not in said
    assert b"SIZE 10485760\r\n" in said


def test_line_without_end_is_refused_and_closed() -> None:
    with sink() as s:
        assert codes(dialogue(s.port, b"NOOP " + b"x" * 20000, then_half_close=False)) == [220, 500]


def test_sink_ends_after_the_messages_asked_for() -> None:
    with sink("--messages", "2") as s:
        octets = b"EHLO x\r\n" + b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\n" * 2 + b"QUIT\r\n"
        assert codes(dialogue(s.port, octets))[-1] == 221
        out, _ = s.process.communicate(timeout=10)
        assert s.process.returncode == 0
    assert json.loads(out)["messages"] == 2


def test_port_in_use_is_one_line_and_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "angarium.cli.main", "sink", "--listen", address],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert address in done.stderr


def test_unix_socket_is_served(tmp_path: Path) -> None:
    path = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-m", "angarium.cli.main", "sink", "--listen", f"unix:{path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with unix_client(path) as client:
            assert client.recv(100).startswith(b"220 ")
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=10)
    assert "0 messages" in out
