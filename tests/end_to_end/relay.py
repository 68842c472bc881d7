"""A relay process that must end as it should: exit status 0, nothing logged as an error, one line on stderr."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relay_process import RelayProcess, wait_for

QUICK_RETRY = '[queue.default]\nretry = { first = "200ms", factor = 1.0, max = "200ms", jitter = 0.0 }\n'
NO_RETRY = '[queue.default]\nretry = { first = "1h", max = "1h" }\n'
MESSAGE = b"From: <me@x.example>\r\nSubject: hello\r\n\r\nfirst line\r\n.second line\r\n"


@contextlib.contextmanager
def clean_relay(
    directory: Path, config: str = "", *, workers: int = 1, listener: str = ""
) -> Iterator[RelayProcess]:
    """RelayProcess, and at the end of a block that went well: did it end cleanly?"""
    if listener:
        listener = f'address = "127.0.0.1:0"\n{listener}\n'
    with RelayProcess(directory, config, workers=workers, listener=listener) as relay:
        yield relay
        assert relay.stop() == 0
        assert not relay.events("error", "worker-died")
        others = [line for line in relay.errors().splitlines() if " listens on " not in line]
        assert not others, others


def fix_port(relay: RelayProcess, config: str) -> None:
    """Writes the configuration with the port that the relay got: it keeps it over restarts and reloads."""
    relay.listener = relay.listener.replace('"127.0.0.1:0"', f'"127.0.0.1:{relay.port}"')
    relay.write_config(config)


def admin_get(relay: RelayProcess, path: str) -> tuple[int, bytes]:
    """Status and body of one request to the admin socket."""
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(f"{relay.spool}/admin.sock")
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def metrics(relay: RelayProcess) -> dict[str, float]:
    """All counters, added up over the workers."""
    status, text = admin_get(relay, "/metrics")
    assert status == 200
    values: dict[str, float] = {}
    for line in text.decode().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            values[name] = values.get(name, 0.0) + float(value)
    return values


def workers(relay: RelayProcess) -> list[dict[str, Any]]:
    """What all workers say of themselves, by their numbers: the supervisor waits two seconds for one, this for all.

    Each of them has then heard what the supervisor had told it before it was asked.
    """

    def answers() -> list[dict[str, Any]]:
        status, text = admin_get(relay, "/v1/status")
        assert status == 200
        found = [each for each in json.loads(text)["workers"] if each["figures"]]
        return found if len(found) == relay.workers_wanted else []

    return wait_for(answers, "all workers answer")


def figures(relay: RelayProcess) -> list[dict[str, Any]]:
    """Those of each worker as they are now: /metrics has the spool's every two seconds."""
    return [each["figures"] for each in workers(relay)]


def wait_until_loaded(relay: RelayProcess) -> None:
    """A relay serves while it loads its backlog: until all of that is in the queue."""
    wait_for(lambda: not any(each["loading"] for each in figures(relay)), "backlogs are loaded")


def worker_of(relay: RelayProcess, client: socket.socket) -> int:
    """Process id of the worker that has accepted this connection, by TCP over IPv4; 0: nobody has yet."""
    ports = f":{relay.port:04X}", f":{client.getsockname()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(ports[0]) and row[2].endswith(ports[1])}
    return next((pid for pid in relay.workers() if ours & open_sockets(pid)), 0)


def open_sockets(pid: int) -> set[str]:
    """What a process has open, as the links in its /proc/PID/fd name them."""
    found = set[str]()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            link = os.readlink(each)
            if link.startswith("socket:"):
                found.add(link)
    return found


def queued_ids(relay: RelayProcess) -> list[str]:
    """Of at most a thousand messages in the queue."""
    status, text = admin_get(relay, "/v1/queue?limit=1000")
    assert status == 200
    return sorted(each["id"] for each in json.loads(text)["messages"])


def queue(relay: RelayProcess, *words: str) -> list[dict[str, Any]]:
    """`queue list --json`; the command must succeed."""
    done = relay.command("queue", "list", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_until_empty(relay: RelayProcess, patience_s: float = 20.0) -> None:
    """Until backlogs are loaded and no message is in any worker's queue."""

    def is_empty() -> bool:
        try:
            status, text = admin_get(relay, "/v1/status")
        except (OSError, http.client.HTTPException):  # it is starting
            return False
        found = [worker["figures"] for worker in json.loads(text)["workers"]] if status == 200 else []
        return len(found) == relay.workers_wanted and all(
            each and not each["loading"] and not each["messages"] for each in found
        )

    wait_for(is_empty, "the queue is empty", patience_s)


def outcomes(relay: RelayProcess) -> dict[str, list[str]]:
    """Forward-path -> its outcomes so far, in order."""
    found: dict[str, list[str]] = {}
    for event in relay.events("delivered", "deferred", "failed", "expired"):
        found.setdefault(event["to"], []).append(event["event"])
    return found
