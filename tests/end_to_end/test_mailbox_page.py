"""docs/mailbox.md: its example, with a Maildir and with a server of mailboxes that has no room for one of two."""

from __future__ import annotations

import stat
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, clean_relay
from end_to_end.smtp_client import SmtpClient
from page_examples import fenced, of_page, retold
from relay_process import wait_for


def full(line: bytes) -> bytes | None:
    return b"452 4.2.2 full" if b"dave@" in line else None


def test_mail_ends_in_files_and_with_a_server_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(fenced("mailbox.md", "users")[0])
    with NextHop(path=f"{tmp_path}/lmtp", is_lmtp=True, faults={"END": full}) as server:
        changes = {"/etc/angarium/users": f"{tmp_path}/users", "/srv/mail/": f"{tmp_path}/mail/"}
        config = retold(of_page("mailbox.md").rest, changes | {"/run/dovecot/lmtp": f"{tmp_path}/lmtp"})
        with clean_relay(tmp_path, config + NO_RETRY, listener="relay_from = []") as relay:
            with SmtpClient(relay.port) as client:
                client.ask(b"MAIL FROM:<me@x.example>\r\n")
                assert client.ask(b"RCPT TO:<eve@example.net>\r\n")[0] == 550
                assert client.ask(b"RSET\r\n")[0] == 250
                client.send(MESSAGE, "Alice+lists@Example.NET")
                client.send(MESSAGE, "carol@example.org", "dave@example.org")
            wait_for(lambda: len(relay.events("delivered", "deferred")) == 3, "each has an outcome")
            told = {event["to"]: event for event in relay.events("delivered", "deferred")}
            assert {to.lower(): event["event"] for to, event in told.items()} == {
                "alice+lists@example.net": "delivered",
                "carol@example.org": "delivered",
                "dave@example.org": "deferred",
            }
            (path,) = (tmp_path / "mail" / "example.net" / "alice" / "new").iterdir()
            assert told["Alice+lists@Example.NET"]["reply"].endswith(str(path))
            lines = path.read_bytes().split(b"\n")
            assert lines[0] == b"Return-Path: <me@x.example>" and lines[1].lower().startswith(b"delivered-to: alice")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE((tmp_path / "mail" / "example.net" / "alice").stat().st_mode) == 0o700
            assert [delivery.to for delivery in server.deliveries] == [["carol@example.org"]]
