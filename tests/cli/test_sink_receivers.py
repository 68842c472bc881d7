"""`angarium sink --receivers` over real sockets: addresses of its own, TLS, counts by the second."""

from __future__ import annotations

import json
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

from cli.test_sink import RunningSink, codes, dialogue, sink, unix_client, wait_until
from tls.authority import certificate, client_context, write

MAIL = b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nx\r\n.\r\n"


def said_at(address: str, port: int, octets: bytes) -> list[int]:
    with socket.create_connection((address, port), timeout=10) as s:
        s.sendall(octets + b"QUIT\r\n")
        said = b""
        while more := s.recv(65536):
            said += more
        return codes(said)


def seconds_of(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_address_is_answered_as_its_receiver_does_and_counted_apart(tmp_path: Path) -> None:
    file, seconds = tmp_path / "receivers.toml", tmp_path / "seconds.jsonl"
    file.write_text("""
        [receiver.one]
        address = ["127.20.0.0/16"]
        messages_per_connection = 2
        [receiver.two]
        address = ["127.30.0.0/16"]
        reply = ["rcpt=550 5.1.1 No"]
        """)
    with sink("--listen", "0.0.0.0:0", "--receivers", str(file), "--seconds", str(seconds)) as running:
        assert running.process.stderr is not None
        port = int(running.process.stderr.readline().rsplit(":", 1)[1])
        assert said_at("127.20.0.1", port, MAIL * 3)[-1] == 421
        assert said_at("127.30.0.1", port, MAIL)[2:4] == [550, 503]
        assert said_at("127.40.0.1", port, MAIL)[-2:] == [250, 221]
        # Told while it runs, once the second is over: who follows the file need not end the sink.
        wait_until(lambda: {line["receiver"] for line in seconds_of(seconds)} == {"one", "two", "default"})
        counters = running.end()
    receivers = counters["receivers"]
    assert isinstance(receivers, dict)
    assert {name: each["messages"] for name, each in receivers.items()} == {"one": 2, "two": 0, "default": 1}
    assert receivers["one"]["deferred"] == 1
    assert receivers["two"]["rejected"] == 2
    assert receivers["one"]["sources"][0]["messages"] == 2
    lines = [line for line in seconds_of(seconds) if line["receiver"] == "one"]
    assert sum(int(str(line.get("messages", 0))) for line in lines) == 2
    assert {line["source"] for line in lines} == {"127.0.0.1"}


def test_starttls_and_tls_from_the_first_octet(tmp_path: Path) -> None:
    files = write(tmp_path, certificate("localhost"), "sink")
    options = ("--tls-certificate", files["cert"], "--tls-key", files["key"])

    def send(running: RunningSink, kind: type[smtplib.SMTP]) -> None:
        client = kind("localhost", running.port, timeout=10) if kind is smtplib.SMTP else smtplib.SMTP_SSL(
            "localhost", running.port, timeout=10, context=client_context()
        )
        with client:
            if kind is smtplib.SMTP:
                client.ehlo()
                assert client.has_extn("starttls")
                client.starttls(context=client_context())
            client.ehlo()
            assert not client.has_extn("starttls")
            client.sendmail("a@x.example", ["b@y.example"], "Subject: a\r\n\r\nbody\r\n")

    with sink(*options) as running:
        send(running, smtplib.SMTP)
        assert running.end()["messages"] == 1
    with sink(*options, "--tls-implicit") as running:
        send(running, smtplib.SMTP_SSL)
        assert running.end()["messages"] == 1


def test_what_follows_starttls_in_clear_is_a_failed_handshake(tmp_path: Path) -> None:
    files = write(tmp_path, certificate("localhost"), "sink")
    with sink("--tls-certificate", files["cert"], "--tls-key", files["key"]) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as clear:
            clear.sendall(b"STARTTLS\r\n")
            said = b""
            while said.count(b"\r\n") < 2:
                said += clear.recv(1000)
            clear.sendall(b"NOOP in clear\r\n")
            while more := clear.recv(1000):
                assert not more.startswith(b"2")
        assert running.end()["failed_handshakes"] == 1


def test_dialogue_begins_anew_under_tls(tmp_path: Path) -> None:
    files = write(tmp_path, certificate("localhost"), "sink")
    with (
        sink("--tls-certificate", files["cert"], "--tls-key", files["key"]) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=10) as clear,
    ):
        clear.sendall(b"MAIL FROM:<>\r\nSTARTTLS\r\n")
        said = b""
        while said.count(b"\r\n") < 3:
            said += clear.recv(1000)
        with client_context().wrap_socket(clear, server_hostname="localhost") as under_tls:
            under_tls.sendall(b"RCPT TO:<a@b.example>\r\nQUIT\r\n")
            said = b""
            while more := under_tls.recv(1000):
                said += more
    assert codes(said) == [503, 221]


def test_a_file_that_makes_no_sense_is_one_line_and_status_2(tmp_path: Path) -> None:
    file = tmp_path / "receivers.toml"
    file.write_text("[receiver.one]\nconections = 2\n")
    command = [sys.executable, "-m", "angarium.cli.main", "sink", "--listen", "127.0.0.1:0"]
    done = subprocess.run(
        [*command, "--receivers", str(file)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr == f"angarium sink: {file}: receiver.one.conections: unknown key\n"
    done = subprocess.run([*command, "--tls-implicit"], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "--tls-certificate" in done.stderr


def test_several_places_are_listened_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with sink("--listen", f"unix:{path}") as running:
        assert codes(dialogue(running.port, b"QUIT\r\n")) == [220, 221]
        with unix_client(path) as client:
            assert client.recv(100).startswith(b"220 ")
        assert running.end()["connections"] == 2
