"""A report that is dropped is answered 250 only when its event is on stable storage."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from angarium.bounces.classifier import Classifier
from angarium.bounces.report_options import ReportsOptions
from angarium.events.journal import Journal
from angarium.inbound.policy_state import PendingReport
from angarium.inbound.report_desk import ReportDesk

PLAIN = b"From: a@x.example\r\nSubject: no report\r\n\r\nhello\r\n"


def answer_of(log: Path, **options: Any) -> Any:
    """What the message judge says of a message that is no report."""

    async def main() -> Any:
        fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        loop = asyncio.get_running_loop()
        desk = ReportDesk(loop, Journal(fd, loop), "mx.example", fd)
        try:
            desk.apply(ReportsOptions(addresses=["bounces@y.example"], **options), None, Classifier())
            judge: Any = desk.judges_of(None).message[0]  # type: ignore[arg-type]
            visit = SimpleNamespace(report=PendingReport(b"bounces@y.example", None))
            case = SimpleNamespace(client=SimpleNamespace(visit=visit), content=PLAIN, recipients=[])
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
