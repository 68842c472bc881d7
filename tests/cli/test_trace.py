"""`angarium trace` from outside: over two workers, until it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import admin_get
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, maildir_route, wait_for


class Tracer:
    """The command in the background."""

    def __init__(self, relay: RelayProcess, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "angarium.cli.main", "trace", "--config", str(relay.config_path), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.process.stderr is not None
        of_whom = "clients of" if words[0] == "--client" else "next hops"
        assert self.process.stderr.readline().startswith(f"looking on at {of_whom} ")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(20)
        self._reader.join()
        return status


def said(port: int, *commands: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as sock, sock.makefile("rwb") as lines:
        for command in (b"", *commands):
            lines.write(command + b"\r\n" if command else b"")
            lines.flush()
            lines.readline()


def test_dialogues_of_all_workers_are_shown_as_they_happen(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=2) as relay:
        tracer = Tracer(relay, "--client", "127.0.0.0/8")
        elsewhere = Tracer(relay, "--client", "192.0.2.0/24", "--json")

        def is_seen() -> bool:
            """Both workers have been told of the trace: sessions of each have been shown."""
            said(relay.port, b"HELO c.example", b"QUIT")
            return len({line.split()[1].partition(".")[0] for line in tracer.lines}) == 2

        wait_for(is_seen, "sessions of both workers are shown")
        said(relay.port, b"HELO last.example", b"RCPT TO:<b@y.example>", b"QUIT")
        wait_for(lambda: any("S: 503 5.5.1 MAIL first" in line for line in tracer.lines), "the last is shown")
        assert any(line.endswith("C: HELO last.example") for line in tracer.lines)
        assert tracer.stop() == -signal.SIGINT
        assert elsewhere.stop() == -signal.SIGINT
        assert elsewhere.lines == []
        as_json = Tracer(relay, "--client", "127.0.0.1/32", "--json")

        def is_told() -> bool:
            said(relay.port, b"HELO c.example", b"QUIT")
            return any(json.loads(line)["event"] == "command" for line in as_json.lines)

        wait_for(is_told, "events come as JSON")
        assert as_json.stop() == -signal.SIGINT
        assert relay.stop() == 0


def test_dialogues_with_next_hops_are_shown_in_order_and_without_the_message(tmp_path: Path) -> None:
    with (
        NextHop(faults={"RCPT": lambda line: b"450 4.2.0 later" if b"slow" in line else None}) as hop,
        NextHop(address="127.0.0.12") as other,
        RelayProcess(
            tmp_path, f'[[route]]\ndomain = "other.example"\nnext_hop = "{other.url}"\n{hop.route}', workers=2
        ) as relay,
    ):
        # Mail that goes elsewhere is shown to nobody who asks for this site.
        by_site = Tracer(relay, "--site", hop.url)
        by_host = Tracer(relay, "--next-hop", "127.0.0.12", "--json")
        by_domain = Tracer(relay, "--domain", "y.example")

        def is_seen() -> bool:
            """Both workers have been told of the traces."""
            with SmtpClient(relay.port) as client:
                client.send(b"Subject: secret words\r\n\r\nnobody else's\r\n", "a@y.example")
                client.send(b"Subject: x\r\n\r\n", "b@other.example")
            told = by_site.lines + by_domain.lines
            workers = {line.split()[1].partition(".o")[0] for line in told}
            return len(workers) == 2 and bool(by_domain.lines) and bool(by_host.lines)

        wait_for(is_seen, "connections of both workers are shown")
        with SmtpClient(relay.port) as client:
            client.send(b"Subject: secret words\r\n\r\nnobody else's\r\n", "slow@y.example", "last@y.example")

        def dialogue() -> list[str]:
            """What one connection has said from its MAIL for the last message on."""
            for start, line in enumerate(by_site.lines):
                if line.endswith("C: RCPT TO:<slow@y.example>"):
                    session = line.split()[1]
                    return [each for each in by_site.lines[start:] if session in each]
            return []

        wait_for(lambda: any("450 4.2.0 later" in line for line in dialogue()), "the refusal is shown")
        wait_for(lambda: any("octets)" in line for line in dialogue()), "the size is shown")
        assert by_site.stop() == by_host.stop() == by_domain.stop() == -signal.SIGINT
        said = [line.partition(f"[127.0.0.1]:{hop.port} ")[2] for line in by_site.lines]
        for one, two in (("C: EHLO mx.test", "S: 250-hop.example"), ("C: DATA", "S: 354")):
            first = next(index for index, each in enumerate(said) if each.startswith(one))
            assert any(each.startswith(two) for each in said[first:]), (one, two)
        assert said[0].startswith("-- seen smtp://")
        assert "secret words" not in "".join(by_site.lines + by_domain.lines)
        assert {json.loads(line)["remote"] for line in by_host.lines} == {f"[127.0.0.12]:{other.port}"}
        assert all(f"[127.0.0.1]:{hop.port}" in line for line in by_domain.lines)
        assert relay.stop() == 0


def test_what_is_traced_is_said_once(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        assert relay.command("trace").returncode == 2
        refused = relay.command("trace", "--site", "x", "--data", "1000000000")
        assert "expected a number of octets from 1 to 262144" in refused.stderr
        assert admin_get(relay, "/v1/trace?site=x&data=0")[0] == 400
        assert admin_get(relay, "/v1/trace?site=x&client=127.0.0.1")[0] == 400
        assert admin_get(relay, "/v1/trace?next_hop=nowhere")[0] == 400


def test_a_network_that_is_none_is_refused(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        told = relay.command("trace", "--client", "10.0.0.1/8")
        assert told.returncode == 2
        assert "10.0.0.1/8 has host bits set" in told.stderr
