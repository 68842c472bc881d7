"""A relay started as systemd starts one with sockets: descriptors from 3 on, and variables that name its process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from relay_process import RelayProcess

# LISTEN_PID is the process that runs the relay, so it is set by that one right before it becomes it.
_BECOME = """\
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
away = [os.dup2(fd, 100 + index) for index, fd in enumerate(fds)]
for index, fd in enumerate(away):
    os.dup2(fd, 3 + index, inheritable=True)
    os.close(fd)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": sys.argv[2]}
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


class ActivatedRelay(RelayProcess):
    """RelayProcess with `sockets`, by name."""

    def __init__(self, directory: Path, sockets: dict[str, socket.socket], **options: object) -> None:
        self.sockets = sockets
        super().__init__(directory, **options)  # type: ignore[arg-type]

    def launch(self) -> None:
        fds = [sock.fileno() for sock in self.sockets.values()]
        with self.log_path.open("ab") as log, self.errors_path.open("ab") as errors:
            self._log_start = self.log_path.stat().st_size
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BECOME, ",".join(map(str, fds)), ":".join(self.sockets),
                 "-m", "angarium.cli.main", "serve", "--config", str(self.config_path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=errors, pass_fds=fds,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )  # fmt: skip
