"""The client session: transcripts at every cut; any octets from a peer give events or RemoteProtocolError."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp.client_transcript import HOSTNAME, ClientTranscript, octets_of, play, read_all

from angarium.model.errors import LocalProtocolError
from angarium.outbound.trouble import STAGE_TEXT, Stage
from angarium.smtp import limits
from angarium.smtp.client_session import EVENT_NAMES, STAGE_NAMES, BrokenDialogue, ClientSession

TRANSCRIPTS = read_all()
HELLO = b"220 mx\r\n250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE\r\n"


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_transcript_played_whole(transcript: ClientTranscript) -> None:
    play(transcript, lambda octets: [])


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_transcript_played_octet_by_octet(transcript: ClientTranscript) -> None:
    play(transcript, lambda octets: range(1, len(octets)))


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_transcript_played_at_every_single_cut(transcript: ClientTranscript) -> None:
    for cut in range(
        1, max((len(octets_of(text)) for kind, text in transcript.lines if kind == "S"), default=0)
    ):
        play(transcript, lambda octets, cut=cut: [cut] if cut < len(octets) else [])


@pytest.mark.parametrize("cut", range(1, 30))
def test_what_one_session_is_told_in_parts_is_not_told_to_another(cut: int) -> None:
    """Sessions share what reads a reply while it is whole."""
    replies = [b"550-5.7.1 we know\r\n550 5.7.1 you\r\n", b"421 4.3.2 another time, please, not now\r\n"]
    sessions = [ClientSession(HOSTNAME) for _ in replies]
    for session, reply in zip(sessions, replies, strict=True):
        assert session.receive(reply[:cut]) == []
    told = [session.receive(reply[cut:]) for session, reply in zip(sessions, replies, strict=True)]
    assert [(each.code, each.status, each.text) for (each,) in told] == [
        (550, (5, 7, 1), b"5.7.1 we know\n5.7.1 you"),
        (421, (4, 3, 2), b"4.3.2 another time, please, not now"),
    ]


def test_every_transcript_says_why() -> None:
    assert len(TRANSCRIPTS) > 40
    for transcript in TRANSCRIPTS:
        assert transcript.reason, transcript.name


def session_of(octets: bytes, cuts: list[int], transactions: int, by: str) -> list[object]:
    """All that happens when a peer says `octets`, whatever we happen to be doing then."""
    session = ClientSession(HOSTNAME)
    seen: list[object] = []
    edges = [0, *sorted({cut % (len(octets) + 1) for cut in cuts}), len(octets)]
    try:
        for start, end in itertools.pairwise(edges):
            for event in session.receive(octets[start:end]):
                seen.append(event)
                assert event.kind in EVENT_NAMES
                assert event.stage in STAGE_NAMES
                assert len(event.text) <= 1024
                assert not any(octet < 32 and octet != 10 for octet in event.text)
                if event.kind == "send-body":
                    session.send_body(event.slot, b"body\r\n")
            seen.append(session.take_output())
            while transactions and session.may_start:
                transactions -= 1
                slot = session.start(
                    b"a@x", [b"b@y", b"c@y"], by=by if session.offers("CHUNKING") else "data"
                )
                if by == "bdat" and session.offers("CHUNKING") and session.offers("PIPELINING"):
                    session.send_body(slot, b"body\r\n")
    except BrokenDialogue as error:
        seen += error.events_before
        seen.append("broken")
        assert session.is_closed
    return seen


replies = st.sampled_from(
    [
        HELLO,
        b"220 mx\r\n",
        b"250 ok\r\n",
        b"250-",
        b"354 go\r\n",
        b"450 4.2.0 later\r\n",
        b"550 no\r\n",
        b"421 bye\r\n",
        b"250-PIPELINING\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"2",
        b"999 x\r\n",
        b"x" * 600,
        b"250 " + b"y" * 1100,
    ]
) | st.binary(max_size=20)


@settings(max_examples=400, deadline=None)
@given(st.lists(replies, max_size=30), st.integers(0, 5), st.sampled_from(["data", "bdat", "bdat-later"]))
def test_any_octets_give_events_or_remote_protocol_error(
    pieces: list[bytes], transactions: int, by: str
) -> None:
    session_of(b"".join(pieces), list(range(0, 2000, 7)), transactions, by)


@settings(max_examples=200, deadline=None)
@given(st.lists(replies, max_size=20), st.lists(st.integers(0, 4000), max_size=10))
def test_cuts_change_nothing_before_the_first_transaction(pieces: list[bytes], cuts: list[int]) -> None:
    octets = HELLO + b"".join(pieces)

    def told(found: list[object]) -> list[object]:
        return [each for each in found if not isinstance(each, bytes)]

    assert told(session_of(octets, [], 0, "data")) == told(session_of(octets, cuts, 0, "data"))


def test_deadlines_are_those_of_rfc_5321_4_5_3_2() -> None:
    session = ClientSession(HOSTNAME)
    assert session.deadline_s == limits.GREETING_TIMEOUT_S
    session.receive(b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n")
    assert session.deadline_s == 0
    slot = session.start(b"a@x", [b"b@y"])
    assert session.deadline_s == limits.MAIL_TIMEOUT_S
    session.receive(b"250 ok\r\n")
    assert session.deadline_s == limits.RCPT_TIMEOUT_S
    session.receive(b"250 ok\r\n")
    assert session.deadline_s == limits.DATA_INITIATION_TIMEOUT_S
    session.receive(b"354 go\r\n")
    assert session.deadline_s == limits.DATA_BLOCK_TIMEOUT_S
    session.send_body(slot, b"x\r\n")
    assert session.deadline_s == limits.DATA_TERMINATION_TIMEOUT_S


def test_misuse_is_a_local_protocol_error() -> None:
    session = ClientSession(HOSTNAME)
    with pytest.raises(LocalProtocolError):
        session.start(b"a@x", [b"b@y"])
    with pytest.raises(LocalProtocolError):
        session.close()
    session.receive(HELLO)
    session.take_output()
    with pytest.raises(LocalProtocolError):
        session.start(b"a@x", [])
    session = ClientSession(HOSTNAME)
    session.receive(HELLO)
    with pytest.raises(LocalProtocolError):
        session.send_body(0, b"x\r\n")
    with pytest.raises(LocalProtocolError):
        session.start(b"a@x", [b"b@y"] * 101)


@pytest.mark.parametrize("path", [b"a@x>\r\nRCPT TO:<evil@y", b"a@x\n", b"a\r@x"])
def test_a_path_cannot_smuggle_a_command(path: bytes) -> None:
    session = ClientSession(HOSTNAME)
    session.receive(HELLO)
    with pytest.raises(LocalProtocolError):
        session.start(path, [b"b@y"])


def test_a_hundred_recipients_are_one_group() -> None:
    session = ClientSession(HOSTNAME)
    session.receive(HELLO)
    session.take_output()
    session.start(b"a@x", [b"r%d@y" % i for i in range(100)])
    assert session.take_output().count(b"\r\n") == 102
    events = session.receive(b"250 ok\r\n" + b"250 ok\r\n550 no\r\n" * 50 + b"354 go\r\n")
    assert [event.index for event in events if event.kind == "recipient-refused"] == list(range(1, 100, 2))
    assert events[-1].kind == "send-body"


def test_quit_inside_a_transaction_is_a_local_protocol_error() -> None:
    """It went out between the commands of the transaction, and its reply was taken for one of theirs."""
    session = ClientSession(HOSTNAME)
    session.receive(HELLO)
    session.start(b"a@x", [b"b@y"])
    session.take_output()
    with pytest.raises(LocalProtocolError):
        session.close()
    session.receive(b"250 ok\r\n550 no\r\n554 no\r\n")
    session.close()
    assert session.take_output() == b"QUIT\r\n"


def test_stages_are_numbered_alike_in_trouble() -> None:
    assert len(STAGE_NAMES) == len(Stage) == len(STAGE_TEXT)
    assert STAGE_NAMES[Stage.END] == "end of data"
    assert STAGE_NAMES[Stage.MAIL] == "MAIL"
    assert STAGE_NAMES[Stage.IDLE] == "idle"


def test_a_random_dialogue_of_many_messages_keeps_slots_and_bodies_together() -> None:
    """Replies chosen by chance, valid for what was sent: every transaction ends once, none is mixed up."""
    chance = random.Random(5321)
    for round_number in range(200):
        session = ClientSession(HOSTNAME, round_number % 3 == 0)
        session.receive(HELLO)
        session.take_output()
        server = ScriptedServer(chance, session.is_lmtp)
        started = over = 0
        while over < 20:
            while session.may_start and started < 20:
                started += 1
                by = chance.choice(["data", "bdat", "bdat-later"])
                slot = session.start(b"m%d@x" % started, [b"r@y"] * chance.randrange(1, 5), by=by)
                if by == "bdat":
                    session.send_body(slot, b"m%d\r\n.dot\r\n" % started)
            answer = server.answer(session.take_output())
            assert answer, "the dialogue has come to a stop"
            for event in session.receive(answer):
                over += event.is_over
                if event.kind == "send-body":
                    session.send_body(event.slot, b"body\r\n.dot\r\n")
        assert server.is_clean


class ScriptedServer:
    """Answers commands like a server would, at random; knows where data ends."""

    def __init__(self, chance: random.Random, is_lmtp: bool) -> None:
        self.chance = chance
        self.is_lmtp = is_lmtp
        self.buffer = b""
        self.accepted = -1  # recipients of the open transaction; -1: none open
        self.in_data = False

    @property
    def is_clean(self) -> bool:
        return not self.buffer and not self.in_data

    def answer(self, octets: bytes) -> bytes:
        self.buffer += octets
        replies = b""
        while self.buffer:
            if self.in_data:
                data, dot, rest = (b"\r\n" + self.buffer).partition(b"\r\n.\r\n")
                assert dot, "the body came in one piece"
                assert b"\r\n." not in data.replace(b"\r\n..", b"")
                self.buffer = rest
                self.in_data = False
                replies += self.end(self.accepted)
                self.accepted = -1
                continue
            line, crlf, self.buffer = self.buffer.partition(b"\r\n")
            assert crlf
            replies += self.command(line)
        return replies

    def command(self, line: bytes) -> bytes:
        verb = line[:4]
        is_kind = self.chance.random() < 0.7
        if verb == b"RSET":
            self.accepted = -1
            return b"250 ok\r\n"
        if verb == b"MAIL":
            assert self.accepted < 0, "MAIL inside a transaction"
            self.accepted = 0 if is_kind else -1
            return b"250 ok\r\n" if is_kind else b"451 later\r\n"
        if verb == b"RCPT":
            is_kind &= self.accepted >= 0
            self.accepted += is_kind
            return b"250 ok\r\n" if is_kind else b"550 no\r\n"
        if verb == b"DATA":
            if (self.accepted > 0 and is_kind) or (self.accepted == 0 and is_kind and not self.is_lmtp):
                self.in_data = True
                return b"354 go\r\n"
            return b"503 no\r\n"
        assert verb == b"BDAT", line
        size = int(line.split()[1])
        self.buffer = self.buffer[size:]
        if self.accepted > 0:
            accepted, self.accepted = self.accepted, -1
            answer = self.end(accepted)
            if not self.is_lmtp and answer.startswith(b"4"):
                self.accepted = accepted  # only RSET ends it
            return answer
        return b"503 no\r\n"

    def end(self, accepted: int) -> bytes:
        count = max(accepted, 1) if self.is_lmtp else 1
        return b"".join(
            b"250 ok\r\n" if self.chance.random() < 0.7 else b"452 full\r\n" for _ in range(count)
        )
