"""The trace field (RFC 5321 §4.4)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest

from angarium.mime.received import received_field


def field(**changes: object) -> str:
    facts: dict[str, object] = {
        "helo": b"client.example", "address": b"192.0.2.1", "hostname": b"mx.test.example",
        "protocol": b"ESMTP", "message_id": b"00TR4P5C00001", "forward_path": b"b@y.example",
        "utc_ms": 1764000000123,
    }  # fmt: skip
    return received_field(**{**facts, **changes}).decode()  # type: ignore[arg-type]


def test_field_in_full() -> None:
    assert field() == (
        "Received: from client.example ([192.0.2.1])\r\n"
        "\tby mx.test.example with ESMTP id 00TR4P5C00001\r\n"
        "\tfor <b@y.example>;\r\n"
        "\tMon, 24 Nov 2025 16:00:00 +0000\r\n"
    )


def test_ipv6_client() -> None:
    assert "([IPv6:2001:db8::1])\r\n" in field(address=b"IPv6:2001:db8::1")


def test_unix_socket_client_has_no_address() -> None:
    assert field(address=b"").startswith("Received: from client.example\r\n\tby ")


def test_several_recipients_are_not_named() -> None:
    assert "for" not in field(forward_path=b"")


@pytest.mark.parametrize("utc_s", [0, 951782399, 951782400, 1709164800, 1735689599, 1735689600, 4102444800])
def test_date_is_right_in_every_order(utc_s: int) -> None:
    """The text is kept for a second: going back and forth must not show an old one."""
    for second in (utc_s, utc_s + 1, utc_s):
        date = field(utc_ms=second * 1000 + 999).rpartition("\t")[2].strip()
        assert parsedate_to_datetime(date).timestamp() == second


def test_lines_stay_short_with_the_longest_values() -> None:
    path = b"l" * 64 + b"@" + b"d" * 255
    longest = field(helo=b"h" * 255, address=b"IPv6:" + b"f" * 40, hostname=b"m" * 255, forward_path=path)
    assert max(len(line) for line in longest.split("\r\n")) < 998


def test_priority_stands_behind_all_other_clauses() -> None:
    """RFC 6710 §7, RFC 5321 §4.4 (Additional-Registered-Clauses)."""
    assert field(priority=b"-9").endswith(
        "\tfor <b@y.example>\r\n\tPRIORITY -9;\r\n\tMon, 24 Nov 2025 16:00:00 +0000\r\n"
    )
    assert "id 00TR4P5C00001\r\n\tPRIORITY 0;\r\n" in field(forward_path=b"", priority=b"0")
    assert "PRIORITY" not in field()


def test_keywords_are_a_comment_behind_the_protocol() -> None:
    """RFC 3865 §2.6."""
    keywords = b"net.example:ADV,org.example:ADV:ADLT"
    assert field(solicit=keywords) == (
        "Received: from client.example ([192.0.2.1])\r\n"
        "\tby mx.test.example with ESMTP\r\n"
        "\t(SOLICIT=net.example:ADV,org.example:ADV:ADLT)\r\n"
        "\tid 00TR4P5C00001\r\n"
        "\tfor <b@y.example>;\r\n"
        "\tMon, 24 Nov 2025 16:00:00 +0000\r\n"
    )


@pytest.mark.parametrize(("octets", "is_said"), [(900, True), (901, False)])
def test_keywords_that_fit_into_no_line_are_left_out(octets: int, is_said: bool) -> None:
    text = field(solicit=b"a" * octets, priority=b"9")
    assert ("SOLICIT" in text) == is_said
    assert max(len(line) for line in text.split("\r\n")) < 998


def test_id_of_another_length_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="13"):
        field(message_id=b"123")
