"""What `angarium spool repair` leaves, whenever it ends."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from spool_writer import Written, fill

from angarium.cli.main import main
from angarium.spool.deposit import Deposit
from angarium.spool.directory import SpoolDirectory


@pytest.fixture
def written(tmp_path: Path) -> dict[int, Written]:
    return asyncio.run(fill(tmp_path / "spool", seed=7, messages=20, shards=2))


def repair(tmp_path: Path) -> int:
    return main(["spool", "repair", "--to", str(tmp_path / "new"), "--spool", str(tmp_path / "spool")])


def fail_at(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    real, calls = Deposit.put, 0

    async def put(self: Deposit, *rest: object) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            await self.drain()  # what came before is on the disk
            raise error
        await real(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Deposit, "put", put)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt(), SystemExit(143)], ids=repr
)
def test_a_repair_that_ends_early_leaves_what_nobody_takes_for_a_spool(
    tmp_path: Path, written: dict[int, Written], capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        fail_at(monkeypatch, len(written) - 2, error)
        if isinstance(error, SystemExit):
            with pytest.raises(SystemExit):
                repair(tmp_path)
        else:
            assert repair(tmp_path) != 0
    if isinstance(error, OSError):
        assert f"No space left on device; the new spool {tmp_path}/new is unfinished" in capsys.readouterr().err
    assert list((tmp_path / "new").glob("0?/seg-*"))

    def said(*words: str) -> str:
        assert main(["spool", *words]) == 2
        return capsys.readouterr().err

    new = str(tmp_path / "new")
    wanted = f"spool {new}: `angarium spool repair` was interrupted while it filled it, and not all mail is in it"
    assert wanted in said("check", "--spool", new)
    assert wanted in said("ls", "--spool", new)
    assert wanted in said("repair", "--spool", str(tmp_path / "spool"), "--to", new)
    assert wanted in said("repair", "--spool", new, "--to", str(tmp_path / "third"))
    (tmp_path / "angarium.toml").write_text(
        f'[node]\nspool = "{new}"\nhostname = "mx.example"\n[[listener]]\naddress = "127.0.0.1:0"\n'
    )
    assert main(["serve", "--config", str(tmp_path / "angarium.toml")]) == 2
    assert wanted in capsys.readouterr().err


def test_a_repair_that_is_done_leaves_a_spool(tmp_path: Path, written: dict[int, Written]) -> None:
    assert repair(tmp_path) == 0
    with SpoolDirectory.open(str(tmp_path / "new")) as spool:
        assert spool.shards() == [0, 1]
    assert (tmp_path / "new" / "format").read_text() == "angarium-spool 1\n"
    assert not (tmp_path / "new" / "format.new").exists()
