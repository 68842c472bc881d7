"""A command of the operator's that writes a bearer token: `token_command` of [login.NAME].

The first line of its output is the token. It runs without a shell, without input and away from the loop, in a session
of its own, for as long as it may; then all that it has left running is killed. What it writes to its standard error is
not kept: a command that is traced writes its secrets there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Final

from angarium.sasl.bearer import TOKEN, TOKEN_OCTETS
from angarium.sasl.secret_file import LoginTrouble

OUTPUT_OCTETS: Final = 64 << 10
# What tells systemd and a child of ours from each other is nobody else's business.
_OURS: Final = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_PID", "WATCHDOG_USEC")


class TokenCommand:
    """argv  of one command, the first an absolute path. timeout_s  for the whole of it."""

    def __init__(self, argv: Sequence[str], timeout_s: float) -> None:
        self._argv = list(argv)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._is_ended = False

    def run(self) -> str:
        """The token. Waits for the command: call in a thread, once. Raises LoginTrouble."""
        environment = {key: value for key, value in os.environ.items() if key not in _OURS}
        end_mono_s = time.monotonic() + self._timeout_s
        with self._lock:
            if self._is_ended:
                raise self._trouble("was ended")
            try:
                process = self._running = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=environment,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise self._trouble(f"cannot be run: {getattr(error, 'strerror', None) or error}") from None
        try:
            output = self._output_of(process, end_mono_s)
        finally:
            self.end()
            status = process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if status < 0:
            raise self._trouble(f"was ended by signal {-status}")
        if status:
            raise self._trouble(f"ended with status {status}")
        return self._token_of(output)

    def end(self) -> None:
        """Kills what still runs of it, and lets nothing begin. From any thread; does not wait."""
        with self._lock:
            self._is_ended = True
            process, self._running = self._running, None
            if process is not None:
                # run() waits for it behind this alone: till then its number, which is its group's, is nobody else's.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _output_of(self, process: subprocess.Popen[bytes], end_mono_s: float) -> bytes:
        """All that it writes until it ends; what it leaves running does not count."""
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        os.set_blocking(pipe, False)
        watched = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            poll.register(watched, select.POLLIN)
            output = b""
            is_open = True
            while True:
                left_s = end_mono_s - time.monotonic()
                events = poll.poll(left_s * 1000) if left_s > 0 else []
                if not events:
                    raise self._trouble(f"is not done within {self._timeout_s:g} s")
                has_ended = any(descriptor == watched for descriptor, _ in events)
                while is_open and (octets := _read(pipe)) is not None:
                    if not octets:
                        is_open = False
                        poll.unregister(pipe)
                    output += octets
                    if len(output) > OUTPUT_OCTETS:
                        raise self._trouble(f"writes more than {OUTPUT_OCTETS >> 10} KiB")
                if has_ended:
                    return output
        finally:
            os.close(watched)

    def _token_of(self, output: bytes) -> str:
        line = output.split(b"\n", 1)[0].removesuffix(b"\r")
        if not line:
            raise self._trouble("writes no token: its first line is empty")
        text = line.decode("ascii", "replace")
        if len(line) > TOKEN_OCTETS or not TOKEN.fullmatch(text):
            raise self._trouble("writes what is no bearer token (RFC 6750 §2.1) in its first line")
        return text

    def _trouble(self, what: str) -> LoginTrouble:
        return LoginTrouble(f"token_command {self._argv[0]} {what}")


def check_command(path: str) -> None:
    """Whether it can be run, for who asks beforehand. Raises LoginTrouble."""
    if not os.path.isfile(path):
        raise LoginTrouble(f"{path}: there is no such file")
    if not os.access(path, os.X_OK):
        raise LoginTrouble(f"{path}: may not be executed")


def _read(descriptor: int) -> bytes | None:
    """b"": nobody writes there any more. None: nothing for now."""
    try:
        return os.read(descriptor, OUTPUT_OCTETS)
    except BlockingIOError:
        return None
