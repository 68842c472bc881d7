"""A whole relay that gets its token by a command: in a worker under uvloop, with its signals and its descriptors."""

from __future__ import annotations

import base64
import smtplib
from pathlib import Path

from end_to_end.relay import metrics
from end_to_end.test_outbound_tls import server_tls, servers
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
