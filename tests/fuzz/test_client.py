"""Whole client sessions against what hostile servers say: the corpus as it is, and the judge's own faults."""

from __future__ import annotations

import pytest
from fuzz import client_target

GOOD = (
    b"A1220 mx.example\r\n250-mx.example\r\n250 PIPELINING\r\n"
    b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n250 2.0.0 taken\r\n"
)


@pytest.mark.parametrize("path", sorted(client_target.CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus_breaks_no_invariant(path) -> None:
    octets = path.read_bytes()
    for kind in (octets[0], octets[0] ^ 8, octets[0] ^ 32, octets[0] + 1 & 255):
        client_target.check(bytes([kind]) + octets[1:])


def played() -> client_target.Dialogue:
    dialogue = client_target.Dialogue(b"\x001")
    for line in GOOD[client_target.CHOICES :].splitlines(keepends=True):
        dialogue._receive(line)
    return dialogue


def forget_a_refusal(dialogue: client_target.Dialogue) -> None:
    dialogue.seen = [event for event in dialogue.seen if getattr(event, "kind", "") != "recipient-refused"]


def deliver_twice(dialogue: client_target.Dialogue) -> None:
    dialogue.seen += [event for event in dialogue.seen if getattr(event, "kind", "") == "delivered"]


def send_half_a_command(dialogue: client_target.Dialogue) -> None:
    dialogue.sent += b"MAIL FROM:<a@x.exa"


def send_a_body_unasked(dialogue: client_target.Dialogue) -> None:
    dialogue.sent += client_target.BODY


def test_a_session_in_order_passes() -> None:
    dialogue = played()
    assert not dialogue.is_broken
    assert any(getattr(event, "kind", "") == "delivered" for event in dialogue.seen)
    client_target.judge(dialogue, GOOD[client_target.CHOICES :])


@pytest.mark.parametrize("damage", [forget_a_refusal, deliver_twice, send_half_a_command, send_a_body_unasked])
def test_each_invariant_can_break(damage) -> None:
    """A judge that lets everything pass would find nothing."""
    dialogue = played()
    damage(dialogue)
    with pytest.raises(AssertionError):
        client_target.judge(dialogue, GOOD[client_target.CHOICES :])
