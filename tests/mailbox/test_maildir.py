"""Maildir: names that cannot leave the directory, files whole before they are seen, LF, honest errors."""

from __future__ import annotations

import errno
import mailbox
import os
import pathlib
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angarium.mailbox import maildir
from angarium.mailbox.maildir import (
    MaildirDelivery,
    deliver,
    mailbox_directory,
    path_component,
    was_delivered_before,
)
from angarium.model.outcome import Trouble

MESSAGE = b"Subject: x\r\n\r\nHello\r\n.dot\r\n"


@pytest.mark.parametrize(
    ("template", "forward_path", "directory"),
    [
        ("/m/{local}", b"anna@y.example", "/m/anna"),
        ("/m/{local}", b"Anna@Y.Example", "/m/anna"),  # one mailbox whatever the case
        ("/m/{domain}/{local}", b"anna@Y.Example", "/m/y.example/anna"),
        ("/m/{local}", b"anna+lists@y", "/m/anna"),  # RFC 5233 sub-address
        ("/m/{local}", b"+lists@y", "/m/%2Blists"),  # nothing would be left
        ("/m/{local}", b'"anna"@y', "/m/anna"),  # a quoted local-part means the same without quotes
        ("/m/{local}", b'"an\\"na b"@y', "/m/an%22na%20b"),
        ("/m/{local}", b'"../../etc/passwd"@y', "/m/%2E%2E%2F.%2E%2Fetc%2Fpasswd"),
        ("/m/{local}", b'".."@y', "/m/%2E%2E"),
        ("/m/{local}", b'"."@y', "/m/%2E"),
        ("/m/{local}", b".hidden@y", "/m/%2Ehidden"),
        ("/m/{local}", b"a..b@y", "/m/a.%2Eb"),
        ("/m/{local}", b'""@y', "/m/%"),
        ("/m/{local}", b"a%2Fb@y", "/m/a%252fb"),  # "%" itself is encoded: no two mailboxes meet
        ("/m/{local}", b'"{domain}"@y', "/m/%7Bdomain%7D"),  # not expanded twice
        ("/m/{local}", b"\x01\x7f@y", "/m/%01%7F"),
        ("/m/{local}", "ü@y".encode(), "/m/%C3%BC"),
        ("/m/{domain}/{local}", b"postmaster", "/m/localhost/postmaster"),  # RFC 5321 §4.1.1.3
        ("/m/{domain}", b"a@[IPv6:::1]", "/m/%5Bipv6%3A%3A%3A1%5D"),
        ("/m/all", b"a@y", "/m/all"),
    ],
)
def test_directory_of_a_mailbox(template: str, forward_path: bytes, directory: str) -> None:
    assert mailbox_directory(template, forward_path) == directory


@given(st.binary(max_size=400))
def test_a_component_never_leaves_its_place(part: bytes) -> None:
    """Invariant: one component, no leading dot, no "..", printable ASCII, 1 to 255 octets."""
    name = path_component(part)
    assert 1 <= len(name) <= 255
    assert "/" not in name
    assert ".." not in name
    assert not name.startswith(".")
    assert all(33 <= ord(character) < 127 for character in name)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_different_mailboxes_have_different_components(one: bytes, other: bytes) -> None:
    assert (path_component(one) == path_component(other)) == (one.lower() == other.lower())


def files(directory: pathlib.Path) -> dict[str, list[str]]:
    return {name: sorted(os.listdir(directory / name)) for name in ("tmp", "new", "cur")}


