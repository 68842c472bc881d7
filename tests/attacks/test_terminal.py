"""What peers say drives no terminal and makes no line of its own: not in the log, and not in what commands show.

Clients with SMTPUTF8 may put all of Unicode but C0 and C1 into a local-part, next hops any octets into a reply: CSI as
UTF-8, which terminals obey as they obey ESC [; ends of lines that JSON need not escape; marks that turn the direction
of text.
"""

from __future__ import annotations

import json
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import NO_RETRY, clean_relay
from end_to_end.smtp_client import SmtpClient
from relay_process import wait_for

OF_CLIENTS = "\u2028\u2029\u202a\u202e\u2066\u2069\u200b\ufeff\U000e0001"
OF_HOSTS = "\x1b[31m\x9b31m\x85\u2028\u202e\x7f"
EVIL = set(OF_CLIENTS + OF_HOSTS) - set("[31m")
# Some of the above no terminal obeys: JSON may have them as they are.
LINES_AND_TURNS = EVIL - set("\u200b\ufeff\U000e0001")


def test_nothing_that_peers_say_is_obeyed_by_an_operators_terminal(tmp_path: Path) -> None:
    fault = f"450 4.2.0 later {OF_HOSTS}".encode()
    with NextHop(faults={"RCPT": fault}) as hop, clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            mailbox = f"b{OF_CLIENTS}b@y.example"
            assert client.ask(f"MAIL FROM:<a{OF_CLIENTS}a@x.example> SMTPUTF8\r\n".encode())[0] == 250
            assert client.ask(f"RCPT TO:<{mailbox}>\r\n".encode())[0] == 250
            assert client.ask(f"RCPT TO:<b{OF_CLIENTS}@y@.example>\r\n".encode())[0] == 501
            assert client.ask(b"DATA\r\n")[0] == 354
            assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n")[0] == 250
        (deferred,) = wait_for(lambda: relay.events("deferred"), "it is deferred")
        (rejected,) = relay.events("rejected")
        id_ = deferred["id"]
        assert deferred["to"] == mailbox, "what is escaped is still there"

        octets = relay.log_path.read_bytes()
        text = octets[: octets.rfind(b"\n") + 1].decode()       # it may be told of more just now
        assert not LINES_AND_TURNS & set(text)
        lines = text.splitlines()
        assert [json.loads(line) for line in lines] == relay.all_events()[: len(lines)]

        shown = 0
        for words in (
            ("queue", "list"), ("queue", "list", "--json"), ("queue", "show", id_), ("queue", "show", id_, "--json"),
            ("queue", "bounce", "--dry-run", "--all"), ("queue", "bounce", "--dry-run", "--all", "--json"),
            ("explain", id_), ("explain", id_, "--json"), ("explain", mailbox), ("explain-reject", rejected["id"]),
            ("explain-reject", rejected["id"], "--json"), ("top", "--once"), ("top", "--once", "--json"),
        ):  # fmt: skip
            done = relay.command(*words)
            assert not EVIL & set(done.stdout + done.stderr), words
            shown += "later" in done.stdout or "\\u202e" in done.stdout
        assert shown >= 8, "they have shown what was said, escaped"
        # spool ls needs no relay, and has no answer of one between it and the octets.
        listed = relay.command("spool", "ls")
        assert listed.returncode == 0 and id_ in listed.stdout and not EVIL & set(listed.stdout)
        assert relay.command("queue", "delete", "--all").returncode == 0
