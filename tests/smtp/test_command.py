"""Command lines: the C parser against a slow one."""

import base64
import binascii
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from smtp import oracle

from angarium.smtp import machines

LINE_PIECES = st.lists(st.sampled_from([b"NOOP", b"\r", b"\n", b"\r\n", b"\x00", b"x" * 7, b" "]),
                       max_size=9).map(b"".join)
ASCII = st.binary(max_size=30).map(lambda data: bytes(octet & 0x7F for octet in data))
WORDS = st.sampled_from([b"SIZE=1", b"size=2", b"BODY=8BITMIME", b"SMTPUTF8", b"smtputf8=x", b"X-a", b"x-A=1",
                         b"X-b", b"-x", b"=", b"A=", b"A=b=c", b"RET=HDRS", b"", b"AUTH=<>", b"ENVID=+3D",
                         b"N.Y"])
NOTIFY_WORDS = [b"NEVER", b"success", b"Failure", b"DELAY"]
NAMES = st.text("abcdefABCDEF", min_size=1, max_size=2).map(str.encode)


@settings(max_examples=500)
@given(LINE_PIECES, st.integers(0, 30))
def test_line_end_is_found_as_octet_by_octet(data, limit):
    result, length = machines.find_line(data, limit)
    expected, expected_length = oracle.line(data, limit)
    assert result == expected
    if expected_length is not None:
        assert length == expected_length


@settings(max_examples=500)
@given(LINE_PIECES, st.integers(0, 30))
def test_line_verdict_is_the_same_for_every_cut(data, limit):
    """A prefix is partial, or has the whole's verdict: nothing once said is taken back."""
    whole = machines.find_line(data, limit)
    for cut in range(len(data)):
        result, length = machines.find_line(data[:cut], limit)
        assert result == "partial" or (result, length) == whole


@settings(max_examples=500)
@given(st.lists(st.one_of(WORDS, NAMES), max_size=19), st.sampled_from([b" ", b"  "]),
       st.sampled_from([b"MAIL FROM:", b"rcpt To:  "]))
def test_parameters_are_split_as_by_regular_expression(words, space, prefix):
    line = prefix + b"<a@b>" + b"".join(space + word for word in words)
    got = machines.parse_command(line)
    expected = oracle.mail_parameters(space.join(words))
    if isinstance(expected, str):
        assert got["result"] == expected
        return
    assert got["result"] == "ok"
    assert [(keyword, value) for keyword, value, _ in got["parameters"]] == expected
    for keyword, _, known in got["parameters"]:
        assert known == (keyword.upper().decode() if keyword.upper().decode() in machines.KEYWORDS else "")


MAILBOXES = st.sampled_from([b"", b"a@b", b"@r:a@b", "é@b".encode(), "@ü:a@b".encode(), b"\xc3@b",
                             b"a@b_c", b'"a b"@[1.2.3.4]'])
VALUES = st.sampled_from([b"", b" SIZE=1", " ENVID=é".encode(), b" ENVID=\xc3", b" SMTPUTF8", b"x"])


@settings(max_examples=500)
@given(MAILBOXES, VALUES, VALUES, st.booleans())
def test_path_of_mail_and_rcpt_is_found_in_the_line(mailbox, first, second, utf8):
    """Spans are offsets in the line; octets above 127 need RFC 6531 offered, and for MAIL its parameter."""
    path = b"<" + mailbox + b">"
    words = (first + second).split(b" ")
    for prefix, is_smtputf8 in ((b"MAIL FROM: ", b"SMTPUTF8" in words), (b"RCPT TO:", True)):
        line = prefix + path + first + second
        got = machines.parse_command(line, utf8=utf8)
        expected = oracle.path(path, utf8)
        is_allowed = line.isascii() or (utf8 and is_smtputf8 and oracle.well_formed(line))
        is_null = mailbox == b"" and prefix.startswith(b"MAIL")
        parameters = oracle.mail_parameters(re.sub(rb"[\x80-\xff]", b"8", first + second))
        starts_well = first != b"x" and (first != b"" or second != b"x")
        is_ok = ((expected is not None or is_null) and is_allowed and starts_well
                 and not isinstance(parameters, str))
        assert (got["result"] == "ok") == is_ok, line
        if is_ok and expected is not None:
            found = got["path"]
            end, *texts = expected
            assert found["end"] == len(prefix) + end
            assert [found["mailbox"], found["local_part"], found["domain"]] == texts


