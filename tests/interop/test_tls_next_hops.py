"""TLS towards next hops that others wrote: Postfix, and openssl s_server with SMTP on its pipes."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, clean_relay, metrics
from end_to_end.smtp_client import SmtpClient
from interop.programs import end, free_port, postfix, program
from relay_process import RelayProcess, wait_for
from tls.authority import certificate, write, write_authority


def route(port: int, tls: str, scheme: str = "smtp") -> str:
    return f'[[route]]\nnext_hop = "{scheme}://127.0.0.1:{port}"\ntls = "{tls}"\n'


def trust(folder: Path) -> str:
    return f'[shaping.default]\ntls_ca = "{write_authority(folder)}"\n'


def send(relay: RelayProcess, name: str = "b@y.example") -> None:
    with SmtpClient(relay.port) as client:
        client.send(MESSAGE, name, reverse_path="")


@pytest.mark.timeout(180)
def test_postfix_under_each_policy(tmp_path: Path) -> None:
    files = write(tmp_path, certificate("127.0.0.1"), "postfix")
    more = (
        f"smtpd_tls_cert_file = {files['cert']}\nsmtpd_tls_key_file = {files['key']}\n"
        "smtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1\nsmtpd_tls_received_header = yes\n"
    )
    with NextHop() as last, postfix(last.port, more) as peer:
        for number, policy in enumerate(("opportunistic", "encrypt", "required"), 1):
            folder = tmp_path / policy
            folder.mkdir()
            with clean_relay(folder, route(peer.port, policy) + trust(folder)) as relay:
                send(relay)
                (event,) = wait_for(lambda relay=relay: relay.events("delivered", "deferred"), "an outcome", 60)
                assert (event["event"], event["tls"]) == ("delivered", "TLSv1.3"), event
                assert metrics(relay)["angarium_outbound_tls_verified_total"] == 1
            last.wait_for_count(number)
            assert b"using TLSv1.3" in last.deliveries[-1].message


@pytest.mark.timeout(180)
def test_postfix_without_a_usable_certificate_gets_mail_in_clear(tmp_path: Path) -> None:
    """It offers STARTTLS all the same, and answers 454: the file is another's key."""
    files = write(tmp_path, certificate("127.0.0.1"), "postfix")
    other = write(tmp_path, certificate("other.example"), "other")
    shutil.copyfile(other["key"], files["key"])
    more = (
        f"smtpd_tls_cert_file = {files['cert']}\nsmtpd_tls_key_file = {files['key']}\n"
        "smtpd_tls_security_level = may\n"
    )
    with (
        NextHop() as last,
        postfix(last.port, more) as peer,
        clean_relay(tmp_path, route(peer.port, "opportunistic")) as relay,
    ):
        send(relay)
        (event,) = wait_for(lambda: relay.events("delivered", "deferred"), "an outcome", 60)
        assert event["event"] == "delivered"
        assert "tls" not in event


class SServer:
    """`openssl s_server` with a certificate; SMTP is spoken on its pipes."""

    REPLIES = ((b"EHLO", b"250 s_server\r\n"), (b"DATA", b"354 go\r\n"), (b"QUIT", b"221 bye\r\n"))

    def __init__(self, files: dict[str, str], *words: str) -> None:
        self.port = free_port()
        self.heard: list[bytes] = []
        self.process = subprocess.Popen(
            [program("openssl"), "s_server", "-accept", f"127.0.0.1:{self.port}", "-cert", files["cert"], "-key",
             files["key"], "-quiet", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def say(self, reply: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(reply)
        self.process.stdin.flush()

    def _serve(self) -> None:
        assert self.process.stdout is not None
        self.say(b"220 s_server ESMTP\r\n")
        is_in_data = False
        for line in self.process.stdout:
            self.heard.append(line)
            if is_in_data:
                if line == b".\r\n":
                    is_in_data = False
                    self.say(b"250 2.0.0 taken\r\n")
                continue
            is_in_data = line.startswith(b"DATA")
            self.say(next((reply for verb, reply in self.REPLIES if line.startswith(verb)), b"250 ok\r\n"))

    def close(self) -> None:
        end(self.process)
        self.thread.join()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("kind", ["RSA", "ECDSA"])
def test_openssls_own_server(tmp_path: Path, version: str, kind: str) -> None:
    server = SServer(write(tmp_path, certificate("127.0.0.1", kind), "server"), version)
    try:
        config = route(server.port, "required", "smtps") + trust(tmp_path) + NO_RETRY
        with clean_relay(tmp_path, config) as relay:
            send(relay)
            (event,) = wait_for(lambda: relay.events("delivered", "deferred"), "an outcome", 60)
            assert event["event"] == "delivered", event
            assert event["tls"] == {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}[version]
        assert any(line.startswith(b"MAIL FROM:<>") for line in server.heard)
    finally:
        server.close()


def test_an_s_server_of_another_name_is_refused(tmp_path: Path) -> None:
    server = SServer(write(tmp_path, certificate("other.example"), "server"))
    try:
        config = route(server.port, "required", "smtps") + trust(tmp_path) + NO_RETRY
        with clean_relay(tmp_path, config) as relay:
            send(relay)
            (event,) = wait_for(lambda: relay.events("delivered", "deferred"), "an outcome", 60)
            assert (event["event"], event["status"]) == ("deferred", "4.7.5")
            assert "IP address mismatch" in event["reply"]
        assert not server.heard
    finally:
        server.close()
