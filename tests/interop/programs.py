"""Foreign programs as a test's own: started on free ports, in directories of their own, ended by process id.

Where one is missing the test is skipped and says which; tools/interop-peers installs all of them on Debian.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay_process import wait_for

PATIENCE_S = 30.0


def program(name: str) -> str:
    """Its path; skips the test when there is none."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: tools/interop-peers installs it")
    return found


def run(*words: str, input_octets: bytes | None = None, env: dict[str, str] | None = None) -> str:
    """Runs a program to its end and returns what it printed; fails the test when the program failed."""
    done = subprocess.run(
        [program(words[0]), *words[1:]],
        input=input_octets,
        stdin=subprocess.DEVNULL if input_octets is None else None,
        capture_output=True,
        timeout=PATIENCE_S * 2,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    output = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, f"{' '.join(words)}: exit status {done.returncode}\n{output}"
    return output


def free_port() -> int:
    """One that nobody has at this moment: these programs cannot bind port 0."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def greets(port: int) -> bool:
    """Whether an SMTP server answers there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.settimeout(5)
            return client.recv(4) != b""
    except OSError:
        return False


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True
    except OSError:
        return False


def accepts_unix(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            return True
    except OSError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class SmtpSink:
    """smtp-sink on a port; with messages kept, one file each, in `directory`."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self.directory = directory

    @property
    def route(self) -> str:
        return f'[[route]]\ndomain = "*"\nnext_hop = "smtp://127.0.0.1:{self.port}"\n'

    def messages(self) -> list[bytes]:
        """What it has kept so far: its own X-fields, then the message, with LF line ends."""
        return [path.read_bytes() for path in self.directory.iterdir()]


@contextlib.contextmanager
def smtp_sink(*options: str, keep: bool = False) -> Iterator[SmtpSink]:
    """Postfix' test server (man smtp-sink)."""
    path, port = program("smtp-sink"), free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="sink-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o777)
        kept = ["-d", f"{directory}/m."] if keep else []
        process = subprocess.Popen(
            [path, *user, *kept, *options, f"127.0.0.1:{port}", "1000"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=directory,
        )
        try:
            wait_for(lambda: accepts(port) or process.poll() is not None, "smtp-sink listens")
            assert process.poll() is None, "smtp-sink did not start"
            yield SmtpSink(port, Path(directory))
        finally:
            end(process)


MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
maillog_file_prefixes = {root}
maillog_file = {root}/mail.log
syslog_name = postfix-test
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = postfix.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{relay_port}
disable_dns_lookups = yes
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
smtputf8_enable = yes
message_size_limit = 50000000
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
notify_classes =
{more}
"""

MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""


class Postfix:
    """A Postfix of the test's own; its relayhost is `relay_port`."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.port = port

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def route(self) -> str:
        return f'[[route]]\ndomain = "*"\nnext_hop = "{self.url}"\n'

    def log(self) -> str:
        path = self.root / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def queue_is_empty(self) -> bool:
        return not any(
            path.is_file()
            for name in ("active", "deferred", "incoming", "maildrop", "hold")
            for path in (self.root / "queue" / name).rglob("*")
        )


@contextlib.contextmanager
def postfix(relay_port: int, more: str = "", port: int = 0) -> Iterator[Postfix]:
    """more: lines for main.cf; port 0: a free one. Nothing of the system's Postfix is touched."""
    command = program("postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix starts only as root")
    owner = pwd.getpwnam("postfix")
    with tempfile.TemporaryDirectory(prefix="postfix-", dir="/var/tmp") as text:
        root = Path(text)
        root.chmod(0o755)
        self = Postfix(root, port or free_port())
        for name in ("etc", "queue", "data"):
            (root / name).mkdir()
        os.chown(root / "data", owner.pw_uid, owner.pw_gid)
        (root / "etc/main.cf").write_text(MAIN_CF.format(root=root, relay_port=relay_port, more=more))
        (root / "etc/master.cf").write_text(MASTER_CF.format(port=self.port))
        run("postfix", "-c", f"{root}/etc", "check")
        master = subprocess.Popen(
            [command, "-c", f"{root}/etc", "start-fg"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: greets(self.port) or master.poll() is not None, "Postfix greets")
            assert master.poll() is None, self.log()
            yield self
        finally:
            subprocess.run([command, "-c", f"{root}/etc", "stop"], check=False, capture_output=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                master.wait(PATIENCE_S)
            if master.poll() is None:
                end(master)
