"""Kinds of listeners of a whole relay: LMTP over a unix socket, submission under TLS, and ETRN over all workers."""

from __future__ import annotations

import os
import smtplib
import socket
import stat
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import NO_RETRY, clean_relay
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, maildir_route, wait_for
from tls.authority import certificate, client_context, write

NAME = "mx.test.example"
MESSAGE = b"From: <me@x.example>\r\nSubject: hello\r\n\r\nhello\r\n"


def test_lmtp_over_a_unix_socket_with_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"
    listener = f'address = "unix:{path}"\nprotocol = "lmtp"\nrelay_from = ["127.0.0.1"]\n' \
        f'socket = {{ mode = "0660", owner = ":{os.getgid()}" }}\n'  # fmt: skip
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=2, listener=listener) as relay:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        client = smtplib.LMTP(str(path))
        assert client.ehlo("client.example")[0] == 250
        assert client.sendmail("a@x.example", ["b@y.example", "c@y.example"], MESSAGE) == {}
        client.quit()
        wait_for(lambda: len(relay.events("delivered")) == 2, "both are delivered")
        assert relay.events("received")[0]["protocol"] == "LMTP"
        assert relay.stop() == 0


def test_submission_by_starttls_and_by_implicit_tls(tmp_path: Path) -> None:
    from angarium.sasl.credential_file import changing, make_entry

    with changing(tmp_path / "credentials", may_make=True) as credentials:
        credentials.entries["alice@x.example"] = make_entry("correct horse")
    table = write(tmp_path, certificate(NAME), "server")
    tls = f'tls = {{ certificates = [{{ cert = "{table["cert"]}", key = "{table["key"]}" }}] }}\n'
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    more = (
        f'[[listener]]\naddress = "127.0.0.1:{port}"\nprotocol = "submissions"\n{tls}'
        f'[auth]\ncredentials = "file:{tmp_path}/credentials"\n{maildir_route(tmp_path)}'
    )
    with clean_relay(tmp_path, more, listener=f'protocol = "submission"\n{tls}') as relay:
        listeners = [word.rpartition(":")[2] for word in relay.started().split(", ")]
        (starttls_port,) = [int(word) for word in listeners if int(word) != port]
        context = client_context()
        context.check_hostname = False
        by_starttls = smtplib.SMTP("127.0.0.1", starttls_port)
        assert by_starttls.docmd("EHLO client.example")[0] == 250
        assert by_starttls.docmd("MAIL FROM:<alice@x.example>")[0] == 530
        by_starttls.starttls(context=context)
        by_implicit = smtplib.SMTP_SSL("127.0.0.1", port, context=context)
        for client in (by_starttls, by_implicit):
            client.login("alice@x.example", "correct horse")
            client.sendmail("alice@x.example", ["b@y.example"], MESSAGE)
            client.quit()
        wait_for(lambda: len(relay.events("delivered")) == 2, "both are delivered")
        assert {event["protocol"] for event in relay.events("received")} == {"ESMTPSA"}


def test_etrn_has_the_mail_of_all_workers_tried(tmp_path: Path) -> None:
    with NextHop() as hop:
        port = hop.port
    route = f'[[route]]\ndomain = "*"\nnext_hop = "smtp://127.0.0.1:{port}"\n{NO_RETRY}'
    listener = 'relay_from = ["127.0.0.0/8"]\netrn_for = { "customer.example" = ["127.0.0.1"] }\n'
    with clean_relay(tmp_path, route, workers=2, listener=listener) as relay:
        for number in range(12):
            with SmtpClient(relay.port) as client:
                client.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@customer.example>\r\nDATA\r\n")
                assert client.codes(3) == [250, 250, 354]
                assert client.ask(b"Subject: %d\r\n\r\nx\r\n.\r\n" % number)[0] == 250
        wait_for(lambda: len(relay.events("deferred")) >= 12, "all are deferred")
        with NextHop(port=port) as hop, SmtpClient(relay.port) as client:
            assert "ETRN" in client.extensions
            assert client.ask(b"ETRN elsewhere.example\r\n")[0] == 459
            code, text = client.ask(b"ETRN customer.example\r\n")
            assert code in (250, 253), text     # 250: the machine was too busy to count
            hop.wait_for_count(12)
