"""All transcripts, played to sessions that are without some extension, at every cut: nothing of it is offered or taken,
and what comes of the octets is the same however they arrive."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from unittest import mock

import pytest
from smtp.sasl_peer import SERVER_NONCE, SaslPeer
from smtp.server_dialogue import Dialogue
from smtp.switches import SWITCHES, chosen, is_off, judge_off, without
from smtp.transcript import Transcript, read_all

from angarium.smtp.server_settings import ServerSettings

TRANSCRIPTS = read_all()
COMBINATIONS = [
    *([name] for name in SWITCHES),
    *(chosen(random.Random(f"combination {number}")) for number in range(5)),
    list(SWITCHES),
]
EVERY_CUT_OCTETS = 1500  # beyond, cuts at random: a message of many lines says nothing more of extensions
_REPLY = re.compile(rb"(?:\d{3}-[^\r\n]*\r\n)*(\d{3}) [^\r\n]*\r\n")


def played(transcript: Transcript, names: list[str], cuts_of: Callable[[bytes], Iterable[int]]) -> Dialogue:
    options = without(dict(transcript.settings), names)
    settings = ServerSettings("mx.test.example", completion=transcript.completion, **options)
    sasl = None
    if transcript.mechanisms is not None:
        sasl = SaslPeer(
            transcript.mechanisms.encode() or None, is_bound=transcript.is_bound, certificate=transcript.certificate
        )
    dialogue = Dialogue(
        settings, denied=transcript.denied, is_full=transcript.is_full, sasl=sasl, takes=transcript.takes
    )
    dialogue.greet()
    with mock.patch("angarium.sasl.scram.make_nonce", return_value=SERVER_NONCE):
        for block in transcript.blocks:
            dialogue.feed_in_pieces(block.octets, cuts_of(block.octets))
    judge_off(is_off(options), dialogue.output, dialogue.events)
    return dialogue


def every_cut(octets: bytes) -> Iterable[int]:
    if len(octets) <= EVERY_CUT_OCTETS:
        return range(1, len(octets))
    return random.Random(octets).choices(range(len(octets)), k=7)


@pytest.mark.parametrize("names", COMBINATIONS, ids=lambda names: names[0] if len(names) == 1 else f"{len(names)}")
def test_transcripts_without_an_extension_are_the_same_at_every_cut(names: list[str]) -> None:
    is_pipelined = "pipelining" not in names
    for transcript in TRANSCRIPTS:
        whole = played(transcript, names, lambda octets: [])
        cut = played(transcript, names, every_cut)
        if transcript.is_whole or not is_pipelined or b"Improper pipelining" in whole.output:
            # What comes together is refused as such; octet by octet nothing stands behind a command.
            assert cut.messages[: len(whole.messages)] == whole.messages
            continue
        assert cut.events == whole.events, transcript.name
        assert cut.output == whole.output, transcript.name
        assert cut.messages == whole.messages, transcript.name


def test_a_message_is_the_same_without_an_extension_that_it_does_not_use() -> None:
    said = b"EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nx\r\n.\r\n"
    cuts = [at + 2 for at in range(len(said)) if said[at : at + 2] == b"\r\n"]
    for names in COMBINATIONS:
        dialogue = Dialogue(ServerSettings("mx.test.example", **without({}, names)))
        dialogue.greet()
        dialogue.feed_in_pieces(said, cuts)
        assert [match[1] for match in _REPLY.finditer(dialogue.output)] == [b"220", *[b"250"] * 3, b"354", b"250"]
        assert dialogue.messages == [b"x\r\n"]
