"""SMTP smuggling (CVE-2023-51764, -51765, -51766 and their kin): one message is one message, coming in and going
out.

An attacker sends a message whose text holds something that one server reads as the end of a message and another
does not; what stands behind it are commands to the one and text to the other. So nothing but CRLF.CRLF may end
a message here, and nothing that we send on may look like an end to the most lenient of readers.
"""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp.server_dialogue import Dialogue
from smtp.test_transcripts import split_replies

from angarium.smtp.client_session import ClientSession
from angarium.smtp.server_settings import ServerSettings

SETTINGS = ServerSettings("mx.test.example")
SMUGGLED = (
    b"MAIL FROM:<admin@mx.test.example>\r\nRCPT TO:<victim@y.example>\r\nDATA\r\nSubject: forged\r\n\r\nx\r\n.\r\n"
)

# Everything that some server has ever taken for the end of data, and whatever else can be put together in that manner.
PARTS = [
    b"",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\r\n",
    b"\n\r",
    b"\r\n\r",
    b"\x00\r\n",
    b"\r\x00\n",
    b" \r\n",
    b"\x0b",
    b"\x85",
    b"\xe2\x80\xa8",
]
LOOK_ALIKES = sorted(
    ending
    for before in PARTS
    for dot in (b".", b".\x00", b". ")
    for behind in PARTS
    if b"\r\n.\r\n" not in (ending := before + dot + behind)
)


def played(octets: bytes, hello: bytes = b"EHLO c.example\r\n") -> Dialogue:
    dialogue = Dialogue(SETTINGS)
    dialogue.greet()
    dialogue.feed(hello)
    for line in (b"MAIL FROM:<a@x.example>\r\n", b"RCPT TO:<b@y.example>\r\n", b"DATA\r\n"):
        dialogue.feed(line)
    dialogue.feed(octets)
    return dialogue


@pytest.mark.parametrize("hello", [b"EHLO c.example\r\n", b"HELO c.example\r\n"])
def test_no_look_alike_ends_a_message_that_comes_in(hello: bytes) -> None:
    for ending in LOOK_ALIKES:
        text = b"Subject: harmless\r\n\r\nbody" + ending + SMUGGLED
        dialogue = played(text, hello)
        froms = [event for event in dialogue.events if type(event).__name__ == "Mail"]
        assert len(froms) == 1, ending
        assert len(dialogue.messages) <= 1, ending
        if dialogue.messages:
            (message,) = dialogue.messages
            # Taken as it came, the smuggled lines as text in it; so it has no line ending but CRLF.
            assert b"MAIL FROM:<admin@mx.test.example>\r\n" in message, ending
            assert not re.search(rb"\r(?!\n)|(?<!\r)\n", message), ending
        else:
            assert split_replies(dialogue.output)[-1].startswith("554 5.6.0 "), ending


def test_no_cut_makes_an_end_of_a_look_alike() -> None:
    """CR at the end of one read and LF at the beginning of the next are one line ending, and nothing else is."""
    for ending in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n.\r\r\n"):
        text = b"Subject: harmless\r\n\r\nbody" + ending + SMUGGLED
        whole = played(text)
        for cut in range(len(text) - len(SMUGGLED) - len(ending) - 1, len(text) - len(SMUGGLED) + 3):
            dialogue = played(text[:cut])
            dialogue.feed(text[cut:])
            assert (dialogue.messages, dialogue.output) == (whole.messages, whole.output), (ending, cut)


def test_bare_line_endings_in_chunks_are_refused_too() -> None:
    """Inside BDAT nothing ends a message; the next hop may be reached by DATA, where it might."""
    for ending in LOOK_ALIKES:
        text = b"Subject: harmless\r\n\r\nbody" + ending + SMUGGLED
        dialogue = Dialogue(SETTINGS)
        dialogue.greet()
        dialogue.feed(b"EHLO c.example\r\n")
        for line in (b"MAIL FROM:<a@x.example>\r\n", b"RCPT TO:<b@y.example>\r\n"):
            dialogue.feed(line)
        dialogue.feed(b"BDAT %d LAST\r\n" % len(text) + text + b"NOOP\r\n")
        assert split_replies(dialogue.output)[-1].startswith("250 2.0.0 Ok")
        assert len(dialogue.messages) <= 1
        for message in dialogue.messages:
            assert message == text
            assert not re.search(rb"\r(?!\n)|(?<!\r)\n", message), ending


# What comes out. The reader is the most lenient one: it ends a message at any dot alone between any line endings.

