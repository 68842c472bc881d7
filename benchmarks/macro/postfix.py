"""Debian's Postfix as a contender: a configuration and a queue of its own, touching nothing of the system's.

Everything that is set away from the default is here with its reason. It is set for Postfix's benefit, or to
make both sides do the same work; nothing turns its fsync before 250 off.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from pathlib import Path

from drive import RunFailed, await_greeting, end, tool

MAIN_CF = """\
compatibility_level = 3.6
# --- own place, so that a system Postfix is not touched
queue_directory = {root}/queue
data_directory = {root}/data
maillog_file_prefixes = {root}
maillog_file = {root}/mail.log
syslog_name = postfix-bench
# --- loopback only; every next hop is the sink
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = postfix.bench.example
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink_port}
# --- no look-up leaves the process
disable_dns_lookups = yes
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
# --- relay for loopback and nothing else to decide, as on the other side
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
biff = no
# --- as much at once as it likes
default_process_limit = 100
default_destination_concurrency_limit = 50
smtp_destination_concurrency_limit = 50
initial_destination_concurrency = 50
# a failure of the sink between rounds must not throttle the next round
default_destination_concurrency_negative_feedback = 0
default_destination_concurrency_failed_cohort_limit = 100
# --- no brakes: anvil's limits off, no pause between intake and delivery, a large active queue
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_event_limit_exceptions = 127.0.0.0/8
in_flow_delay = 0
qmgr_message_active_limit = 100000
qmgr_message_recipient_limit = 100000
# --- connections to the next hop are kept from the first message on, not only on demand
smtp_connection_cache_destinations = [127.0.0.1]:{sink_port}
# --- processes live longer than 100 requests: fewer forks
max_use = 10000
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
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""


class Postfix:
    """Started by start(), ended by stop(); `pid` is its master process, `port` where it listens."""

    name = "postfix"
    title = "Postfix"

    def __init__(self, work_directory: Path, port: int, sink_port: int) -> None:
        if os.geteuid() != 0:
            raise RunFailed("Postfix starts only as root: run as root, or with --only angarium")
        self.root = work_directory / "postfix"
        self.port = port
        self.sink_port = sink_port
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def configuration(self) -> Path:
        return self.root / "etc"

    def version(self) -> str:
        return subprocess.run(
            [tool("postconf"), "-d", "-h", "mail_version"], check=True, capture_output=True, text=True
        ).stdout.strip()

    def settings(self) -> str:
        """What is set away from its defaults, for the results file."""
        return MAIN_CF

    def start(self) -> None:
        """Makes configuration, queue and data directory if they are not there yet, and starts master."""
        owner = pwd.getpwnam("postfix")
        for directory in (self.configuration, self.root / "queue", self.root / "data"):
            directory.mkdir(parents=True, exist_ok=True)
        os.chown(self.root / "data", owner.pw_uid, owner.pw_gid)
        (self.configuration / "main.cf").write_text(MAIN_CF.format(root=self.root, sink_port=self.sink_port))
        (self.configuration / "master.cf").write_text(MASTER_CF.format(port=self.port))
        self._run("check")  # also creates the queue's directories with their owners
        self._process = subprocess.Popen(
            [tool("postfix"), "-c", str(self.configuration), "start-fg"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await_greeting(self.port, lambda: self._process is not None and self._process.poll() is None)
        self.pid = int((self.root / "queue/pid/master.pid").read_text())

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.poll() is None:
            subprocess.run(
                [tool("postfix"), "-c", str(self.configuration), "stop"], check=False, capture_output=True
            )
            deadline = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        end(process)

    def _run(self, verb: str) -> None:
        done = subprocess.run(
            [tool("postfix"), "-c", str(self.configuration), verb],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RunFailed(f"postfix {verb}: {done.stderr.strip()}")
