"""The file of credentials: what is taken, what is refused, how it is changed."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from angarium.sasl import credential_file
from angarium.sasl.credential_file import CredentialsError, Entry, changing, make_entry, read
from angarium.sasl.scram import make_keys

ENTRY = Entry(make_entry("x").argon2, make_keys("x", iterations=4096))


def make(path: Path, *identities: str) -> Path:
    with changing(path, may_make=True) as credentials:
        credentials.entries.update(dict.fromkeys(identities, ENTRY))
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = make(tmp_path / "credentials", "alice@example.net", "b\u00e9a", "with space")
    credentials = read(path)
    assert credentials.entries == dict.fromkeys(("alice@example.net", "b\u00e9a", "with space"), ENTRY)
    assert len(credentials.secret) == 32
    with changing(path) as again:
        del again.entries["b\u00e9a"]
    assert read(path).secret == credentials.secret, "salts of those who do not exist stay the same"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_for_its_owner_only_and_a_changed_one_keeps_its_mode(tmp_path: Path) -> None:
    path = make(tmp_path / "credentials", "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    make(path, "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o660, 0o601])
def test_a_file_that_others_may_read_or_write_is_refused(mode: int, tmp_path: Path) -> None:
    path = make(tmp_path / "credentials", "a")
    path.chmod(mode)
    with pytest.raises(CredentialsError, match=f"mode {mode:04o}"):
        read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text.replace("credentials 1", "credentials 2"),
        lambda text: text.replace("secret\t", "secret\t="),
        lambda text: text + text.splitlines()[-1] + "\n",
        lambda text: text.replace("\na\t", "\n\t"),
        lambda text: text.replace("\na\t", "\na\x1b\t"),
        lambda text: text.replace("$argon2id$", "$argon2i$"),
        lambda text: text.replace("SCRAM-SHA-256$", "SCRAM-SHA-1$"),
        lambda text: text.replace("$4096:", "$1:"),
        lambda text: text + "\n",
    ],
)
def test_a_malformed_file_is_refused_as_a_whole(change, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / "credentials", "a")
    path.write_text(change(path.read_text()))
    with pytest.raises(CredentialsError, match="credentials"):
        read(path)


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    path = make(tmp_path / "credentials", "a")
    threads = [threading.Thread(target=make, args=(path, f"u{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read(path).entries) == {"a", *(f"u{number}" for number in range(8))}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "credentials", "a")

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(CredentialsError, match="Input/output error"):
        make(path, "b")
    assert set(read(path).entries) == {"a"}
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_who_does_not_exist_is_hashed_at_the_same_cost() -> None:
    imagined, real = credential_file.imagined_verifier(), ENTRY.argon2
    assert imagined.split("$")[:4] == real.split("$")[:4]
    assert [len(part) for part in imagined.split("$")] == [len(part) for part in real.split("$")]
