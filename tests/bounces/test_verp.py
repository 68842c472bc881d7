"""Reverse-paths that say whom a message was for: read back, in any case, and made by nobody else."""

from __future__ import annotations

import pytest

from angarium.bounces.verp import Trace, Verp
from angarium.smtp.machines import parse_mailbox
from angarium.spool.envelope import encode_id

ID = 0x0123456789ABCDEF
HERE = Verp("bounces@B.example.net", (), b"k" * 32)
FROM = b"news@example.net"


@pytest.mark.parametrize(
    ("recipient", "tenant", "said"),
    [
        (b"u2@y.example", b"acme", ("acme", "u2@y.example")),
        (b"u2@y.example", b"", ("", "u2@y.example")),
        (b"U2+tag=x@Y.example", b"a.b-c", ("a.b-c", "u2+tag=x@y.example")),
        # what does not fit, or needs quotes or SMTPUTF8, is left out; the rest is there
        (b"somebody.with.a.long.name@y.example", b"acme", ("acme", "")),
        (b"nobody.with.name@y.example", b"a-name", ("", "nobody.with.name@y.example")),
        (b'"a b"@y.example', b"acme", ("acme", "")),
        ("ü@y.example".encode(), b"t", ("t", "")),
        (b"u@[192.0.2.1]", b"t", ("t", "")),
        (b"u2@y.example", "mieter ü".encode(), ("", "u2@y.example")),
        (b"u2@y.example", b"t" * 60, ("", "u2@y.example")),
        (b"somebody.with.a.long.name@y.example", b"t" * 60, ("", "")),
    ],
)
@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes])
def test_a_trace_is_read_back(recipient: bytes, tenant: bytes, said: tuple[str, str], change: object) -> None:
    path = HERE.path_for(ID, FROM, recipient, tenant)
    assert path is not None
    assert len(path.rpartition(b"@")[0]) <= 64  # RFC 5321 §4.5.3.1.1
    assert parse_mailbox(path)["result"] == "ok"
    assert HERE.read(change(path)) == Trace(encode_id(ID), *said)  # type: ignore[operator]


def test_a_trace_that_was_changed_anywhere_is_none_of_ours() -> None:
    path = HERE.path_for(ID, FROM, b"u2@y.example", b"acme")
    assert path is not None
    local, _, domain = path.rpartition(b"@")
    begin = len(b"bounces+")
    for at in range(begin, len(local)):
        other = b"7" if local[at : at + 1] != b"7" else b"8"
        assert HERE.read(local[:at] + other + local[at + 1 :] + b"@" + domain) is None, at
    assert HERE.read(local[:-1] + b"@" + domain) is None
    assert HERE.read(path[: begin + 25] + b"@" + domain) is None  # without what the MAC covers
    assert Verp("bounces@b.example.net", (), b"l" * 32).read(path) is None


def test_what_is_no_trace() -> None:
    for address in (
        b"bounces@b.example.net",
        b"bounces+@b.example.net",
        b"bounces+x@b.example.net",
        b"a@b",
        b"",
        b"\xff",
    ):
        assert HERE.read(address) is None
    assert not HERE.is_one(b"bounces@b.example.net")
    assert HERE.is_one(b"Bounces+whatever@B.Example.net")
    assert not HERE.is_one(b"bounces+whatever@example.net")


def test_only_mail_of_the_senders_named_gets_one_and_reports_never() -> None:
    some = Verp("bounces@b.example.net", ["example.net"], b"k" * 32)
    assert some.path_for(1, b"a@EXAMPLE.net", b"u@y.example", b"") is not None
    assert some.path_for(1, b"a@other.example", b"u@y.example", b"") is None
    assert HERE.path_for(1, b"", b"u@y.example", b"") is None
