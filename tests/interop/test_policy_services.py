"""Policy services that others wrote: postgrey, postfwd, and policyd-spf as Postfix's spawn(8) would run it."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import smtplib
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from end_to_end.relay import clean_relay
from interop.programs import PATIENCE_S, accepts, accepts_unix, end, free_port, program
from relay_process import RelayProcess, is_alive, maildir_route, wait_for

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


# The first that matches decides; `rate` counts what it has let by.
POSTFWD_RULES = """\
id=BLOCKED ; sender_domain=blocked.example ; action=REJECT 5.7.1 nothing from there
id=RATE    ; sender=often@x.example ; action=rate(sender/3/3600/450 4.7.1 too much from $$sender)
id=SIZE    ; protocol_state=END-OF-MESSAGE ; size>=5000 ; action=REJECT 5.3.4 too long for us
id=NOTED   ; protocol_state=RCPT ; action=PREPEND X-Noted: $$helo_name [$$client_address] to $$recipient
"""


@contextlib.contextmanager
def postfwd() -> Iterator[int]:
    """Its port. It serves as a daemon only: what it writes of itself says whom to end."""
    with tempfile.TemporaryDirectory(prefix="postfwd-", dir="/var/tmp") as text:
        root, port = Path(text), free_port()
        (root / "rules").write_text(POSTFWD_RULES)
        user = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody")
            os.chown(root, owner.pw_uid, owner.pw_gid)
            user = ["--user=nobody", "--group=nogroup"]
        words = [f"--file={root}/rules", "--interface=127.0.0.1", f"--port={port}", f"--pidfile={root}/pid"]
        subprocess.run(
            [program("postfwd1"), "--daemon", "--nodns", *words, *user],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=True,
        )
        pid = int(wait_for(lambda: (root / "pid").exists() and (root / "pid").read_text().strip(), "postfwd has begun"))
        try:
            wait_for(lambda: accepts(port), "postfwd listens")
            yield port
        finally:
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not is_alive(pid), "postfwd has ended")


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


def sent(relay: RelayProcess, sender: str = "a@x.example", text: str = "Subject: x\r\n\r\nx\r\n") -> tuple[int, str]:
    """Of one message: the reply that refused its recipient or its data, or 250."""
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
        try:
            client.sendmail(sender, ["b@y.example"], text)
        except smtplib.SMTPRecipientsRefused as refused:
            code, said = refused.recipients["b@y.example"]
            return code, said.decode()
        except smtplib.SMTPDataError as refused:
            assert isinstance(refused.smtp_error, bytes)
            return refused.smtp_code, refused.smtp_error.decode()
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


def test_postfwd_rules_refuse_limit_and_note(tmp_path: Path) -> None:
    """Its rules see what Postfix would have told: sender, recipient, client, HELO, and the size at the end of data."""
    with postfwd() as port:
        config = f'[[policy.service]]\naddress = "127.0.0.1:{port}"\nstates = ["rcpt", "end-of-message"]\n'
        with clean_relay(tmp_path, config + maildir_route(tmp_path), listener=LISTENER) as relay:
            assert sent(relay, "a@blocked.example") == (554, "5.7.1 nothing from there")
            assert sent(relay, text="Subject: x\r\n\r\n" + "x" * 70 + "\r\n")[0] == 250
            (mail,) = wait_for(lambda: list((tmp_path / "mail" / "b" / "new").glob("*")), "delivered")
            assert re.search(rb"^X-Noted: \S+ \[127\.0\.0\.1\] to b@y\.example$", mail.read_bytes(), re.MULTILINE)
            assert sent(relay, text="Subject: x\r\n\r\n" + 100 * ("x" * 70 + "\r\n")) == (554, "5.3.4 too long for us")
            said = [sent(relay, "often@x.example") for _ in range(3)]
            assert said[0][0] == 250
            assert said[-1] == (450, "4.7.1 too much from often@x.example")
            assert not relay.events("error")
