"""docs/listeners.md: its kinds of listeners side by side, and what peers and customers may say to their own."""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.relay import MESSAGE, NO_RETRY
from end_to_end.smtp_client import SmtpClient
from interop.programs import free_port
from page_examples import of_page, retold
from relay_process import RelayProcess, maildir_route, wait_for
from tls.authority import certificate, client_context, write

from angarium.sasl.credential_file import changing, make_entry

NAME = "mx.test.example"


def test_the_kinds_of_listeners_take_mail_as_the_page_says(tmp_path: Path) -> None:
    with changing(tmp_path / "credentials", may_make=True) as credentials:
        credentials.entries["alice@example.net"] = make_entry("correct horse")
    files = write(tmp_path, certificate(NAME), "server")
    example = of_page("listeners.md", 1)
    smtp, submission, submissions = (free_port() for _ in range(3))
    paths = {"/etc/angarium/cert.pem": files["cert"], "/etc/angarium/key.pem": files["key"]}
    listener = retold(example.listener, paths | {"0.0.0.0:25": f"127.0.0.1:{smtp}"})
    rest = retold(
        example.rest,
        paths
        | {"/etc/angarium/credentials": f"{tmp_path}/credentials", "/run/angarium/lmtp.sock": f"{tmp_path}/lmtp.sock"}
        | {"0.0.0.0:587": f"127.0.0.1:{submission}", "0.0.0.0:465": f"127.0.0.1:{submissions}"}
        | {":filter": f":{os.getgid()}"},
    )
    with clean_relay_at(tmp_path, listener, rest + maildir_route(tmp_path)) as relay:
        with SmtpClient(smtp) as client:
            client.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert client.ask(b"RCPT TO:<b@y.example>\r\n")[0] == 550
            assert client.ask(b"RCPT TO:<b@example.net>\r\n")[0] == 250
        context = client_context()
        context.check_hostname = False
        with smtplib.SMTP("127.0.0.1", submission, timeout=20) as client:
            client.starttls(context=context)
            client.login("alice@example.net", "correct horse")
            client.sendmail("alice", ["bob"], "From: alice\r\nSubject: x\r\n\r\nx\r\n")
            with pytest.raises(smtplib.SMTPDataError, match="553"):
                client.sendmail("alice@example.net", ["bob"], "From: eve@example.net\r\nSubject: x\r\n\r\nx\r\n")
        with smtplib.SMTP_SSL("127.0.0.1", submissions, timeout=20, context=context) as client:
            client.login("alice@example.net", "correct horse")
            client.sendmail("alice@example.net", ["carol@y.example"], "From: alice@example.net\r\n\r\nx\r\n")
        with smtplib.LMTP(f"{tmp_path}/lmtp.sock") as client:
            client.sendmail("a@x.example", ["dave@y.example"], "Subject: x\r\n\r\nx\r\n")
        wait_for(lambda: len(relay.events("delivered")) == 3, "all are delivered")
        taken = {(event["protocol"], event["from"], *event["to"]) for event in relay.events("received")}
        assert taken == {
            ("ESMTPSA", "alice@example.net", "bob@example.net"),
            ("ESMTPSA", "alice@example.net", "carol@y.example"),
            ("LMTP", "a@x.example", "dave@y.example"),
        }
        (mail,) = (tmp_path / "mail" / "bob" / "new").glob("*")
        assert b"\nFrom: alice@example.net\n" in mail.read_bytes()


def test_sockets_proxies_filters_and_customers_are_served_as_the_page_says(tmp_path: Path) -> None:
    """The examples of a unix socket, XCLIENT, XFORWARD and ETRN, as listeners of one relay."""
    local, xclient, xforward, etrn = (of_page("listeners.md", number) for number in (0, 2, 3, 4))
    ports = [free_port() for _ in range(3)]
    mine = {"unix:/run/angarium/in.sock": f"unix:{tmp_path}/in.sock", ":mailusers": f":{os.getgid()}"}
    config = "".join(
        f"[[listener]]\n{retold(each.listener, changes)}{retold(each.rest, more)}"
        for each, changes, more in (
            (xclient, {"10.0.0.1:25": f"127.0.0.1:{ports[0]}", "10.0.0.5": "127.0.0.1"}, {}),
            (xforward, {"127.0.0.1:10026": f"127.0.0.1:{ports[1]}"}, {}),
            (etrn, {"0.0.0.0:25": f"127.0.0.1:{ports[2]}"}, {"192.0.2.7": "127.0.0.1"}),
        )
    )
    route = '[[route]]\ndomain = "customer.example"\nnext_hop = "smtp://127.0.0.1:1"\n' + maildir_route(tmp_path)
    with clean_relay_at(tmp_path, retold(local.listener, mine), config + route + NO_RETRY) as relay:
        with UnixSmtp(f"{tmp_path}/in.sock", timeout=20) as client:
            client.sendmail("a@x.example", ["b@y.example"], "Subject: x\r\n\r\nx\r\n")
        with SmtpClient(ports[0]) as peer:
            assert peer.ask(b"XCLIENT ADDR=198.51.100.9 NAME=far.example\r\n")[0] == 220
            peer.ask(b"EHLO far.example\r\n")
            peer.send(MESSAGE, "c@example.net")
            peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert peer.ask(b"RCPT TO:<c@y.example>\r\n")[0] == 550
        with SmtpClient(ports[1]) as peer:
            assert peer.ask(b"XFORWARD ADDR=198.51.100.10 HELO=far.example IDENT=4711\r\n")[0] == 250
            peer.send(MESSAGE, "d@y.example")
        with SmtpClient(ports[2]) as customer:
            customer.send(MESSAGE, "e@customer.example")
            wait_for(lambda: relay.events("deferred"), "it waits")
            assert customer.ask(b"ETRN customer.example\r\n")[0] == 253
            assert customer.ask(b"ETRN example.net\r\n")[0] == 459
        received = {event["to"][0]: event for event in wait_for_received(relay, 4)}
        assert received["c@example.net"]["client"] == "198.51.100.9"
        forwarded = received["d@y.example"]
        assert (forwarded["client"], forwarded["origin_client"], forwarded["origin_id"]) == (
            "127.0.0.1", "198.51.100.10", "4711",
        )  # fmt: skip


class UnixSmtp(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(host)
        return sock


@contextlib.contextmanager
def clean_relay_at(directory: Path, listener: str, config: str) -> Iterator[RelayProcess]:
    with RelayProcess(directory, config, listener=listener) as relay:
        yield relay
        assert relay.stop() == 0
        assert not relay.events("error")


def wait_for_received(relay: RelayProcess, count: int) -> list[dict[str, Any]]:
    wait_for(lambda: len(relay.events("received")) == count, "all have come")
    return relay.events("received")
