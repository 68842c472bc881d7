"""`angarium auth`: what it writes, what it refuses, what it never prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from angarium.sasl.credential_file import HASHER, read


def auth(*words: str, password: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "angarium.cli.main", "auth", *words],
        input=password,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )


def test_identities_are_added_changed_listed_and_deleted(tmp_path: Path) -> None:
    file = ("--file", str(tmp_path / "credentials"))
    for identity in ("bob@x.example", "alice@x.example"):
        done = auth("add", identity, *file, password="first\nnot this line\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert auth("list", *file).stdout == "alice@x.example\nbob@x.example\n"
    before = read(tmp_path / "credentials").entries
    assert HASHER.verify(before["alice@x.example"].argon2, "first")
    assert auth("passwd", "alice@x.example", *file, password="second\n").returncode == 0
    after = read(tmp_path / "credentials").entries
    assert HASHER.verify(after["alice@x.example"].argon2, "second")
    assert after["alice@x.example"].scram != before["alice@x.example"].scram
    assert after["bob@x.example"] == before["bob@x.example"]
    assert auth("delete", "bob@x.example", *file).returncode == 0
    assert auth("list", *file).stdout == "alice@x.example\n"
    assert "second" not in (tmp_path / "credentials").read_text()


@pytest.mark.parametrize(
    ("words", "password", "reason"),
    [
        (("add", "alice"), "x\n", "alice is there already"),
        (("passwd", "nobody"), "x\n", "there is no nobody"),
        (("delete", "nobody"), "", "there is no nobody"),
        (("add", "a\tb"), "x\n", "control character"),
        (("add", "*"), "x\n", "stands for all"),
        (("add", "bob"), "\n", "a password has 1 to 1024 octets"),
        (("add", "bob"), "a\x07b\n", "control character"),
    ],
)
def test_a_refusal_is_one_line_and_changes_nothing(
    words: tuple[str, ...], password: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "credentials"
    assert auth("add", "alice", "--file", str(path), password="x\n").returncode == 0
    before = path.read_bytes()
    done = auth(*words, "--file", str(path), password=password)
    assert done.returncode == 2
    assert done.stderr.startswith("angarium: ") and reason in done.stderr and done.stderr.count("\n") == 1
    assert path.read_bytes() == before


def test_the_file_is_found_by_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "angarium.toml"
    config.write_text(f'[[listener]]\naddress = "127.0.0.1:2525"\n[auth]\ncredentials = "file:{tmp_path}/c"\n')
    assert auth("add", "alice", "--config", str(config), password="x\n").returncode == 0
    assert auth("list", "--config", str(config)).stdout == "alice\n"
    config.write_text('[[listener]]\naddress = "127.0.0.1:2525"\n')
    assert "name a file with --file" in auth("list", "--config", str(config)).stderr
