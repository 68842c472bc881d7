"""Header sections and their fields, as they come."""

import pytest

from angarium.mime.header import field_value, header_section

SECTIONS = [
    (b"A: 1\r\nB: 2\r\n\r\nbody\r\n", b"A: 1\r\nB: 2\r\n", "up to the empty line"),
    (b"A: 1\r\n\r\n", b"A: 1\r\n", "no body"),
    (b"\r\nbody\r\n", b"", "no header"),
    (b"A: 1\r\n", b"A: 1\r\n", "no empty line: all of it"),
    (b"", b"", "nothing"),
    (b"A: 1\r\n\r\nB: 2\r\n\r\n", b"A: 1\r\n", "the first empty line counts"),
]
FIELDS = [
    (b"Message-ID: <a@b>\r\n", b"<a@b>", "plain"),
    (b"MESSAGE-ID:<a@b>\r\n", b"<a@b>", "case and space do not count"),
    (b"Message-ID : <a@b>\r\n", b"<a@b>", "white space in front of the colon, RFC 5322 §4.5"),
    (b"Message-ID:\r\n <a@b>\r\nX: 1\r\n", b"<a@b>", "folded"),
    (b"Message-ID: <a\r\n\t@b>\r\n", b"<a\t@b>", "folded in the middle"),
    (b"X: 1\r\nMessage-ID: <1>\r\nMessage-ID: <2>\r\n", b"<1>", "the first one"),
    (b"X-Message-ID: <a@b>\r\n", None, "another field"),
    (b"Message-ID-Old: <a@b>\r\n", None, "a longer name"),
    (b"X: 1\r\n Message-ID: <a@b>\r\n", None, "part of a folded field"),
    (b"", None, "no header"),
]


@pytest.mark.parametrize(("content", "section", "reason"), SECTIONS, ids=[row[2] for row in SECTIONS])
def test_header_section_ends_at_the_empty_line(content: bytes, section: bytes, reason: str) -> None:
    assert header_section(content) == section


@pytest.mark.parametrize(("header", "value", "reason"), FIELDS, ids=[row[2] for row in FIELDS])
def test_field_is_found_and_unfolded(header: bytes, value: bytes | None, reason: str) -> None:
    assert field_value(header, b"message-id") == value
