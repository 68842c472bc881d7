"""The supervisor with workers that do nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_process import is_alive, wait_for

PROGRAM = Path(__file__).with_name("trivial.py")


class Running:
    def __init__(self, directory: Path, manner: str, count: int) -> None:
        self.log = directory / "log"
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), manner, str(count)],
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in events if event["event"] == name]

    def ready(self, count: int) -> list[dict[str, Any]]:
        return wait_for(
            lambda: len(found := self.events("ready")) == count and found, f"{count} workers are ready"
        )

    def over(self) -> dict[str, Any]:
        self.process.wait(20)
        (event,) = self.events("over")
        return event


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    started: list[Running] = []

    def start(manner: str, count: int = 1) -> Running:
        started.append(Running(tmp_path, manner, count))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def test_workers_are_told_to_drain_and_waited_for(run: Any) -> None:
    running = run("serve", 3)
    workers = running.ready(3)
    running.process.terminate()
    over = running.over()
    assert (over["status"], over["failure"]) == (0, "")
    assert len(running.events("draining")) == 3
    assert not any(is_alive(worker["pid"]) for worker in workers)


def test_a_worker_that_does_not_stop_is_killed(run: Any) -> None:
    running = run("stubborn")
    running.ready(1)
    running.process.terminate()
    assert running.over()["status"] == 0
    assert running.events("worker-killed")


def test_what_a_worker_answers_comes_behind_what_it_logged(run: Any) -> None:
    running = run("serve")
    running.ready(1)
    names = [json.loads(line)["event"] for line in running.log.read_text().splitlines()]
    assert names == ["asked", "ready"]


def test_a_worker_that_does_not_stop_at_once_when_it_is_to_is_killed(run: Any) -> None:
    running = run("patient")
    running.ready(1)
    running.process.terminate()
    wait_for(lambda: running.events("draining"), "it drains")
    running.process.terminate()
    assert running.over()["status"] == 0
    assert running.events("worker-killed")


def test_a_drain_that_fails_closes_the_spool_all_the_same(run: Any) -> None:
    running = run("drain-fails")
    running.ready(1)
    running.process.terminate()
    assert running.over()["status"] == 0
    assert running.events("closed")


def test_a_task_that_never_ends_holds_up_no_stop(run: Any) -> None:
    running = run("waiting")
    running.ready(1)
    running.process.terminate()
    over = running.over()
    assert (over["status"], over["failure"]) == (0, "")
    assert not running.events("worker-killed")


def test_who_is_told_to_stop_while_workers_open_begins_nothing_more(run: Any) -> None:
    """A worker says that it serves before it drains: what the owner began then, nobody told to end."""
    running = run("slow")
    wait_for(lambda: running.events("opening"), "a worker opens")
    running.process.terminate()
    over = running.over()
    assert (over["status"], over["failure"]) == (0, "")
    assert not running.events("ready")


def test_a_worker_that_dies_at_start_ends_everything_with_2(run: Any) -> None:
    over = run("die-at-start", 2).over()
    assert over["status"] == 2
    assert over["failure"] in [f"worker {n} died at start: exit status 7" for n in (0, 1)]


def test_a_worker_that_cannot_start_is_quoted(run: Any) -> None:
    over = run("cannot-start", 2).over()
    assert (over["status"], over["failure"]) == (2, "spool shard 00 is on fire")


def test_a_dead_worker_is_replaced_and_what_it_held_taken_back(run: Any) -> None:
    running = run("serve", 2)
    first, second = running.ready(2)
    os.kill(first["pid"], signal.SIGKILL)
    (restarted,) = wait_for(lambda: running.events("worker-restarted"), "a worker is restarted")
    assert restarted["worker"] == first["worker"]
    assert running.events("buried") == [running.events("buried")[0]]
    assert is_alive(second["pid"])


def test_a_worker_told_to_stop_by_an_operator_comes_back(run: Any) -> None:
    running = run("serve")
    (worker,) = running.ready(1)
    os.kill(worker["pid"], signal.SIGTERM)
    wait_for(lambda: running.events("worker-restarted"), "a worker is restarted")
    assert running.events("worker-died")[0]["reason"] == "exit status 0"


def test_a_worker_that_cannot_be_forked_is_tried_again_and_the_others_go_on(run: Any) -> None:
    running = run("no-processes", 1)
    (worker,) = running.ready(1)
    os.kill(worker["pid"], signal.SIGKILL)
    (restarted,) = wait_for(lambda: running.events("worker-restarted"), "a worker is restarted")
    reasons = [event["reason"] for event in running.events("error")]
    assert reasons == ["worker 0 cannot be started: Resource temporarily unavailable"] * 2
    running.process.terminate()         # signals come still
    assert running.over()["status"] == 0
    assert not is_alive(restarted["pid"])


def test_where_no_worker_can_be_forked_nothing_starts(run: Any) -> None:
    over = run("none-at-start", 2).over()
    assert (over["status"], over["failure"]) == (2, "worker 0 cannot be started: Resource temporarily unavailable")


def test_workers_die_with_a_supervisor_that_is_killed_even_while_stopped(run: Any) -> None:
    """A worker whose loop does not run cannot see the channel close: the kernel must kill it."""
    running = run("serve", 2)
    workers = running.ready(2)
    for worker in workers:
        os.kill(worker["pid"], signal.SIGSTOP)
    running.process.kill()
    running.process.wait()
    wait_for(lambda: not any(is_alive(worker["pid"]) for worker in workers), "the workers are gone")


def test_a_worker_holds_nothing_of_its_parent_but_its_own(run: Any) -> None:
    """A descriptor of another worker's channel kept open would hide that worker's death."""
    running = run("serve", 3)
    for worker in running.ready(3):
        links = [
            os.readlink(entry) for entry in Path(f"/proc/{worker['pid']}/fd").iterdir() if int(entry.name) > 2
        ]
        theirs = {os.readlink(entry) for entry in Path(f"/proc/{running.process.pid}/fd").iterdir()}
        shared = [link for link in links if link in theirs and link.startswith("socket:")]
        assert shared == []
        assert worker["frozen"] > 1000, "the parent's objects are out of the collector's reach"


def test_sighup_is_handed_on(run: Any) -> None:
    running = run("serve")
    running.ready(1)
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: running.events("reload"), "the owner is told")
