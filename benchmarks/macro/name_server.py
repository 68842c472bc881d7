"""A local resolver with names that nobody has asked for yet: unbound, and behind it knot with a zone made for the
run.

Both from Debian's packages `unbound` and `knot`. The zone `bench.example` has what `lines` say; unbound gets all of
it from knot by loopback, and keeps it as it would anybody's.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import drive

ZONE = "bench.example"
KNOT = """\
server:
    listen: 127.0.0.1@{port}
    rundir: {directory}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {directory}/knot
log:
  - target: stderr
    any: warning
zone:
  - domain: {zone}
    file: {directory}/zone
    journal-content: none
    zonefile-sync: -1
"""
UNBOUND = """\
server:
    interface: 127.0.0.1
    port: {port}
    access-control: 127.0.0.0/8 allow
    do-daemonize: no
    username: ""
    chroot: ""
    directory: {directory}
    pidfile: ""
    use-syslog: no
    logfile: ""
    num-threads: 1
    do-not-query-localhost: no
    module-config: "iterator"
    outgoing-range: 4096
    num-queries-per-thread: 2048
    msg-cache-size: 128m
    rrset-cache-size: 128m
    so-rcvbuf: 4m
    local-zone: "example." nodefault
remote-control:
    control-enable: no
stub-zone:
    name: "{zone}."
    stub-addr: 127.0.0.1@{knot_port}
"""


def _program(name: str) -> str:
    path = shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
    if path is None:
        raise drive.RunFailed(f"{name} not found: install Debian's packages knot and unbound")
    return path


@contextlib.contextmanager
def resolver(directory: Path, lines: Iterable[str]) -> Iterator[int]:
    """Runs both while the block does; the port of 127.0.0.1 that unbound answers on."""
    (directory / "knot").mkdir(parents=True)
    with (directory / "zone").open("w") as zone:
        zone.write(f"$ORIGIN {ZONE}.\n$TTL 86400\n@ SOA ns hostmaster 1 3600 600 86400 300\n@ NS ns\nns A 127.0.0.1\n")
        zone.writelines(lines)
    knot_port, port = drive.free_port(), drive.free_port()
    knot, unbound = directory / "knot.conf", directory / "unbound.conf"
    knot.write_text(KNOT.format(port=knot_port, directory=directory, zone=ZONE))
    unbound.write_text(UNBOUND.format(port=port, knot_port=knot_port, directory=directory, zone=ZONE))
    processes = []
    try:
        for command, its_port in (
            ([_program("knotd"), "-c", str(knot)], knot_port), ([_program("unbound"), "-d", "-c", str(unbound)], port)
        ):
            with (directory / "names.log").open("ab") as log:
                processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            _await_answer(its_port, processes[-1], directory / "names.log")
        yield port
    finally:
        for process in processes:
            drive.end(process)


def _await_answer(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the zone's SOA is answered for."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in ZONE.split(".")) + b"\0"
    query = b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\6\0\1"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.5)
            with contextlib.suppress(OSError):
                s.connect(("127.0.0.1", port))
                s.send(query)
                answer = s.recv(512)
                if answer[3] & 15 == 0 and answer[6:8] != b"\0\0":
                    return
        time.sleep(0.1)
    raise drive.RunFailed(f"no answer of the name server: {log.read_text()[-1000:]}")
