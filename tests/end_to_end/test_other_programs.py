"""Next hops and clients that others wrote and pip installs: aiosmtpd as SMTP and LMTP server, our own commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session
from end_to_end.relay import MESSAGE, QUICK_RETRY, admin_get, clean_relay, outcomes, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import angarium, maildir_route, wait_for


class Keeper:
    """aiosmtpd's handler: keeps envelopes, refuses whom it is told to."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refused: dict[str, str] = {}

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused.pop(address)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        # aiosmtpd leaves it to its handler that LMTP has a reply for each recipient (RFC 2033 §4.2).
        return "\r\n".join(["250 2.0.0 kept"] * (len(envelope.rcpt_tos) if isinstance(server, LMTP) else 1))


@contextlib.contextmanager
def aiosmtpd_server(factory: type[SMTP], path: str = "") -> Iterator[tuple[Keeper, int]]:
    """aiosmtpd in a thread of its own: (handler, port)."""
    keeper = Keeper()
    loop = asyncio.new_event_loop()

    def protocol() -> SMTP:
        return factory(keeper, hostname="aiosmtpd.example", enable_SMTPUTF8=True, data_size_limit=0, loop=loop)

    async def start() -> asyncio.Server:
        if path:
            return await loop.create_unix_server(protocol, path)
        return await loop.create_server(protocol, "127.0.0.1", 0)

    server = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield keeper, 0 if path else server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


@pytest.mark.parametrize("protocol", ["smtp", "lmtp", "lmtp+unix"])
def test_aiosmtpd_as_next_hop(tmp_path: Path, protocol: str) -> None:
    path = f"{tmp_path}/lmtp.sock" if protocol == "lmtp+unix" else ""
    with aiosmtpd_server(SMTP if protocol == "smtp" else LMTP, path) as (keeper, port):
        keeper.refused = {"later@y.example": "450 4.2.0 later", "never@y.example": "550 5.1.1 nobody"}
        url = f"lmtp+unix:{path}" if path else f"{protocol}://127.0.0.1:{port}"
        config = f'[[route]]\ndomain = "*"\nnext_hop = "{url}"\n{QUICK_RETRY}'
        with clean_relay(tmp_path, config) as relay:
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as smtp:
                for _ in range(10):
                    smtp.sendmail("", ["a@y.example", "b@y.example"], MESSAGE)
                smtp.sendmail("", ["now@y.example", "later@y.example", "never@y.example"], MESSAGE)
            wait_until_empty(relay)
            wait_for(lambda: sum(map(len, outcomes(relay).values())) >= 24, "the log's last lines")
            found = outcomes(relay)
            assert found["a@y.example"] == found["b@y.example"] == ["delivered"] * 10
            assert found["now@y.example"] == ["delivered"]
            assert found["later@y.example"] == ["deferred", "delivered"]
            assert found["never@y.example"] == ["failed"]
        for envelope in keeper.envelopes:
            assert isinstance(envelope.content, bytes)
            assert envelope.content.endswith(MESSAGE)
            assert envelope.mail_from == "<>"


def test_angarium_send_sends_files_stdin_and_made_messages(tmp_path: Path) -> None:
    with clean_relay(tmp_path, maildir_route(tmp_path)) as relay:
        server = ("--server", f"127.0.0.1:{relay.port}", "--to", "you@y.example")
        file = tmp_path / "message.eml"
        file.write_bytes(b"Subject: from a file\n\nbody\n.\n")
        for words, text in (
            ((*server, str(file)), None),
            (server, "Subject: from stdin\n\nbody\n"),
            ((*server, "--subject", "made", "--body", "grüße"), None),
        ):
            done = angarium("send", *words, input_text=text)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("250 2.0.0")
        wait_for(lambda: len(list(tmp_path.glob("mail/you/new/*"))) == 3, "three messages")
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("mail/you/new/*"))
        for subject in (b"from a file", b"from stdin", b"made"):
            assert b"Subject: " + subject in stored
        done = angarium("send", "--server", "127.0.0.1:1", "--to", "x@y.example", "--body", "x")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_health_and_metrics_also_over_tcp_for_this_machine_only(tmp_path: Path) -> None:
    import http.client
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = maildir_route(tmp_path) + f'[admin]\naddress = "127.0.0.1:{port}"\n'
    with clean_relay(tmp_path, config) as relay:
        assert admin_get(relay, "/health")[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read())["status"] == "ok"
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            connection.request("GET", "/v1/status", headers=headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 403
        connection.close()
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        wait_until_empty(relay)
