"""One run of mail through an MTA: smtp-source in front, smtp-sink behind, a clock and counters around.

Both tools come with Postfix; neither is tuned to us. The end of a run is when smtp-sink has counted the last
message: its `-c` counters go into a pipe that is looked at every few milliseconds, which costs both
contenders the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import process_tree

POLL_S = 0.004
STALL_S = 45.0  # nothing delivered for so long: the run has failed
PIPE_OCTETS = 1 << 20
MESG = re.compile(rb"mesg=(\d+)")


class RunFailed(Exception):
    """The mail did not come through."""


class Contender(Protocol):
    """An MTA that runs: it listens on 127.0.0.1:port and sends everything to 127.0.0.1:sink_port.

    pid   the first process of its tree.
    """

    port: int
    sink_port: int
    pid: int


@dataclass(frozen=True)
class Work:
    """What smtp-source is asked to do. `is_kept_open` is its -d: one connection for all messages of a
    session.
    """

    messages: int
    sessions: int
    size_octets: int
    is_kept_open: bool = True

    def options(self) -> list[str]:
        text = f"-s {self.sessions} -m {self.messages} -l {self.size_octets} -M source.example"
        return [
            *(["-d"] if self.is_kept_open else []),
            *f"{text} -f from@source.example -t to@sink.example".split(),
        ]


@dataclass(frozen=True)
class Run:
    """One measured run. Times in seconds, from the start of smtp-source."""

    messages: int
    delivered_s: float  # until the sink had the last message
    accepted_s: float  # until smtp-source had the last 250
    mta_cpu_s: float  # whole process tree, until it fell quiet again
    tools_cpu_s: float  # smtp-source and smtp-sink

    @property
    def messages_per_s(self) -> float:
        return self.messages / self.delivered_s

    @property
    def cpu_us_per_message(self) -> float:
        return self.mta_cpu_s / self.messages * 1e6


def tool(name: str) -> str:
    """Path of one of Postfix's programs, which live in sbin directories that are not always in PATH."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise RunFailed(f"{name} not found: install Debian's postfix package")
    return path


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def await_greeting(port: int, is_alive: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Returns when 127.0.0.1:port answers with a 220 greeting; RunFailed when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not is_alive():
            raise RunFailed("the server ended while starting")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            if s.recv(512).startswith(b"220"):
                s.sendall(b"QUIT\r\n")
                s.recv(512)
                return
        time.sleep(0.05)
    raise RunFailed(f"no greeting from 127.0.0.1:{port} within {timeout_s:.0f} s")


class Sink:
    """A fresh smtp-sink and the number of messages it has counted."""

    def __init__(self, port: int) -> None:
        self.received = 0
        self._tail = b""
        read_fd, write_fd = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(read_fd, fcntl.F_SETPIPE_SZ, PIPE_OCTETS)
        os.set_blocking(read_fd, False)
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []  # refuses to run as root
        self._fd = read_fd
        self.process = subprocess.Popen(
            [tool("smtp-sink"), "-4", "-c", "-m", "5000", *as_user, f"127.0.0.1:{port}", "1000"],
            stdin=subprocess.DEVNULL,
            stdout=write_fd,
            stderr=subprocess.DEVNULL,
        )
        os.close(write_fd)

    def poll(self) -> int:
        """Messages received so far."""
        with contextlib.suppress(BlockingIOError):
            while octets := os.read(self._fd, PIPE_OCTETS):
                self._tail = (self._tail + octets)[-200:]
        # The last counter may be cut in the middle of its digits: only what a separator follows is whole.
        counts = [int(m.group(1)) for m in MESG.finditer(self._tail) if m.end() < len(self._tail)]
        self.received = max([self.received, *counts])
        return self.received

    def close(self) -> float:
        """Ends it; returns its CPU seconds."""
        cpu = process_tree.cpu_s(self.process.pid)
        end(self.process)
        os.close(self._fd)
        return cpu


@contextlib.contextmanager
def sink(port: int) -> Iterator[Sink]:
    it = Sink(port)
    try:
        await_greeting(port, lambda: it.process.poll() is None, 10)
        yield it
    finally:
        it.close()


def end(process: subprocess.Popen[bytes], patience_s: float = 10.0) -> None:
    """SIGTERM, then SIGKILL; always reaped."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def run(work: Work, mta: Contender, *, every: Callable[[], None] | None = None, every_s: float = 0.25) -> Run:
    """Sends `work` to the MTA on server_port, whose next hop is sink_port, and waits until all of it has
    arrived.

    every   called about every `every_s` while mail is under way (to sample memory).
    RunFailed when smtp-source fails or nothing arrives for STALL_S.
    """
    os.sync()  # what the other contender left dirty shall not be written during this run
    with sink(mta.sink_port) as behind:
        cpu_before = process_tree.cpu_s(mta.pid)
        sink_cpu_before = process_tree.cpu_s(behind.process.pid)
        self_before = os.times()
        start = time.monotonic()
        source = subprocess.Popen(
            [tool("smtp-source"), *work.options(), f"127.0.0.1:{mta.port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        accepted_s = 0.0
        progress = (0, start)
        next_every = start
        try:
            while (received := behind.poll()) < work.messages:
                now = time.monotonic()
                if received != progress[0]:
                    progress = (received, now)
                elif now - progress[1] > STALL_S:
                    raise RunFailed(
                        f"{received} of {work.messages} messages arrived, then nothing for {STALL_S:.0f} s"
                    )
                if not accepted_s and source.poll() is not None:
                    accepted_s = now - start
                    if source.returncode != 0:
                        words = source.stderr.read().decode(errors="replace") if source.stderr else ""
                        raise RunFailed(f"smtp-source: {words.strip()}")
                if every is not None and now >= next_every:
                    every()
                    next_every = time.monotonic() + every_s
                time.sleep(POLL_S)
            delivered_s = time.monotonic() - start
            source.wait(STALL_S)
            accepted_s = accepted_s or time.monotonic() - start
        finally:
            end(source)
            if source.stderr:
                source.stderr.close()
        mta_cpu_s = _cpu_when_quiet(mta.pid) - cpu_before
        children = os.times()
        source_cpu_s = (
            children.children_user
            + children.children_system
            - self_before.children_user
            - self_before.children_system
        )
        sink_cpu_s = process_tree.cpu_s(behind.process.pid) - sink_cpu_before
        if behind.poll() != work.messages:
            raise RunFailed(f"{behind.received} messages arrived for {work.messages} sent")
    return Run(work.messages, delivered_s, accepted_s, mta_cpu_s, source_cpu_s + sink_cpu_s)


def without_mta(work: Work, port: int) -> float:
    """Messages a second of smtp-source straight into smtp-sink: no MTA between the two can be faster."""
    with sink(port) as behind:
        start = time.monotonic()
        source = subprocess.run(
            [tool("smtp-source"), *work.options(), f"127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            timeout=STALL_S * 4,
        )
        if source.returncode != 0:
            raise RunFailed(f"smtp-source: {source.stderr.decode(errors='replace').strip()}")
        while behind.poll() < work.messages:
            if time.monotonic() - start > STALL_S * 4:
                raise RunFailed(f"{behind.received} of {work.messages} messages arrived without an MTA")
            time.sleep(POLL_S)
        return work.messages / (time.monotonic() - start)


def _cpu_when_quiet(pid: int, limit_s: float = 5.0) -> float:
    """CPU seconds of the tree once what trails behind the last delivery (log, removal from the queue) is
    done.
    """
    deadline = time.monotonic() + limit_s
    before = process_tree.cpu_s(pid)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = process_tree.cpu_s(pid)
        if now - before <= 0.011:
            return now
        before = now
    return before
