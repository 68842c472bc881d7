"""`angarium blast` as a user runs it, against a sink in this process that can be told to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from angarium.measure.receiver_options import EXTENSIONS, ReceiverOptions
from angarium.measure.receivers import DEFAULT, Receiver, Receivers
from angarium.measure.recording import Record
from angarium.measure.rules import Rule, parse_delay_rule, parse_disconnect_rule, parse_reply_rule
from angarium.measure.sink import Sink


class SinkThread:
    """A sink on a loop of its own thread."""

    def __init__(
        self, rules: list[Rule], *, is_lmtp: bool, extensions: tuple[str, ...], record: Path | None
    ) -> None:
        self.port = 0
        self.sink: Sink
        self._ready = Event()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, args=(rules, is_lmtp, extensions, record))
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self, rules: list[Rule], is_lmtp: bool, extensions: tuple[str, ...], path: Path | None) -> None:
        async def serve() -> None:
            record = Record(str(path)) if path else None
            options = ReceiverOptions(without=[name for name in EXTENSIONS if name not in extensions])
            receiver = Receiver(DEFAULT, options, rules=rules, chance=random.Random(1), is_lmtp=is_lmtp)
            self.sink = Sink(Receivers([], receiver), is_lmtp=is_lmtp, record=record)
            server = await self._loop.create_server(self.sink.connection, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self.sink.finished.wait()
            server.close()
            if record is not None:
                record.close()

        self._loop.run_until_complete(serve())
        self._loop.close()

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.sink.finished.set)
        self._thread.join(10)


@contextlib.contextmanager
def sink(
    *rules: Rule, is_lmtp: bool = False, extensions: tuple[str, ...] = EXTENSIONS, record: Path | None = None
) -> Iterator[SinkThread]:
    it = SinkThread(list(rules), is_lmtp=is_lmtp, extensions=extensions, record=record)
    try:
        yield it
    finally:
        it.close()


def blast(port: int, *options: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "angarium.cli.main",
            "blast",
            "--server",
            f"127.0.0.1:{port}",
            "--json",
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return done.returncode, report


@pytest.mark.parametrize(
    "options", [[], ["--pipelining"], ["--bdat"], ["--pipelining", "--bdat"], ["--new-connection"]]
)
@pytest.mark.parametrize("is_lmtp", [False, True], ids=["smtp", "lmtp"])
def test_every_message_arrives_once_with_its_size_and_paths(
    options: list[str], is_lmtp: bool, tmp_path: Path
) -> None:
    record = tmp_path / "mail.jsonl"
    with sink(is_lmtp=is_lmtp, record=record) as s:
        status, report = blast(
            s.port,
            *options,
            *(["--lmtp"] if is_lmtp else []),
            "--messages",
            "50",
            "--sessions",
            "4",
            "--size",
            "5000",
            "--recipients",
            "2",
            "--from",
            "f{n}@x.example",
            "--to",
            "t{n}-{r}@y.example",
        )
    assert status == 0
    assert (report["sent"], report["failed"], report["accepted_recipients"]) == (50, 0, 100)
    assert report["connections"] == (50 if options == ["--new-connection"] else 4)
    got = [json.loads(line) for line in record.read_text().splitlines()]
    assert {message["octets"] for message in got} == {5000}
    assert sorted(message["reverse_path"] for message in got) == sorted(
        f"f{n}@x.example" for n in range(1, 51)
    )
    assert len({message["message_id"] for message in got}) == 50
    assert {tuple(message["forward_paths"]) for message in got} == {
        (f"t{n}-1@y.example", f"t{n}-2@y.example") for n in range(1, 51)
    }
    latency = report["latency_ms"]
    assert isinstance(latency, dict)
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]


def test_pipelining_and_bdat_are_not_used_where_not_offered() -> None:
    with sink(extensions=()) as s:
        status, _ = blast(s.port, "--messages", "5", "--pipelining", "--bdat")
        assert status == 0
        assert s.sink.statistics.commands["data"] == 5
        assert s.sink.statistics.commands["bdat"] == 0


def test_paths_of_a_file_are_taken_in_turn_and_again(tmp_path: Path) -> None:
    record, paths = tmp_path / "mail.jsonl", tmp_path / "paths"
    paths.write_text("a@1.example\nb@2.example\nc@3.example\n")
    with sink(record=record) as s:
        status, _ = blast(s.port, "--messages", "4", "--sessions", "1", "--recipients", "2", "--to-file", str(paths))
    assert status == 0
    assert [json.loads(line)["forward_paths"] for line in record.read_text().splitlines()] == [
        ["a@1.example", "b@2.example"],
        ["c@3.example", "a@1.example"],
        ["b@2.example", "c@3.example"],
        ["a@1.example", "b@2.example"],
    ]


@pytest.mark.parametrize("pipelining", [[], ["--pipelining"]], ids=["", "pipelined"])
@pytest.mark.parametrize(
    ("rule", "failures"),
    [
        ("mail=451 4.3.0 Later", {"mail: 451 4.3.0 Later": 5}),
        ("rcpt=550 5.1.1 Nobody", {"rcpt: 550 5.1.1 Nobody": 5}),
        ("data=452 4.3.1 Full", {"data: 452 4.3.1 Full": 5}),
        (".=554 5.6.0 Bad", {"end of data: 554 5.6.0 Bad": 5}),
        (".=421 4.3.2 Gone", {"end of data: 421 4.3.2 Gone": 5}),
        ("rcpt=421 4.3.2 Gone", {"lost: 421 4.3.2 Gone": 5}),
    ],
)
def test_refusals_are_counted_by_reply_and_fail_the_command(
    rule: str, failures: dict[str, int], pipelining: list[str]
) -> None:
    with sink(parse_reply_rule(rule)) as s:
        status, report = blast(s.port, "--messages", "5", "--sessions", "2", *pipelining)
    assert status == 1
    assert (report["sent"], report["failed"], report["unsent"]) == (0, 5, 0)
    assert report["failures"] == failures


def test_session_goes_on_after_a_refused_recipient() -> None:
    with sink(parse_reply_rule("rcpt@50=450 4.2.1 Busy")) as s:
        status, report = blast(
            s.port, "--messages", "40", "--sessions", "1", "--recipients", "2", "--pipelining"
        )
    assert status == 1
    assert isinstance(report["accepted_recipients"], int)
    assert isinstance(report["refused_recipients"], int)
    assert report["accepted_recipients"] + report["refused_recipients"] == 80
    assert report["connections"] == 1
    assert isinstance(report["sent"], int)
    assert isinstance(report["failed"], int)
    assert report["sent"] > report["failed"] > 0


def test_lost_connections_are_failures_and_dialled_again() -> None:
    with sink(parse_disconnect_rule(".@30")) as s:
        status, report = blast(s.port, "--messages", "40", "--sessions", "2")
        assert status == 1
        assert report["sent"] == s.sink.statistics.messages
    assert isinstance(report["failed"], int)
    assert report["failed"] > 0
    assert report["failures"] == {"lost: connection closed": report["failed"]}
    assert report["unsent"] == 0


def test_no_server_is_a_failure_that_ends() -> None:
    status, report = blast(1, "--messages", "10", "--sessions", "2")
    assert status == 1
    assert report["sent"] == 0
    assert report["connect_troubles"] == 10  # five for each session


def test_silence_is_given_up_after_the_timeout() -> None:
    for limit_s in ("0.3", "5"):        # the longer one where even the greeting did not come in the shorter
        with sink(parse_delay_rule("data=30")) as s:
            status, report = blast(s.port, "--messages", "1", "--timeout", limit_s)
        if not report["connect_troubles"]:
            break
    assert status == 1
    assert report["failures"] == {"lost: no reply in time": 1}


def test_rate_is_kept_and_delay_shows_in_since_due() -> None:
    with sink(parse_delay_rule(".@100=0.05")) as s:
        status, report = blast(s.port, "--messages", "20", "--rate", "100", "--sessions", "1")
    assert status == 0
    # One session that takes 50 ms a message cannot keep up with one every 10 ms: only the schedule tells.
    assert isinstance(report["seconds"], float)
    assert report["seconds"] >= 1.0
    latency, since_due = report["latency_ms"], report["latency_since_due_ms"]
    assert isinstance(latency, dict)
    assert isinstance(since_due, dict)
    assert latency["p50"] < 200
    assert since_due["max"] > 500
    assert isinstance(report["late"], int)
    assert report["late"] > 10


def test_duration_ends_the_load() -> None:
    for duration_s in (0.5, 5.0):       # the longer one where the shorter was over before all sessions had begun
        with sink() as s:
            status, report = blast(s.port, "--duration", f"{duration_s}", "--rate", "200")
            assert status == 0
            assert s.sink.statistics.messages == report["sent"]
        assert isinstance(report["sent"], int)
        assert report["sent"] <= 200 * duration_s + 1
        if report["sent"] > 20:
            break
    assert report["sent"] > 20


def test_interrupt_finishes_what_is_under_way_and_reports() -> None:
    with sink(parse_delay_rule(".=0.2")) as s:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "angarium.cli.main",
                "blast",
                "--server",
                f"127.0.0.1:{s.port}",
                "--duration",
                "60",
                "--sessions",
                "3",
                "--json",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while s.sink.statistics.commands["data"] < 3:       # one of each session is under way
                assert process.poll() is None
                Event().wait(0.01)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    report = json.loads(out)
    assert process.returncode == 0
    assert report["failed"] == 0
    assert report["sent"] >= 3


@pytest.mark.parametrize(
    "option",
    [
        ["--size", "8k-4k"],
        ["--server", "nowhere"],
        ["--sessions", "0"],
        ["--to", "a>b"],
        ["--rate", "-1"],
        ["--rate", "nan"],
        ["--rate", "x"],
        ["--duration", "-1"],
    ],
)
def test_wrong_usage_is_status_2(option: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "angarium.cli.main", "blast", *option],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert "error: argument" in done.stderr
