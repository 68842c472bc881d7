"""An Exim of the test's own: one process per message, which hands it to the relay and ends.

Debian's exim4-daemon-light cannot be installed beside Postfix. tools/interop-peers unpacks it into a directory of its
own, and makes the user that it was built to run as.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

BINARY = Path(os.environ.get("ANGARIUM_EXIM", "/usr/local/lib/angarium-interop/exim/usr/sbin/exim4"))
USER = "Debian-exim"

CONFIGURATION = """\
exim_path = {binary}
primary_hostname = exim.test
spool_directory = {root}/spool
log_file_path = {root}/log/%slog
never_users =
keep_environment =
disable_ipv6 = true
message_size_limit = 50M
begin routers
relay:
  driver = manualroute
  transport = to_relay
  route_list = * 127.0.0.1
  host_find_failed = defer
  self = send
begin transports
to_relay:
  driver = smtp
  port = {port}
  {transport}
begin retry
* * F,1h,1s
"""


class Exim:
    """transport: a line for the transport, as hosts_require_tls."""

    def __init__(self, root: Path, port: int, transport: str = "") -> None:
        if not BINARY.exists():
            pytest.skip(f"{BINARY} does not exist: tools/interop-peers makes it")
        if os.geteuid() != 0:
            pytest.skip("Exim with a configuration of its own needs root")
        owner = pwd.getpwnam(USER)
        root.chmod(0o755)
        for name in ("spool", "log"):
            (root / name).mkdir()
            os.chown(root / name, owner.pw_uid, owner.pw_gid)
        self._root = root
        self._configuration = root / "exim.conf"
        self._configuration.write_text(CONFIGURATION.format(binary=BINARY, root=root, port=port, transport=transport))
        self._configuration.chmod(0o644)

    def send(self, message: bytes, *recipients: str) -> str:
        """Hands it over before it returns; what was said on the way (exim -v)."""
        done = subprocess.run(
            [BINARY, "-C", self._configuration, "-v", "-odi", "-oi", "-f", "me@x.example", "--", *recipients],
            input=message,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace") + self.log()

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in (self._root / "log").iterdir())
