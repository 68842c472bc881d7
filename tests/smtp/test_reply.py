"""Replies: the C machine against a slow parser, whole and in every cut."""

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from smtp import oracle

from angarium.smtp import machines

PIECES = st.lists(st.sampled_from([
    b"250 ok\r\n", b"250-more\r\n", b"250\r\n", b"550 5.7.1 no\r\n", b"550-5.1.1 no\r\n", b"550 4.7.1 x\r\n",
    b"421 4.3.2\tbye\r\n", b"354 3.0.0 x\r\n", b"250 2.1.1234 x\r\n", b"250 2.0.0\r\n", b"251 x\r\n",
    b"199 x\r\n", b"260 x\r\n", b"2", b"50", b" ", b"-", b"\r", b"\n", b"\r\n", b"\x00", b"\xff",
    b"250-" + b"x" * 700 + b"\r\n", b"y" * 300,
]), max_size=8).map(b"".join)


def read_all(pieces):
    """Every reply of the pieces, then the error that ended it or None, and octets consumed in all."""
    machine = machines.ReplyMachine()
    replies, total = [], 0
    for piece in pieces:
        rest = piece
        while rest:
            result, consumed = machine.push(rest)
            rest = rest[consumed:]
            total += consumed
            if result == "complete":
                replies.append((machine.code, machine.status, machine.line_count, machine.text,
                                machine.text_dropped))
            elif result != "partial":
                return replies, result, total
    return replies, None, total


@settings(max_examples=500)
@given(PIECES)
@example(b"250-a\r\n" * 128 + b"250 a\r\n")
@example(b"250-a\r\n" * 127 + b"250 a\r\n")
@example(b"250 " + b"x" * 994 + b"\r\n")
@example(b"250 " + b"x" * 995 + b"\r\n")
def test_replies_are_those_of_the_slow_parser(data):
    replies, error, _ = read_all([data])
    at = 0
    for code, status, lines, text, dropped in replies:
        end, *expected, expected_text = oracle.reply(data[at:])
        at += end
        assert [code, status, lines] == expected
        assert text == expected_text[:1024]
        assert dropped == len(expected_text) - len(text)
    rest = oracle.reply(data[at:])
    assert rest is None, "the machine missed a reply"
    if error is None:       # then what is left is the beginning of a reply, whatever comes
        assert oracle.REPLY_LINE.sub(b"", data[at:]).count(b"\n") == 0


@settings(max_examples=500)
@given(PIECES, st.data())
def test_replies_are_the_same_for_every_cut(data, draw):
    whole = read_all([data])
    assert read_all([data[i:i + 1] for i in range(len(data))]) == whole
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    edges = [0, *cuts, len(data)]
    assert read_all([data[a:b] for a, b in pairwise(edges)]) == whole


@given(st.binary(max_size=60))
def test_text_never_holds_a_control_octet_from_the_peer(text):
    machine = machines.ReplyMachine()
    result, _ = machine.push(b"250-" + text + b"\r\n250 end\r\n")
    if result == "complete":
        assert not any((octet < 32 and octet != 10) or octet == 127 for octet in machine.text)
        assert machine.text.count(b"\n") == machine.line_count - 1


@given(PIECES, PIECES)
def test_an_error_sticks_until_reset(first, second):
    machine = machines.ReplyMachine()
    result = "partial"
    while first and result in ("partial", "complete"):
        result, consumed = machine.push(first)
        first = first[consumed:]
    if result in ("partial", "complete"):
        return
    assert machine.push(second) == (result, 0)
    machine.reset()
    assert machine.push(b"250 ok\r\n") == ("complete", 8)