LENIENT_END = re.compile(rb"(?:\r\n|\r|\n)\.(?:\r\n|\r|\n)")
ACCEPTED = st.lists(
    st.sampled_from(
        [
            b".",
            b"..",
            b"\r\n",
            b"\r\n.",
            b"\r\n.\r\n",
            b"\r\n..\r\n",
            b"x",
            b" ",
            b"\x00",
            b"\x85",
            b"QUIT",
            b"\xe2\x80\xa8",
        ]
    ),
    max_size=30,
).map(b"".join)


def sent(message: bytes, by: str, peer: bytes) -> tuple[bytes, bytes]:
    """What the client session says in the command phase and as the message itself."""
    client = ClientSession(b"relay.example.org")
    client.receive(b"220 peer.example ESMTP\r\n")
    client.take_output()
    client.receive(peer)
    slot = client.start(b"a@x.example", [b"b@y.example"], message_octets=len(message), by=by, is_8bit=True)
    commands = client.take_output()
    if by != "data" and b"CHUNKING" in peer:
        if by == "bdat":
            client.send_body(slot, message)
            return commands, client.take_output()
        client.receive(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n")
        client.send_body(slot, message)
        return commands, client.take_output()
    client.receive(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go\r\n")
    client.send_body(slot, message)
    return commands, client.take_output()


ALL = b"250-peer.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME\r\n"
NO_CHUNKING = b"250-peer.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"


@settings(max_examples=500, deadline=None)
@given(ACCEPTED)
def test_a_message_that_goes_out_by_data_has_one_end_for_the_most_lenient_reader(message: bytes) -> None:
    _, wire = sent(message, "data", NO_CHUNKING)
    assert wire.endswith(b"\r\n.\r\n") or wire == b".\r\n"
    inside = (b"\r\n" + wire)[: -len(b"\r\n.\r\n")]
    assert LENIENT_END.search(inside + b"\r\n") is None
    # Undone by the book, it is the message, with the CRLF that DATA cannot do without.
    undone = re.sub(rb"(?m)(^|\r\n)\.\.", rb"\1.", wire[: -len(b".\r\n")])
    assert undone in (message, message + b"\r\n")


@settings(max_examples=300, deadline=None)
@given(ACCEPTED, st.sampled_from(["bdat", "bdat-later"]))
def test_a_message_that_goes_out_by_bdat_has_the_length_that_was_said(message: bytes, by: str) -> None:
    commands, wire = sent(message, by, ALL)
    octets = commands + wire
    found = re.search(rb"BDAT (\d+) LAST\r\n", octets)
    assert found is not None
    assert int(found[1]) == len(octets) - found.end()
    assert octets[found.end() :] == message


@pytest.mark.parametrize("tail", [b"", b"x", b"\r\n", b"\r\n.", b".", b"\r\n.\r\n", b"\r\n.\r\n."])
@pytest.mark.parametrize("by", ["data", "bdat", "bdat-later"])
def test_what_comes_by_bdat_without_a_last_crlf_goes_out_whole_and_alone(tail: bytes, by: str) -> None:
    """The end of a chunk needs no CRLF; sent on by DATA, the last dot must stand on a line of its own all the same."""
    message = b"Subject: x\r\n\r\nbody" + tail
    peer = NO_CHUNKING if by == "data" else ALL
    commands, wire = sent(message, by, peer)
    server = Dialogue(SETTINGS)
    server.greet()
    server.feed(b"EHLO relay.example.org\r\n")
    if by == "data":
        server.feed(commands)
        server.feed(wire)
    else:
        server.feed(commands + wire)
    is_completed = by == "data" and not message.endswith(b"\r\n")
    assert server.messages == [message + b"\r\n" if is_completed else message]
    assert not server.session.has_transaction()


def test_every_pair_of_chunk_ends_makes_one_message() -> None:
    """CR at the end of a chunk and LF at the beginning of the next are one line ending, to us and the next hop."""
    for cut in itertools.product((b"a\r", b"a\r\n", b"a\r\n."), (b"\nb\r\n", b"b\r\n", b".\r\n", b"\r\n")):
        first, second = cut
        dialogue = Dialogue(SETTINGS)
        dialogue.greet()
        dialogue.feed(b"EHLO c.example\r\n")
        group = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nBDAT %d\r\n" % len(first) + first
        dialogue.feed(group + b"BDAT %d LAST\r\n" % len(second) + second)
        joined = first + second
        is_clean = re.search(rb"\r(?!\n)|(?<!\r)\n", joined) is None
        assert dialogue.messages == ([joined] if is_clean else []), cut
        assert not dialogue.session.has_transaction()
