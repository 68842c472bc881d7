"""The spool root: made, recognised, owned by one process."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
