"""`angarium explain-reject` from outside: over two workers, and without any."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

from relay_process import RelayProcess, angarium, wait_for


def refused_rcpt(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 20) as sock, sock.makefile("rwb") as lines:
        for command in (b"", b"HELO client.example", b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@other.example>"):
            lines.write(command + b"\r\n" if command else b"")
            lines.flush()
            reply = lines.readline().decode()
        return reply


def test_an_id_from_a_reply_is_explained_whichever_worker_said_it(tmp_path: Path) -> None:
    listener = 'address = "127.0.0.1:0"\nrelay_to = ["example.net"]\ntell_refusal_ids = true\n'
    with RelayProcess(tmp_path, workers=2, listener=listener) as relay:
        for _ in range(8):
            reply = refused_rcpt(relay.port)
            found = re.fullmatch(r"550 5\.7\.1 Relaying denied \[(\w{8})\]\r\n", reply)
            assert found, reply
            told = relay.command("explain-reject", found[1])
            assert told.returncode == 0, told.stderr
            lines = [line.split(None, 1) for line in told.stdout.splitlines()]
            assert lines[0] == ["550", "5.7.1 Relaying denied"]
            facts = {key: value for key, value in lines[1:] if key != "decided"}
            assert (facts["client"], facts["helo"], facts["verb"]) == ("127.0.0.1", "client.example", "RCPT")
            assert (facts["from"], facts["to"]) == ("a@x.example", "b@other.example")
            assert facts["reason"].startswith("relay-denied: ")
            assert "  decided by  listener.relay_from, listener.relay_to" in told.stdout
        as_json = json.loads(relay.command("explain-reject", found[1], "--json").stdout)
        wait_for(lambda: len(relay.events("rejected")) == 8, "all are logged")
        assert as_json["event"] in relay.events("rejected")
        gone = relay.command("explain-reject", "00000000")
        assert (gone.returncode, gone.stdout.startswith("no worker remembers refusal 00000000")) == (1, True)


def test_a_reason_is_explained_without_a_relay() -> None:
    told = angarium("explain-reject", "too-many-recipients")
    assert told.returncode == 0
    assert "  decided by  listener.max_recipients\n" in told.stdout
    assert json.loads(angarium("explain-reject", "http", "--json").stdout)["reason"] == "http"
    assert len(angarium("explain-reject", "--list").stdout.splitlines()) > 60


def test_what_is_neither_id_nor_reason_is_status_1() -> None:
    told = angarium("explain-reject", "not-a-reason")
    assert told.returncode == 1
    assert "--list" in told.stdout
