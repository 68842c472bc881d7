"""A relay process that must end as it should: exit status 0, nothing logged as an error, one line on stderr."""

from __future__ import annotations

import contextlib
import http.client
import json
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
        assert not relay.events("error", "stalled", "worker-died")
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


def figures(relay: RelayProcess) -> list[dict[str, Any]]:
    """What each worker that answers says of itself, as it is now: /metrics has the spool's every two seconds."""
    status, text = admin_get(relay, "/v1/status")
    assert status == 200
    return [each["figures"] for each in json.loads(text)["workers"] if each["figures"]]


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
        done = relay.command("status", "--json")
        if done.returncode != 0:
            return False
        figures = [worker["figures"] for worker in json.loads(done.stdout)["workers"]]
        return len(figures) == relay.workers_wanted and all(
            each and not each["loading"] and not each["messages"] for each in figures
        )

    wait_for(is_empty, "the queue is empty", patience_s)


def outcomes(relay: RelayProcess) -> dict[str, list[str]]:
    """Forward-path -> its outcomes so far, in order."""
    found: dict[str, list[str]] = {}
    for event in relay.events("delivered", "deferred", "failed", "expired"):
        found.setdefault(event["to"], []).append(event["event"])
    return found