def test_a_delivered_message_is_one_file_in_new(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "deep" / "er" / "anna"
    (path,) = deliver([MaildirDelivery(str(directory), b"a@x.example", b"anna@y.example")], MESSAGE)
    assert isinstance(path, str)
    content = pathlib.Path(path).read_bytes()
    assert content == (
        b"Return-Path: <a@x.example>\nDelivered-To: anna@y.example\nSubject: x\n\nHello\n.dot\n"
    )
    assert files(directory) == {"tmp": [], "cur": [], "new": [pathlib.Path(path).name]}
    assert path.endswith(f",S={len(content)}")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    for each in (directory, directory / "new", directory.parent):
        assert stat.S_IMODE(os.stat(each).st_mode) == 0o700
    (seen,) = mailbox.Maildir(directory, create=False)
    assert seen["Return-Path"] == "<a@x.example>"
    assert seen.get_payload() == "Hello\n.dot\n"


def test_null_reverse_path(tmp_path: pathlib.Path) -> None:
    (path,) = deliver([MaildirDelivery(str(tmp_path / "m"), b"", b"b@y")], MESSAGE)
    assert pathlib.Path(str(path)).read_bytes().startswith(b"Return-Path: <>\n")


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"x", b"\r\r\n"]), max_size=12), st.integers(1, 5))
def test_cuts_do_not_change_the_file(tmp_path_factory: Any, parts: list[bytes], step: int) -> None:
    body = b"".join(parts)
    directory = str(tmp_path_factory.mktemp("m"))
    whole = MaildirDelivery(directory, b"", b"b@y")
    whole.write(body)
    cut = MaildirDelivery(directory, b"", b"b@y")
    for start in range(0, len(body), step):
        cut.write(body[start : start + step])
    assert pathlib.Path(cut.commit()).read_bytes() == pathlib.Path(whole.commit()).read_bytes()


def test_many_at_once_have_names_of_their_own(tmp_path: pathlib.Path) -> None:
    def one(_: int) -> str | Trouble:
        return deliver([MaildirDelivery(str(tmp_path / "m"), b"a@x", b"b@y")], MESSAGE)[0]

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(one, range(100)))
    assert len(set(map(str, paths))) == 100
    assert len(files(tmp_path / "m")["new"]) == 100


def test_nothing_can_be_seen_before_it_is_whole_and_synced(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    order: list[str] = []
    for name in ("fsync", "link", "write", "unlink"):
        real = getattr(os, name)

        def note(*args: Any, _real: Any = real, _name: str = name, **kwargs: Any) -> Any:
            order.append(_name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(maildir.os, name, note)
    (tmp_path / "m").mkdir()
    for name in ("tmp", "new", "cur"):
        (tmp_path / "m" / name).mkdir()
    deliver([MaildirDelivery(str(tmp_path / "m"), b"a@x", b"b@y")], MESSAGE)
    assert order == ["write", "write", "fsync", "link", "fsync", "unlink"]


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, (4, 3, 1)),
        (errno.EDQUOT, (4, 2, 2)),
        (errno.EACCES, (4, 3, 5)),
        (errno.EIO, (4, 3, 0)),
    ],
)
def test_an_error_is_temporary_and_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: Any, number: int, status: tuple[int, int, int]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(maildir.os, "fsync", fail) if number != errno.ENOSPC else monkeypatch.setattr(
        maildir.os, "write", fail
    )
    directory = tmp_path / "m"
    for name in ("tmp", "new", "cur"):
        (directory / name).mkdir(parents=True)
    (trouble,) = deliver([MaildirDelivery(str(directory), b"a@x", b"b@y")], MESSAGE)
    assert isinstance(trouble, Trouble)
    assert trouble.status == status
    assert str(directory) in trouble.text
    assert files(directory) == {"tmp": [], "new": [], "cur": []}


def test_a_file_in_the_way(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m").write_text("not a directory")
    (trouble,) = deliver([MaildirDelivery(str(tmp_path / "m"), b"a@x", b"b@y")], MESSAGE)
    assert isinstance(trouble, Trouble)
    assert trouble.status == (4, 3, 5)


def test_one_failure_among_several(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bad").write_text("not a directory")
    results = deliver(
        [MaildirDelivery(str(tmp_path / name), b"a@x", name.encode() + b"@y") for name in ("a", "bad", "c")],
        MESSAGE,
    )
    assert [isinstance(result, str) for result in results] == [True, False, True]


@pytest.mark.parametrize(
    ("start", "was"),
    [
        (b"Delivered-To: b@y\r\nSubject: x\r\n\r\n", True),
        (b"Subject: x\r\ndelivered-to:B@Y \r\n\r\n", True),
        (b"Delivered-To: bb@y\r\n\r\n", False),
        (b"Subject: x\r\n\r\nDelivered-To: b@y\r\n", False),  # not in the header section
        (b"X-Delivered-To: b@y\r\n\r\n", False),
        (b"", False),
    ],
)
def test_loop_is_seen_by_delivered_to(start: bytes, was: bool) -> None:
    assert was_delivered_before(b"b@y", start) is was
