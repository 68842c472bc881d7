"""What `angarium spool repair` leaves, whenever it ends."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from spool_writer import Written, fill
from unreadable import angarium_without

from angarium.bounces import secret, suppression
from angarium.cli.main import main
from angarium.inbound import quota_file
from angarium.process import automation_desk
from angarium.queue import order_book, ration_file
from angarium.spool.deposit import Deposit
from angarium.spool.directory import SpoolDirectory
from angarium.tls import report_store


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


BESIDE = [
    *(module.NAME for module in (order_book, ration_file, quota_file, automation_desk)),
    *(module.FILE_NAME for module in (secret, suppression, report_store)),
    "greylist.db",
    "mta-sts.db",
]


def put_beside(spool: Path) -> dict[str, bytes]:
    made = {name: name.encode() * 1000 for name in BESIDE}
    passing = dict.fromkeys(("orders.json.new", "greylist.db-shm", "suppression.lmdb-lock"), b"x")
    for name, octets in {**made, **passing}.items():
        (spool / name).write_bytes(octets)
    return made


def test_what_lies_beside_the_mail_goes_along(
    tmp_path: Path, written: dict[int, Written], capsys: pytest.CaptureFixture[str]
) -> None:
    """A suspension that stands in orders.json stands in the new spool, too."""
    made = put_beside(tmp_path / "spool")
    assert repair(tmp_path) == 0
    told = capsys.readouterr().out
    assert [line.split()[1] for line in told.splitlines() if line.startswith("copied ")] == sorted(made)
    there = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir() if path.is_file()}
    assert {name: there[name] for name in made} == made
    assert set(there) == {*made, "format", "lock"}
    assert all((tmp_path / "new" / name).stat().st_mode & 0o777 == 0o600 for name in made)


def test_a_file_beside_the_mail_that_cannot_be_read_is_named_and_left_out(
    tmp_path: Path, written: dict[int, Written]
) -> None:
    made = put_beside(tmp_path / "spool")
    orders = tmp_path / "spool" / "orders.json"
    done = angarium_without(
        orders, 4096, 8192, "spool", "repair", "--to", tmp_path / "new", "--spool", tmp_path / "spool"
    )
    assert done.returncode == 1, done.stderr
    assert "NOT COPIED  orders.json: Input/output error" in done.stdout
    assert f"{len(written)} messages saved" in done.stdout
    there = {path.name for path in (tmp_path / "new").iterdir() if path.is_file()}
    assert there == {*made, "format", "lock"} - {"orders.json"}
