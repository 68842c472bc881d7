"""Message data: the C machine against a slow parser, whole and in every cut, DATA and BDAT, both ways."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from smtp import oracle

from angarium.smtp import machines

PIECES = st.lists(st.sampled_from([
    b"\r\n", b"\r\n", b".", b"..", b".\r\n", b"\r\n.\r\n", b"\r", b"\n", b"\n.\n", b"\r.\r", b"\x00", b"\xe9",
    b"a", b"x" * 15, b"x" * 16, b"y" * 31, b"Received: x\r\n", b"rECEIVED", b":", b"Subject: x\r\n",
    b"\r\n\r\n",
]), max_size=14).map(b"".join)
LIMITS = st.sampled_from([0, 2, 5, 17, 40])


def read(pieces, is_chunking=False, line_limit=0):
    """(out, ended, results) after all pieces, or as many as the machine wanted."""
    machine = machines.DataMachine(is_chunking=is_chunking, line_limit=line_limit)
    out, ended = [], False
    for piece in pieces:
        ended, consumed, written = machine.push(piece)
        assert ended or consumed == len(piece)
        out.append(written)
        if ended:
            break
    if is_chunking:
        out.append(machine.end_chunks())
    return b"".join(out), ended, machine.results()


def cuts_of(data, draw):
    edges = [0, *sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6))), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@settings(max_examples=500)
@given(PIECES, LIMITS)
@example(b"a\r\n.\rb\r\n.\r\n", 0)
@example(b"12345\x00\r\n.\r\n", 5)
def test_data_is_read_as_by_the_slow_parser(data, line_limit):
    out, ended, results = read([data], line_limit=line_limit)
    message, rest, expected_ended = oracle.data_mode(data)
    assert (out, ended) == (message, expected_ended)
    assert results.pop("octets_in") == len(data) - len(rest)
    assert results == oracle.judge(message, line_limit, is_end=False)


@settings(max_examples=500)
@given(PIECES, LIMITS)
def test_chunks_are_taken_as_they_are(data, line_limit):
    out, ended, results = read([data], is_chunking=True, line_limit=line_limit)
    assert (out, ended) == (data, False)
    assert results.pop("octets_in") == len(data)
    assert results == oracle.judge(data, line_limit, is_end=True)


@settings(max_examples=500)
@given(PIECES, LIMITS, st.booleans(), st.data())
def test_data_is_the_same_for_every_cut(data, line_limit, is_chunking, draw):
    whole = read([data], is_chunking, line_limit)
    assert read([data[i:i + 1] for i in range(len(data))], is_chunking, line_limit) == whole
    assert read(cuts_of(data, draw), is_chunking, line_limit) == whole


@settings(max_examples=500)
@given(PIECES, st.data())
def test_results_are_true_after_every_push(data, draw):
    """They are readable at any time: what was written so far is judged, no more and no less."""
    machine = machines.DataMachine(line_limit=17)
    out = b""
    for piece in cuts_of(data, draw):
        ended, _, written = machine.push(piece)
        out += written
        results = machine.results()
        results.pop("octets_in")
        assert results == oracle.judge(out, 17, is_end=False)
        if ended:
            break


@settings(max_examples=500)
@given(PIECES, st.data())
def test_stuffing_is_the_slow_one_for_every_cut(message, draw):
    expected = oracle.stuff(message)
    assert machines.stuff([message]) == expected
    assert machines.stuff(cuts_of(message, draw)) == expected
    assert machines.stuff([message[i:i + 1] for i in range(len(message))]) == expected


@given(PIECES)
def test_unstuffing_gives_back_what_was_stuffed(message):
    ending = b"" if not message or message.endswith(b"\r\n") else b"\r\n"
    assert machines.unstuff(machines.stuff([message])) == message + ending


@settings(max_examples=500)
@given(st.integers(0, 40), st.integers(0, 40),
       st.sampled_from([b"\n", b"\r", b"\x00", b"\xff", b".", b"\r\n", b"\r\n.", b"\r\n..", b"\r\n.\r"]))
def test_an_octet_that_matters_is_seen_at_every_offset_of_a_block(before, after, what):
    data = b"x" * before + what + b"y" * after + b"\r\n.\r\n\xff\n"
    out, ended, results = read([data])
    message, _, expected_ended = oracle.data_mode(data)
    assert (out, ended) == (message, expected_ended)
    results.pop("octets_in")
    assert results == oracle.judge(message, 0, is_end=False)


ENDINGS = [end for a in (b"", b"\r", b"\n", b"\r\n", b"\n\r")
           for b in (b"", b"\r", b"\n", b"\r\n", b"\n\r", b"\x00\r\n", b"\r.\r\n")
           if (end := a + b"." + b) != b"\r\n.\r\n"]


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
def test_only_crlf_dot_crlf_ends_data(ending):
    """SMTP smuggling: whatever else a lenient server may take for the end stays inside the message."""
    data = b"Subject: x\r\n\r\nbody" + ending + b"MAIL FROM:<smuggled@example.com>\r\n.\r\n"
    out, ended, results = read([data])
    assert ended and results["octets_in"] == len(data)
    assert b"MAIL FROM:<smuggled@example.com>\r\n" in out
    assert (results["fault"] != "") == (ending.replace(b"\r\n", b"").strip(b".") != b"")