@settings(max_examples=500)
@given(st.one_of(ASCII, st.binary(max_size=30)),
       st.sampled_from(["", *machines.VERBS[1:-1], "GET", "POST", "EXIT"]), st.booleans())
@example(b" ", "EHLO", False)
@example(b"", "DATA", False)
@example(b" \x7f", "NOOP", False)
@example(b" \x1f", "NOOP", False)
def test_any_line_gives_a_verdict_and_accepted_ones_hold_no_control_octet(tail, verb, utf8):
    line = verb.encode() + tail
    got = machines.parse_command(line, utf8=utf8)
    assert got["result"] in machines.COMMAND_RESULTS
    assert got["error_offset"] <= len(line)
    word = line.split(b" ")[0].upper()
    http = (b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE")
    known = word.decode("latin-1") in machines.VERBS[1:-1] or word in http
    assert (got["result"] != "unknown") == known == (got["verb"] != "")
    assert got["verb"] == ("HTTP" if word in http else word.decode("latin-1") if known else "")
    if got["result"] == "ok" and got["verb"] != "HTTP":
        assert not any(octet < 32 or octet == 127 for octet in line.rstrip(b" "))
        assert line.isascii() or (utf8 and got["verb"] in ("MAIL", "RCPT", "VRFY", "EXPN"))
    if known:
        assert got["argument"] == line[len(word) + 1:].rstrip(b" ")


@example(str(2**64 - 1).encode())
@example(str(2**64).encode())
@example(str(2**64 + 3).encode())
@given(st.one_of(st.integers(0, 2**66).map(lambda n: str(n).encode()), ASCII,
                 st.text("0123456789", max_size=22).map(str.encode)))
def test_decimal_is_what_int_reads(data):
    fits = 1 <= len(data) <= 20 and all(48 <= octet <= 57 for octet in data) and int(data) < 2**64
    assert machines.parse_decimal(data) == (int(data) if fits else None)
    got = machines.parse_command(b"BDAT " + data + b" last")
    assert (got["result"] == "ok") == fits
    if fits:
        assert (got["chunk_octets"], got["is_last"]) == (int(data), True)


@given(st.one_of(ASCII, st.lists(st.sampled_from([b"+", b"2B", b"2b", b"a", b"=", b"F", b"0"]), max_size=8)
                 .map(b"".join)))
def test_xtext_is_the_grammar(data):
    assert machines.xtext_is_valid(data) == oracle.xtext(data)


@given(st.one_of(ASCII, st.lists(st.sampled_from([*NOTIFY_WORDS, b",", b" "]), max_size=6).map(b"".join),
                 st.lists(st.sampled_from(NOTIFY_WORDS), max_size=4).map(b",".join)))
def test_notify_is_a_list_or_never_alone(data):
    assert machines.parse_notify(data) == oracle.notify(data)


@given(st.one_of(st.binary(max_size=9).map(base64.b64encode), ASCII, st.text("AQgwZ+/=", max_size=9).map(str.encode)))
def test_base64_is_valid_when_it_is_what_its_octets_encode_to(data):
    try:
        expected = base64.b64encode(binascii.a2b_base64(data, strict_mode=True)) == data
    except binascii.Error:
        expected = False
    assert machines.base64_is_valid(data) == expected
    if data and data == data.rstrip(b" "):
        got = machines.parse_command(b"AUTH PLAIN " + data)
        if expected or data == b"=":
            assert (got["result"], got["parameters"]) == ("ok", [(b"PLAIN", data, "")])
        else:
            assert got["result"] in ("bad_base64", "control", "has_8bit")
