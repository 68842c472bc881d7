"""Logins of a whole relay: the example of docs/logins.md, and tokens by a command, in a worker under uvloop."""

from __future__ import annotations

import base64
import smtplib
from pathlib import Path

from end_to_end.relay import metrics
from end_to_end.test_outbound_tls import server_tls, servers
from page_examples import of_page, retold
from relay_process import RelayProcess, wait_for
from tls.authority import write_authority

TOKEN = "ya29.a-token-of-a-command"


def test_mail_leaves_with_a_token_that_a_command_gives_once_for_each_worker(tmp_path: Path) -> None:
    command = tmp_path / "fetch-token"
    # What it inherits of descriptors besides its own three would be the spool's, or a listener's.
    command.write_text(
        f"#!/bin/sh\necho run >> {tmp_path}/runs\nls /proc/self/fd | wc -l >> {tmp_path}/descriptors\necho {TOKEN}\n"
    )
    command.chmod(0o700)
    accounts = {"us@example.net": TOKEN}
    hop = {"tls": server_tls("127.0.0.1"), "mechanisms": ["XOAUTH2"], "accounts": accounts}
    with servers(hop) as (server,):
        config = (
            f'[login.office]\nuser = "us@example.net"\ntoken_command = ["{command}"]\n'
            f'[[route]]\nnext_hop = "smtp://127.0.0.1:{server.port}"\ntls = "required"\nlogin = "office"\n'
            f'[shaping.default]\ntls_ca = "{write_authority(tmp_path)}"\nmessages_per_connection = 1\n'
        )
        with RelayProcess(tmp_path, config) as relay:
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
                for number in range(10):
                    client.sendmail("me@x.example", [f"you{number}@y.example"], "Subject: hello\r\n\r\nhello\r\n")
            wait_for(lambda: len(relay.events("delivered")) == 10, "all are delivered")
            assert server.logins == [("XOAUTH2", "us@example.net")] * 10
            assert (tmp_path / "runs").read_text() == "run\n", "one worker has all the mail of one connection"
            assert metrics(relay)["angarium_outbound_tokens_total"] == 1
            # Its three, and the one that ls reads the directory by.
            assert (tmp_path / "descriptors").read_text().strip() == "4"
            log = relay.log_path.read_text()
            assert TOKEN not in log and base64.b64encode(TOKEN.encode()).decode()[4:-4] not in log
            assert relay.stop() == 0


def test_a_relay_ends_in_time_while_a_command_runs(tmp_path: Path) -> None:
    command = tmp_path / "fetch-token"
    text = f"#!/bin/sh\necho $$ > {tmp_path}/number.new; mv {tmp_path}/number.new {tmp_path}/number\nexec sleep 1000\n"
    command.write_text(text)
    command.chmod(0o700)
    config = (
        f'[login.office]\nuser = "us@example.net"\ntoken_command = ["{command}"]\ntoken_timeout = "100s"\n'
        '[[route]]\nnext_hop = "smtp://127.0.0.1:1"\nlogin = "office"\n'
    )
    with RelayProcess(tmp_path, config) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
            client.sendmail("me@x.example", ["you@y.example"], "Subject: hello\r\n\r\nhello\r\n")
        wait_for((tmp_path / "number").exists, "the command runs")
        assert relay.stop() == 0
        state = Path(f"/proc/{(tmp_path / 'number').read_text().strip()}/stat")
        wait_for(lambda: not state.exists() or ") Z " in state.read_text(), "the command is ended")


def test_the_example_of_the_page_logs_in_where_it_says_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "smarthost.password").write_text("correct horse\n")
    (tmp_path / "office").write_text(f"{TOKEN}\n")
    for name in ("smarthost.password", "office"):
        (tmp_path / name).chmod(0o600)
    accounts = {"relay@example.net": "correct horse"}
    bank = {"tls": server_tls("127.0.0.1"), "mechanisms": ["SCRAM-SHA-256", "PLAIN"], "accounts": accounts}
    with servers(bank, {}) as (at_bank, elsewhere):
        config = retold(
            of_page("logins.md").rest,
            {"/etc/angarium/": f"{tmp_path}/", "/run/tokens/": f"{tmp_path}/"}
            | {"mail.bank.example:587": f"127.0.0.1:{at_bank.port}"},
        )
        more = (
            f'[[route]]\nnext_hop = "smtp://127.0.0.1:{elsewhere.port}"\n'
            f'[shaping.default]\ntls_ca = "{write_authority(tmp_path)}"\n'
        )
        with RelayProcess(tmp_path, config + more) as relay:
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
                for domain in ("bank.example", "y.example"):
                    client.sendmail("me@x.example", [f"you@{domain}"], "Subject: hello\r\n\r\nhello\r\n")
            wait_for(lambda: len(relay.events("delivered")) == 2, "both are delivered")
            assert at_bank.logins == [("SCRAM-SHA-256", "relay@example.net")]
            assert elsewhere.logins == []
            assert relay.stop() == 0
