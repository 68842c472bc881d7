"""Reverse-paths that say whom a message was for: read back, in any case, and made by nobody else."""

from __future__ import annotations

import random

import pytest

from angarium.bounces.verp import Trace, Verp
from angarium.smtp.machines import parse_mailbox
from angarium.spool.envelope import encode_id

ID = 0x0123456789ABCDEF
HERE = Verp("bounces@B.example.net", (), b"k" * 32)
KEY = bytes(range(0xF0, 0x100))
TENANTS = Verp("bounces@B.example.net", (), b"k" * 32, lambda tenant, forward_path: KEY)
FROM = b"news@example.net"


@pytest.mark.parametrize(
    ("recipient", "tenant", "said"),
    [
        (b"u2@y.example", b"acme", ("acme", "u2@y.example")),
        (b"u2@y.example", b"", (None, "u2@y.example")),
        (b"u2@y.example", b"Acme.EU", ("Acme.EU", "u2@y.example")),
        (b"U2+tag=x@Y.example", b"a.b-c", ("a.b-c", "u2+tag=x@y.example")),
        # what does not fit, or needs quotes or SMTPUTF8, is left out; the rest is there
        (b"somebody.with.a.long.name@y.example", b"acme", ("acme", "")),
        (b"nobody.with.name@y.example", b"a-name", (None, "nobody.with.name@y.example")),
        (b'"a b"@y.example', b"acme", ("acme", "")),
        ("ü@y.example".encode(), b"t", ("t", "")),
        (b"u@[192.0.2.1]", b"t", ("t", "")),
        (b"u2@y.example", "mieter ü".encode(), (None, "u2@y.example")),
        (b"u2@y.example", b"t" * 60, (None, "u2@y.example")),
        (b"somebody.with.a.long.name@y.example", b"t" * 60, (None, "")),
    ],
)
@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes])
def test_a_trace_is_read_back(recipient: bytes, tenant: bytes, said: tuple[str | None, str], change: object) -> None:
    path = HERE.path_for(ID, FROM, recipient, tenant)
    assert path is not None
    assert len(path.rpartition(b"@")[0]) <= 64  # RFC 5321 §4.5.3.1.1
    assert parse_mailbox(path)["result"] == "ok"
    assert HERE.read(change(path)) == Trace(encode_id(ID), *said)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("recipient", "tenant", "said"),
    [
        (b"u2@y.example", b"acme", ("acme", "u2@y.example", b"")),
        (b"nobody.with.name@y.example", b"", ("", "nobody.with.name@y.example", b"")),
        (b"somebody.with.a.long.name@y.example", b"", ("", "", b"")),
        # what a tenant is left out of has the key of both
        (b"nobody.with.name@y.example", b"a-name", (None, "", KEY)),
        (b"u2@y.example", "mieter ü".encode(), (None, "", KEY)),
        (b'"a b"@y.example', b"t" * 60, (None, "", KEY)),
        (b"somebody.with.a.long.name@y.example", b"acme", ("acme", "", b"")),
    ],
)
@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes])
def test_where_tenants_have_lists_of_their_own_none_is_taken_for_nobody(
    recipient: bytes, tenant: bytes, said: tuple[str | None, str, bytes], change: object
) -> None:
    """A tenant that the address had no room for was read as none: its complaints were everybody's."""
    path = TENANTS.path_for(ID, FROM, recipient, tenant)
    assert path is not None
    assert len(path.rpartition(b"@")[0]) <= 64
    assert parse_mailbox(path)["result"] == "ok"
    assert TENANTS.read(change(path)) == Trace(encode_id(ID), *said)  # type: ignore[operator]
    assert HERE.read(path) == TENANTS.read(path)  # after the lists are everybody's again


def test_a_base_without_room_for_the_key_leaves_the_tenant_unknown() -> None:
    for base, is_room in (("b" * 10, True), ("b" * 11, False)):
        verp = Verp(f"{base}@b.example.net", (), b"k" * 32, lambda *_: KEY)
        path = verp.path_for(ID, FROM, b"u2@y.example", b"t" * 60)
        assert path is not None
        assert len(path.rpartition(b"@")[0]) <= 64
        said = (None, "", KEY) if is_room else (None, "u2@y.example", b"")
        assert verp.read(path) == Trace(encode_id(ID), *said)


@pytest.mark.parametrize(
    ("path", "tenant"),
    [
        (b"bounces+028T5CY4TQKFF6T21G0M4DTGP+acme+u2=y.example@b.example.net", "acme"),
        (b"bounces+028T5CY4TQKFF6T21G0M4DTGP+Acme+u2=y.example@b.example.net", "acme"),
        (b"bounces+028T5CY4TQKFFBD0K4S58M7KV++u2=y.example@b.example.net", None),
    ],
)
def test_traces_of_before_capitals_and_keys_are_read(path: bytes, tenant: str | None) -> None:
    for verp in (HERE, TENANTS):
        assert verp.read(path) == Trace(encode_id(ID), tenant, "u2@y.example")


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


@pytest.mark.parametrize("other", ["é", "\u212a", "\ufffd", "ſ", "\U0001f4e8"])
def test_a_look_alike_beyond_ascii_is_no_trace(other: str) -> None:
    """Its MAC was asked for, and it has none: RCPT got 451 where it should get 550."""
    base = "bounces+" + "0" * 25
    for rest in (f"+x{other}", other, f"+t+{other}=y.example"):
        address = f"{base}{rest}@b.example.net"
        for octets in (address.encode(), address.encode("utf-16"), address.encode() + other.encode()):
            assert HERE.read(octets) is None
            assert TENANTS.read(octets) is None
    assert HERE.is_one(f"{base}+x{other}@b.example.net".encode())  # refused, and not taken for somebody's mail


def test_no_octets_make_reading_a_trace_fail() -> None:
    chance = random.Random(5321)
    paths = [verp.path_for(ID, FROM, b"u2@y.example", b"t" * 60) for verp in (HERE, TENANTS)]
    for path in paths:
        assert path is not None
        for _ in range(2000):
            broken = bytearray(path)
            for _ in range(chance.randrange(1, 4)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            if broken.lower() != path.lower():
                assert TENANTS.read(bytes(broken)) is None


def test_only_mail_of_the_senders_named_gets_one_and_reports_never() -> None:
    some = Verp("bounces@b.example.net", ["example.net"], b"k" * 32)
    assert some.path_for(1, b"a@EXAMPLE.net", b"u@y.example", b"") is not None
    assert some.path_for(1, b"a@other.example", b"u@y.example", b"") is None
    assert HERE.path_for(1, b"", b"u@y.example", b"") is None
