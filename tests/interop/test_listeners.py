"""Kinds of listeners with clients that others wrote: Postfix' LMTP client and smtp-source, swaks, msmtp, systemd."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from end_to_end.relay import clean_relay
from interop.programs import end, free_port, greets, postfix, program, run
from interop.test_auth import IDENTITY, PASSWORD, with_file
from relay_process import RelayProcess, maildir_route, wait_for
from tls.authority import certificate, write, write_authority

NAME = "mx.test.example"
LMTP = 'protocol = "lmtp"\nrelay_from = ["127.0.0.0/8"]'


def test_postfix_delivers_by_lmtp_over_a_unix_socket(tmp_path: Path) -> None:
    # Not below tmp_path: Postfix runs as another user, and every pytest that starts shuts the root of them all.
    with tempfile.TemporaryDirectory(prefix="lmtp-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        _deliver_by_lmtp(tmp_path, Path(directory) / "lmtp.sock")


def _deliver_by_lmtp(tmp_path: Path, path: Path) -> None:
    listener = f'address = "unix:{path}"\n{LMTP}\n'
    with RelayProcess(tmp_path, maildir_route(tmp_path), listener=listener) as relay:
        transport = f"default_transport = lmtp:unix:{path}\nrelay_transport = lmtp:unix:{path}\nrelayhost =\n"
        with postfix(0, transport) as peer:
            run("swaks", "--server", "127.0.0.1", "--port", str(peer.port), "--from", "me@x.example",
                "--to", "a@y.example,b@y.example")  # fmt: skip
            wait_for(lambda: len(relay.events("delivered")) == 2, "both are delivered")
            wait_for(peer.queue_is_empty, "Postfix has let go of it")
        (event,) = relay.events("received")
        assert event["protocol"] == "LMTP"
        assert sorted(event["to"]) == ["a@y.example", "b@y.example"]
        assert relay.stop() == 0


def test_postfix_forwards_where_mail_came_from(tmp_path: Path) -> None:
    program("swaks")
    listener = 'relay_from = ["127.0.0.0/8"]\nxforward_from = ["127.0.0.1"]'
    with clean_relay(tmp_path, maildir_route(tmp_path), listener=listener) as relay:
        with postfix(relay.port, "smtp_send_xforward_command = yes\n") as peer:
            run("swaks", "--server", "127.0.0.1", "--port", str(peer.port), "--from", "me@x.example",
                "--to", "a@y.example", "--helo", "spike.example")  # fmt: skip
            wait_for(lambda: relay.events("received"), "it has come")
        (event,) = relay.events("received")
        assert (event["origin_client"], event["origin_helo"]) == ("127.0.0.1", "spike.example")
        assert event["origin_protocol"] == "ESMTP"
        assert event["origin_id"]


def test_smtp_source_speaks_lmtp(tmp_path: Path) -> None:
    with clean_relay(tmp_path, maildir_route(tmp_path), listener=LMTP) as relay:
        run("smtp-source", "-L", "-s", "4", "-m", "40", "-r", "3", "-t", "a@y.example", "-f", "me@x.example",
            f"inet:127.0.0.1:{relay.port}")  # fmt: skip
        wait_for(lambda: len(relay.events("received")) == 40, "all have come")


def test_swaks_speaks_lmtp(tmp_path: Path) -> None:
    with clean_relay(tmp_path, maildir_route(tmp_path), listener=LMTP) as relay:
        talk = run("swaks", "--protocol", "LMTP", "--server", "127.0.0.1", "--port", str(relay.port),
                   "--from", "me@x.example", "--to", "a@y.example,b@y.example")  # fmt: skip
        assert "220 mx.test LMTP Angarium" in talk
        assert talk.count("250 2.0.0 Ok: queued as") == 2


def test_swaks_introduces_another_client(tmp_path: Path) -> None:
    listener = 'relay_to = ["y.example"]\nxclient_from = ["127.0.0.1"]'
    with clean_relay(tmp_path, maildir_route(tmp_path), listener=listener) as relay:
        run("swaks", "--server", "127.0.0.1", "--port", str(relay.port), "--from", "me@x.example",
            "--to", "a@y.example", "--xclient", "ADDR=192.0.2.7 NAME=spike.example")  # fmt: skip
        (event,) = wait_for(lambda: relay.events("received"), "it has come")
        assert event["client"] == "192.0.2.7"


@pytest.mark.parametrize("protocol", ["submission", "submissions"])
def test_msmtp_submits_under_tls(protocol: str, tmp_path: Path) -> None:
    program("msmtp")
    table = write(tmp_path, certificate(NAME), "server")
    tls = f'tls = {{ certificates = [{{ cert = "{table["cert"]}", key = "{table["key"]}" }}] }}'
    listener = f'protocol = "{protocol}"\n{tls}'
    secret = tmp_path / "msmtprc"
    with clean_relay(tmp_path, with_file(tmp_path), listener=listener) as relay:
        secret.write_text(
            f"account default\nhost 127.0.0.1\nport {relay.port}\nfrom {IDENTITY}\nauth plain\nuser {IDENTITY}\n"
            f"password {PASSWORD}\ntls on\ntls_starttls {'on' if protocol == 'submission' else 'off'}\n"
            f"tls_trust_file {write_authority(tmp_path)}\ntls_host_override {NAME}\n"
        )
        secret.chmod(0o600)
        run("msmtp", "-C", str(secret), "b@y.example", input_octets=b"Subject: hello\n\nhello\n")
        (event,) = wait_for(lambda: relay.events("received"), "it has come")
        assert (event["protocol"], event["user"]) == ("ESMTPSA", IDENTITY)


def test_systemd_passes_a_socket(tmp_path: Path) -> None:
    activate, port = program("systemd-socket-activate"), free_port()
    listener = 'address = "0.0.0.0:25"\nsocket = { name = "front" }\n'
    relay = RelayProcess(tmp_path, maildir_route(tmp_path), workers=2, listener=listener)
    words = [sys.executable, "-m", "angarium.cli.main", "serve", "--config", str(relay.config_path)]
    path = os.pathsep.join(each for each in sys.path if each)
    with relay.log_path.open("wb") as log, relay.errors_path.open("wb") as errors:
        process = subprocess.Popen(
            [activate, "-l", f"127.0.0.1:{port}", "--fdname=front", "-E", f"PYTHONPATH={path}", *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=errors,
        )  # fmt: skip
    try:
        wait_for(lambda: greets(port), "the relay greets on systemd's socket")   # the first connection starts it
        (event,) = wait_for(lambda: relay.events("started"), "all workers serve")
        assert f"127.0.0.1:{port}" in event["listeners"]
    finally:
        end(process)
    assert process.returncode == 0
