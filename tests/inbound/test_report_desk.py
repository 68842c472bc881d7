"""A report that is dropped is answered 250 only when its event is on stable storage."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from angarium.bounces.classifier import Classifier
from angarium.bounces.report_options import ReportsOptions
from angarium.bounces.verp import Verp
from angarium.events.journal import Journal
from angarium.inbound.policy_state import PendingReport
from angarium.inbound.report_desk import ReportDesk

PLAIN = b"From: a@x.example\r\nSubject: no report\r\n\r\nhello\r\n"


VERP = Verp("bounces@y.example", (), b"k" * 32)
RETURNED = (Path(__file__).parents[1] / "bounces/reports/postfix.eml").read_text().replace("\n", "\r\n")


def answer_of(log: Path, content: bytes = PLAIN, classifier: Any = None, **options: Any) -> Any:
    """What the message judge says of a message, of one that is no report where nothing is said."""

    async def main() -> Any:
        fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        loop = asyncio.get_running_loop()
        desk = ReportDesk(loop, Journal(fd, loop), "mx.example", fd)
        try:
            desk.apply(ReportsOptions(addresses=["bounces@y.example"], **options), VERP, classifier or Classifier())
            judge: Any = desk.judges_of(None).message[0]  # type: ignore[arg-type]
            visit = SimpleNamespace(report=PendingReport(b"bounces@y.example", None))
            case = SimpleNamespace(client=SimpleNamespace(visit=visit), content=content, recipients=[])
            return await judge(case)
        finally:
            desk.close()
            os.close(fd)

    return asyncio.run(main())


def test_a_report_that_is_dropped_is_in_the_log_and_synced_before_its_250(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, synced = tmp_path / "log", []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(log.read_text()))
    assert answer_of(log) is None
    assert len(synced) == 1
    assert "report-unrecognised" in synced[0]


def test_a_log_that_cannot_be_synced_defers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    assert answer_of(tmp_path / "log").reply.startswith(b"451 ")


def test_a_full_disk_defers_it() -> None:
    assert answer_of(Path("/dev/full")).reply.startswith(b"451 ")


def test_a_report_that_is_forwarded_is_kept_by_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    assert answer_of(tmp_path / "log", forward="all", forward_to="ops@y.example") is None
    assert synced == []


def test_a_returned_path_that_looks_like_a_trace_and_has_other_octets_is_hearsay(tmp_path: Path) -> None:
    """The judge failed at it, and the report got 451 each time that it came."""
    path = "bounces+" + "0" * 25 + "+x\u00e9@y.example"
    assert answer_of(tmp_path / "log", RETURNED.replace("news@example.net", path).encode()) is None
    (event,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (event["event"], event.get("trace")) == ("bounce", None)


def test_a_report_that_cannot_be_told_is_for_a_person_and_not_deferred(tmp_path: Path) -> None:
    class Broken:
        def verdict(self, *_: object, **__: object) -> object:
            raise ValueError("no class")

    assert answer_of(tmp_path / "log", RETURNED.encode(), Broken()) is None
    assert "report-unrecognised" in (tmp_path / "log").read_text()
    assert "no class" in (tmp_path / "log").read_text()


def test_rcpt_to_a_look_alike_beyond_ascii_is_refused(tmp_path: Path) -> None:
    async def main() -> Any:
        fd = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        loop = asyncio.get_running_loop()
        desk = ReportDesk(loop, Journal(fd, loop), "mx.example", fd)
        try:
            desk.apply(ReportsOptions(verp="bounces@y.example"), VERP, Classifier())
            judge: Any = desk.judges_of(None).rcpt[0]  # type: ignore[arg-type]
            address = ("bounces+" + "0" * 25 + "+x\u00e9@y.example").encode()
            return judge(SimpleNamespace(client=SimpleNamespace(visit=None), forward_path=address))
        finally:
            desk.close()
            os.close(fd)

    assert asyncio.run(main()).reply.startswith(b"550 5.1.1 ")
