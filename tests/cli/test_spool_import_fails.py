"""An import that fails half-way: what is in the spool by then is told, so that nobody sends it twice."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest
from spool_writer import fill

from angarium.cli import spool_write
from angarium.cli.main import main
from angarium.model.errors import SpoolError
from angarium.spool import deposit
from angarium.spool.shard import Shard, Stored


@pytest.fixture
def mail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    asyncio.run(fill(tmp_path / "spool", seed=7, messages=30))
    asyncio.run(fill(tmp_path / "other", messages=0))
    assert main(["spool", "export", "--all", "--to", str(tmp_path / "mail"), "--spool", str(tmp_path / "spool")]) == 0
    capsys.readouterr()
    return tmp_path / "mail"


def run_import(tmp_path: Path) -> int:
    return main(["spool", "import", str(tmp_path / "mail"), "--json", "--spool", str(tmp_path / "other")])


def listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["spool", "ls", "--json", "--spool", str(tmp_path / "other")]) == 0
    return sorted(json.loads(line)["id"] for line in capsys.readouterr().out.splitlines())


def read_failing(monkeypatch: pytest.MonkeyPatch, path: Path, error: BaseException) -> None:
    """It can be read once, when everything is looked at, and not when it is put."""
    real, reads = spool_write.read_octets, []

    def read(eml: Path, *, is_binarymime: bool) -> bytes:
        if eml == path:
            reads.append(eml)
            if len(reads) == 2:
                raise error
        return real(eml, is_binarymime=is_binarymime)

    monkeypatch.setattr(spool_write, "read_octets", read)


@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), KeyboardInterrupt()], ids=repr)
def test_what_is_durable_is_told_when_a_file_cannot_be_read(
    tmp_path: Path, mail: Path, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    files = sorted(mail.glob("*.eml"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        read_failing(monkeypatch, files[7], error)
        assert run_import(tmp_path) == (1 if isinstance(error, OSError) else 130)
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [each["was"] for each in found] == [path.stem for path in files[:7]]
    assert sorted(each["id"] for each in found) == listed(tmp_path, capsys)
    if isinstance(error, OSError):
        assert f"not imported: {files[7]}: Input/output error\n" in told.err
        assert f"{len(files) - 7} of {len(files)} messages were not imported" in told.err


def test_a_message_that_the_spool_does_not_take_is_named_and_those_beside_it_are_told(
    tmp_path: Path, mail: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch under way the third fails: the others of it are durable."""
    files = sorted(mail.glob("*.eml"))
    calls = 0

    class Failing(Shard):
        def store(self, envelope: bytes, octets: bytes | None) -> asyncio.Future[Stored]:
            nonlocal calls
            calls += 1
            if calls != 3:
                return super().store(envelope, octets)
            future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
            future.set_exception(SpoolError("Input/output error"))
            return future

    monkeypatch.setattr(spool_write, "Shard", Failing)
    monkeypatch.setattr(deposit, "_UNDER_WAY_MAX", 5)
    assert run_import(tmp_path) == 1
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [each["was"] for each in found] == [path.stem for path in files[:5] if path != files[2]]
    assert f"not imported: {files[2]}: Input/output error\n" in told.err
    assert sorted(each["id"] for each in found) == listed(tmp_path, capsys)


def test_nothing_imported_is_refused(
    tmp_path: Path, mail: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = min(mail.glob("*.eml"))
    read_failing(monkeypatch, first, OSError(errno.EIO, os.strerror(errno.EIO)))
    assert run_import(tmp_path) == 2
    told = capsys.readouterr()
    assert told.out == "" and f"not imported: {first}: Input/output error\n" in told.err
