"""The spool root: made, recognised, owned by one process."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from spool_writer import fill
from unreadable import angarium_without

from angarium.cli.main import main
from angarium.model.errors import SpoolBusy, SpoolCorrupt, SpoolError, SpoolVersion
from angarium.spool.directory import SpoolDirectory, shard_name


def test_a_missing_directory_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = SpoolDirectory.open(str(path))
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "format").read_text() == "angarium-spool 1\n"
    assert (path / "lock").read_text() == f"{os.getpid()}\n"
    assert (path / "lock").stat().st_mode & 0o777 == 0o600
    spool.close()


def test_a_missing_parent_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="none/spool: No such file"):
        SpoolDirectory.open(str(tmp_path / "none" / "spool"))


def test_shards_are_listed_by_number(tmp_path: Path) -> None:
    spool = SpoolDirectory.open(str(tmp_path / "spool"))
    for name in (shard_name(255), shard_name(3), "admin.sock", "x1", "003"):
        os.mkdir(name, dir_fd=spool.fd)
    assert spool.shards() == [3, 255]
    spool.close()


def test_a_second_process_is_told_the_first_ones_pid(tmp_path: Path) -> None:
    path = str(tmp_path / "spool")
    spool = SpoolDirectory.open(path)
    program = (
        "import sys\n"
        "from angarium.spool.directory import SpoolDirectory\n"
        "from angarium.model.errors import SpoolBusy\n"
        "try: SpoolDirectory.open(sys.argv[1])\nexcept SpoolBusy as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert run.stdout == f"spool {path} is in use by process {os.getpid()}\n"
    with pytest.raises(SpoolBusy):
        SpoolDirectory.open(path)
    assert (tmp_path / "spool" / "lock").read_text() == f"{os.getpid()}\n"
    spool.close()
    SpoolDirectory.open(path).close()


def test_another_version_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    SpoolDirectory.open(str(path)).close()
    (path / "format").write_text("angarium-spool 2\n")
    with pytest.raises(SpoolVersion, match="format version 2, this program reads version 1"):
        SpoolDirectory.open(str(path))
    assert (path / "format").read_text() == "angarium-spool 2\n"


@pytest.mark.parametrize("content", ["hello\n", "angarium-spool\n", "angarium-spool 1 2\n"])
def test_a_foreign_format_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "spool"
    SpoolDirectory.open(str(path)).close()
    (path / "format").write_text(content)
    with pytest.raises(SpoolCorrupt, match="is not ours"):
        SpoolDirectory.open(str(path))


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir(0o700)
    (path / "letter.txt").write_text("mine")
    with pytest.raises(SpoolCorrupt, match=r"holds 'letter\.txt'"):
        SpoolDirectory.open(str(path))
    assert [entry.name for entry in path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("left", "told"),
    [(None, "is not there"), (b"", "is empty"), (bytes(17), "is damaged"), (b"angarium-spool 1", "is damaged")],
)
def test_a_lost_format_stops_who_writes_and_nobody_who_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: bytes | None, told: str
) -> None:
    """The headers of the segments say the same: what is there can be looked at, and saved."""
    written = asyncio.run(fill(tmp_path / "spool", seed=1, messages=9))
    path, new = tmp_path / "spool", tmp_path / "new"
    (path / "format").unlink()
    if left is not None:
        (path / "format").write_bytes(left)
    with pytest.raises(SpoolCorrupt, match=f"its file `format` {told}, and it holds mail: see `angarium spool check`"):
        SpoolDirectory.open(str(path))
    with pytest.raises(SpoolCorrupt, match=f"its file `format` {told}"):
        SpoolDirectory.open_beside_owner(str(path))
    assert main(["spool", "check", "--spool", str(path)]) == 1
    assert f"DAMAGED  format: the file {told}" in capsys.readouterr().out
    assert main(["spool", "ls", "--json", "--spool", str(path)]) == 0
    listed = capsys.readouterr()
    assert len(listed.out.splitlines()) == len(written) and f"its file `format` {told}" in listed.err
    assert main(["spool", "repair", "--to", str(new), "--spool", str(path)]) == 0
    saved = capsys.readouterr()
    assert f"{len(written)} messages saved" in saved.out and f"its file `format` {told}" in saved.err
    SpoolDirectory.open(str(new)).close()
    # The file is as it was.
    assert ((path / "format").read_bytes() if (path / "format").exists() else None) == left


def test_names_alone_make_no_spool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spool" / "00").mkdir(parents=True, mode=0o700)
    (tmp_path / "spool" / "00" / "seg-0000.ang").write_bytes(b"not a header" * 1000)
    assert main(["spool", "check", "--spool", str(tmp_path / "spool")]) == 2
    assert "not a spool: it holds '00' and no file `format`" in capsys.readouterr().err


def test_a_format_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    written = asyncio.run(fill(tmp_path / "spool", seed=1, messages=9))
    lost = tmp_path / "spool" / "format"
    words = ("--spool", tmp_path / "spool")
    checked = angarium_without(lost, 0, 4096, "spool", "check", *words)
    assert checked.returncode == 1 and "format: the file cannot be read: Input/output error" in checked.stdout
    repaired = angarium_without(lost, 0, 4096, "spool", "repair", "--to", tmp_path / "new", *words)
    assert repaired.returncode == 0 and f"{len(written)} messages saved" in repaired.stdout


def test_a_crash_before_the_format_was_named_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.mkdir(0o700)
    (path / "lock").touch()
    (path / "format.new").write_text("angar")
    SpoolDirectory.open(str(path)).close()
    assert (path / "format").read_text() == "angarium-spool 1\n"


def failing(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """The call fails where it is made for format.new; of a write, 0: only a part arrives."""
    real, real_open = getattr(os, call), os.open
    files: set[int] = set()

    def opened(name: str, *rest: object, **options: object) -> int:
        if call == "open" and name == "format.new":
            raise OSError(number, os.strerror(number))
        fd: int = real_open(name, *rest, **options)
        if name == "format.new":
            files.add(fd)
        return fd

    def fails(first: object, *rest: object, **options: object) -> object:
        if first not in files and first != "format.new":
            return real(first, *rest, **options)
        if number == 0:
            return real(first, rest[0][:5])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", opened)
    if call != "open":
        monkeypatch.setattr(os, call, fails)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        *(("open", number) for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE)),
        *(("write", number) for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT, 0)),
        *(("fsync", number) for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT)),
        *(("rename", number) for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT)),
    ],
)
def test_a_format_that_cannot_be_named_is_told_and_named_by_the_next_start(
    tmp_path: Path, call: str, number: int
) -> None:
    path = tmp_path / "spool"
    with pytest.MonkeyPatch.context() as monkeypatch:
        failing(monkeypatch, call, number)
        with pytest.raises(SpoolError, match="spool: format: "):
            SpoolDirectory.open(str(path))
    assert not (path / "format").exists()
    SpoolDirectory.open(str(path)).close()
    assert (path / "format").read_text() == "angarium-spool 1\n"


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.mkdir()
    path.chmod(0o750)
    with pytest.raises(SpoolError, match="mode 0750"):
        SpoolDirectory.open(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.mkdir(0o700)
    os.chown(path, 65534, -1)
    with pytest.raises(SpoolError, match="belongs to user 65534"):
        SpoolDirectory.open(str(path))
