"""Policy services that others wrote: postgrey, and policyd-spf as Postfix's spawn(8) would run it."""

from __future__ import annotations

import contextlib
import os
import pwd
import smtplib
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from end_to_end.relay import clean_relay
from interop.programs import accepts_unix, end, program
from relay_process import RelayProcess, maildir_route, wait_for

LISTENER = 'relay_from = []\nrelay_to = ["y.example"]'


@contextlib.contextmanager
def postgrey() -> Iterator[str]:
    """Its socket; a second after the first try a triplet is let in."""
    command = program("postgrey")
    with tempfile.TemporaryDirectory(prefix="postgrey-", dir="/var/tmp") as text:
        root = Path(text)
        user = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody")
            os.chown(root, owner.pw_uid, owner.pw_gid)
            user = ["--user=nobody", "--group=nogroup"]
        process = subprocess.Popen(
            [command, f"--unix={root}/socket", f"--dbdir={root}", f"--pidfile={root}/pid", "--delay=1", *user],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: accepts_unix(root / "socket") or process.poll() is not None, "postgrey listens")
            assert process.poll() is None
            yield f"{root}/socket"
        finally:
            end(process)


@contextlib.contextmanager
def spawned(command: str, path: Path) -> Iterator[None]:
    """A process of its own for each connection, which is its stdin and stdout."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    processes: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    processes.append(
                        subprocess.Popen([command], stdin=connection, stdout=connection, stderr=subprocess.DEVNULL)
                    )

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        listening.close()
        for process in processes:
            end(process)


def sent(relay: RelayProcess) -> tuple[int, str]:
    """Of one message: the reply that refused its recipient, or 250."""
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
        try:
            client.sendmail("a@x.example", ["b@y.example"], "Subject: x\r\n\r\nx\r\n")
        except smtplib.SMTPRecipientsRefused as refused:
            code, text = refused.recipients["b@y.example"]
            return code, text.decode()
        return 250, ""


def test_postgrey_greylists(tmp_path: Path) -> None:
    with postgrey() as path:
        config = f'[[policy.service]]\naddress = "unix:{path}"\n' + maildir_route(tmp_path)
        with clean_relay(tmp_path, config, listener=LISTENER) as relay:
            code, text = sent(relay)
            assert code == 450 and "reylist" in text
            wait_for(lambda: sent(relay)[0] == 250, "the triplet is let in")
            (mail,) = wait_for(lambda: list((tmp_path / "mail" / "b" / "new").glob("*")), "delivered")
            assert b"X-Greylist: delayed " in mail.read_bytes()


def test_policyd_spf_adds_its_field(tmp_path: Path) -> None:
    """About a loopback client it says that there is nothing to check, and needs no DNS for that."""
    with spawned(program("policyd-spf"), tmp_path / "spf"):
        service = f'[[policy.service]]\naddress = "unix:{tmp_path}/spf"\ntimeout = "60s"\n'
        with clean_relay(tmp_path, service + maildir_route(tmp_path), listener=LISTENER) as relay:
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=60) as client:
                client.sendmail("a@x.example", ["b@y.example", "c@y.example"], "Subject: x\r\n\r\nx\r\n")
            (mail,) = wait_for(lambda: list((tmp_path / "mail" / "b" / "new").glob("*")), "delivered")
            assert mail.read_bytes().count(b"SPF check N/A for local connections") == 1
