"""Properties of the server session.

The invariant: any octets give events and well-formed replies, never an exception, never unbounded memory,
and the same ones however they are cut.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp.server_dialogue import Dialogue
from smtp.test_transcripts import split_replies

from angarium.model.errors import LocalProtocolError
from angarium.smtp import server_events
from angarium.smtp.server_session import ServerSession
from angarium.smtp.server_settings import ServerSettings

SETTINGS = ServerSettings(
    "mx.test.example", max_message_octets=5000, max_errors=6, run_octets=4096, max_recipients=3
)
# Partial line, body with room to grow, replies of one feed.
MOST_MEMORY_OCTETS = 64 << 10

LINES = [
    b"EHLO c.example", b"HELO c.example", b"MAIL FROM:<a@x.example>", b"MAIL FROM:<> SIZE=100 BODY=8BITMIME",
    b"MAIL FROM:<a@x.example> RET=HALF", b"RCPT TO:<b@y.example>", b"RCPT TO:<\xc3\xa9@y.example>", b"DATA",
    b"RSET", b"NOOP", b"QUIT", b"VRFY a", b"BDAT 0 LAST", b"BDAT 6", b"BDAT 6 LAST", b"BDAT 4000", b"BDAT x",
    b".", b"..", b"", b"Subject: x", b"GET / HTTP/1.1", b"x" * 600, b"y" * 3000,
]  # fmt: skip
LINE = st.sampled_from(LINES)
ENDING = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"", b"\x00\r\n"])
PIECE = st.one_of(st.tuples(LINE, ENDING).map(b"".join), st.binary(max_size=40))
OCTETS = st.lists(PIECE, max_size=25).map(b"".join)


def played(octets: bytes, cuts: list[int]) -> Dialogue:
    dialogue = Dialogue(SETTINGS)
    dialogue.greet()
    dialogue.feed_in_pieces(octets, [cut % (len(octets) + 1) for cut in cuts])
    return dialogue


def is_broken_off(dialogue: Dialogue) -> bool:
    """Whether octets came behind a command that ends a group: what is seen of that depends on the cuts."""
    return b"Improper pipelining" in dialogue.output


@settings(max_examples=400, deadline=None)
@given(OCTETS, st.lists(st.integers(0, 1 << 16), max_size=12))
def test_any_octets_give_events_and_well_formed_replies(octets: bytes, cuts: list[int]) -> None:
    dialogue = played(octets, cuts)
    for reply in split_replies(dialogue.output):
        assert reply[:3].isdigit()
        assert reply[3] == " "
        if reply[0] in "245" and not reply.startswith(("220 ", "250 mx", "250 HELP")):
            assert reply[4] == reply[0], "the enhanced status code has the class of the reply"
    assert dialogue.most_memory_octets <= MOST_MEMORY_OCTETS
    if dialogue.session.is_closed:
        before = list(dialogue.events)
        dialogue.feed(b"NOOP\r\n")
        assert dialogue.events == before


@settings(max_examples=400, deadline=None)
@given(OCTETS, st.lists(st.integers(0, 1 << 16), max_size=12))
def test_events_and_replies_do_not_depend_on_the_cuts(octets: bytes, cuts: list[int]) -> None:
    whole, cut = played(octets, []), played(octets, cuts)
    if not is_broken_off(whole):
        assert cut.events == whole.events
        assert cut.output == whole.output
        assert cut.messages == whole.messages
        return
    # The cut play may have got further: up to where the whole one broke off they are the same.
    assert cut.events[: len(whole.events) - 2] == whole.events[:-2]
    assert cut.messages[: len(whole.messages)] == whole.messages


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=6000), st.lists(st.integers(0, 6000), max_size=8))
def test_a_chunk_holds_what_was_sent_or_is_refused(message: bytes, cuts: list[int]) -> None:
    group = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nBDAT %d LAST\r\n" % len(message)
    dialogue = Dialogue(SETTINGS)
    dialogue.greet()
    dialogue.feed(b"EHLO c.example\r\n")
    dialogue.feed_in_pieces(group + message + b"NOOP\r\n", [cut % (len(group + message) + 1) for cut in cuts])
    last, noop = split_replies(dialogue.output)[-2:]
    assert noop.startswith("250 2.0.0 Ok")
    assert last[:3] in ("250", "552", "554")
    assert dialogue.messages == ([message] if last.startswith("250") else [])


def test_held_input_stays_while_an_answer_is_due() -> None:
    session = ServerSession(SETTINGS)
    session.greet()
    session.receive(b"EHLO c.example\r\n")
    session.next_event()
    session.receive(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
    assert type(session.next_event()).__name__ == "Mail"
    assert session.next_event() is None
    session.receive(b"RSET\r\n")
    assert session.next_event() is None
    session.accept()
    assert type(session.next_event()).__name__ == "Rcpt"
    session.accept()
    assert type(session.next_event()).__name__ == "Reset"
    assert session.next_event() is None
    assert session.take_output().endswith(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n")
    assert session.memory_octets == 0


def test_answers_nobody_asked_for_are_our_own_fault() -> None:
    session = ServerSession(SETTINGS)
    session.greet()
    with pytest.raises(LocalProtocolError):
        session.begin_data(b"Received: x\r\n")
    with pytest.raises(LocalProtocolError):
        session.finish(b"250 2.0.0 Ok\r\n")


def test_octets_before_the_greeting_are_refused() -> None:
    session = ServerSession(SETTINGS)
    session.receive(b"E")
    assert type(session.next_event()).__name__ == "Refused"
    assert session.take_output().startswith(b"554 5.5.0 ")


def test_trace_field_stands_in_front_of_the_message_and_does_not_count() -> None:
    session = ServerSession(SETTINGS)
    session.greet()
    session.receive(b"EHLO c.example\r\n")
    session.next_event()
    for line in (b"MAIL FROM:<a@x.example>\r\n", b"RCPT TO:<b@y.example>\r\n"):
        session.receive(line)
        session.next_event()
        session.accept()
    session.receive(b"DATA\r\n")
    session.next_event()
    session.begin_data(b"Received: by us\r\n")
    session.receive(b"Subject: x\r\n.\r\n")
    event = session.next_event()
    assert getattr(event, "octets", None) == len(b"Subject: x\r\n")
    assert session.take_body() == b"Received: by us\r\nSubject: x\r\n"


def test_a_flood_past_all_patience_is_broken_off() -> None:
    """RFC 1870 §6.2: nobody has to read for ever."""
    dialogue = Dialogue(SETTINGS)
    dialogue.greet()
    dialogue.feed(b"EHLO c.example\r\n")
    dialogue.feed(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
    block = (b"x" * 78 + b"\r\n") * 400
    for _ in range(SETTINGS.give_up_octets // len(block) + 1):
        dialogue.feed(block)
    assert dialogue.session.is_closed
    assert dialogue.output.endswith(b"552 5.3.4 Message far too big, closing\r\n")
    assert dialogue.most_memory_octets <= MOST_MEMORY_OCTETS


def test_a_client_that_is_always_ahead_does_not_make_what_was_consumed_stay() -> None:
    """Messages pipelined by BDAT, one more received during each commit."""
    session = ServerSession(ServerSettings(hostname="mx.example"))
    session.greet()
    session.receive(b"EHLO c.example\r\n")
    session.next_event()
    message = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nBDAT 30000 LAST\r\n" + (b"x" * 73 + b"\r\n") * 400
    session.receive(message)
    taken = 0
    while taken < 200:
        match session.next_event():
            case server_events.Mail() | server_events.Rcpt():
                session.accept()
            case server_events.Data():
                session.begin_data()
            case server_events.Message():
                session.receive(message)
                session.take_body()
                session.finish(b"250 2.0.0 Ok\r\n")
                session.take_output()
                assert session.memory_octets < 512 << 10
                taken += 1
            case server_events.Body():
                session.take_body()
