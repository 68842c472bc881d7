"""The header section as hooks see it, and changes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angarium.policy.header import AddField, Header, RemoveField, ReplaceField, changed, header_end

OURS = b"Received: from us\r\n\tby us\r\n"
HEADER = b"From: a@x.example\r\nX-A: 1\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\n and more\r\nx-a : 2\r\nX-A:\r\n"


def test_fields_are_parsed_with_their_raw_values() -> None:
    header = Header(HEADER)
    assert [field.name for field in header] == ["From", "X-A", "Subject", "x-a", "X-A"]
    assert [field.raw for field in header.get_all("X-a")] == [b" 1", b" 2", b""]
    assert header.get("SUBJECT") == "=?utf-8?q?gr=C3=BCn?= and more"
    assert header.get_all("subject")[0].text == "grün and more"
    assert header.get("To") is None and "to" not in header and "from" in header


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ([AddField("X-B", "3")], b"X-B: 3\r\n" + OURS + HEADER),
        ([AddField("X-B", "3"), AddField("X-C", "4")], b"X-C: 4\r\nX-B: 3\r\n" + OURS + HEADER),
        ([AddField("X-B", "3", at="end")], OURS + HEADER + b"X-B: 3\r\n"),
        ([RemoveField("from")], OURS + HEADER.removeprefix(b"From: a@x.example\r\n")),
        ([RemoveField("received")], OURS + HEADER),
        ([ReplaceField("x-A", "9")],
         OURS + b"From: a@x.example\r\nx-A: 9\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\n and more\r\n"),
        ([RemoveField("X-A", -1)], OURS + HEADER.removesuffix(b"X-A:\r\n")),
        ([ReplaceField("X-A", "9", 1)], OURS + HEADER.replace(b"x-a : 2", b"X-A: 9")),
        ([ReplaceField("X-A", "9", 7), RemoveField("X-A", 7)], OURS + HEADER),
        ([ReplaceField("To", "b@y.example")], OURS + HEADER + b"To: b@y.example\r\n"),
        ([RemoveField("X-A"), AddField("X-A", "5", at="end"), ReplaceField("X-A", "6")],
         OURS + b"From: a@x.example\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\n and more\r\nX-A: 6\r\n"),
    ],
)  # fmt: skip
def test_changes_are_made_in_order(changes: list[AddField], after: bytes) -> None:
    assert changed(OURS, HEADER, changes, False) == after


FIELDS = [b"A: 1\r\n", b"B:\r\n\tx\r\n", b"a: \xff\r\n", b"C : " + b"y" * 900 + b"\r\n"]


@given(st.lists(st.sampled_from(FIELDS), max_size=8))
def test_what_was_added_and_removed_again_changes_no_octet(fields: list[bytes]) -> None:
    section = b"".join(fields)
    changes = [AddField("Z", "1", at="end"), RemoveField("z"), RemoveField("Y")]
    assert changed(OURS, section, changes, False) == OURS + section


@pytest.mark.parametrize(
    ("octets", "end", "is_seen"),
    [
        (HEADER + b"\r\nbody: x\r\n", len(HEADER), True),
        (b"\r\nA: 1\r\n", 0, True),
        (b"A: 1\r\nnot a field\r\nB: 2\r\n", 6, True),
        (b"no header at all\r\nA: 1\r\n", 0, True),
        (b"From me Mon Jan  1\r\nA: 1\r\n\r\n", 26, True),
        (b"A: 1\r\nB", 6, False),
        (b"A: 1\r\n", 6, False),
        (b"", 0, False),
    ],
)
def test_where_the_section_ends(octets: bytes, end: int, is_seen: bool) -> None:
    assert header_end(octets) == (end, is_seen)


@pytest.mark.parametrize("value", ["a\r\nX-B: 1", "a\nb", "a\0", "\x7f", "\x85", "x" * 2000, "y" * 20_000 + " z"])
def test_values_that_cannot_be_written_are_refused_where_they_are_made(value: str) -> None:
    with pytest.raises(ValueError, match="X-A: "):
        AddField("X-A", value)


@pytest.mark.parametrize("name", ["", "X A", "X:A", "X-Ä", ".x", "X\r\n", "-"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="field name"):
        RemoveField(name)


def test_long_values_are_folded_at_spaces_and_unfold_to_themselves() -> None:
    value = "seen by  policy\tand " * 40 + "w" * 500
    octets = changed(b"", b"", [AddField("X-Long", value)], False)
    lines = octets.removesuffix(b"\r\n").split(b"\r\n")
    assert max(map(len, lines)) < 600 and sorted(map(len, lines))[-2] <= 78
    assert all(line.startswith((b" ", b"\t")) and line.strip() for line in lines[1:])
    assert Header(octets).get("x-long") == value


def test_values_beyond_ascii_are_encoded_unless_the_message_is_smtputf8() -> None:
    field = AddField("X-Reason", "grün")
    assert changed(b"", b"", [field], False) == b"X-Reason: =?utf-8?b?Z3LDvG4=?=\r\n"
    assert changed(b"", b"", [field], True) == "X-Reason: grün\r\n".encode()
