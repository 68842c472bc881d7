"""Whole server sessions, fuzzed: the corpus as it is, and some thousand mutations that are new in each run.

Under `make debug` the same runs with sanitizers. For longer, and guided by coverage: `make fuzz`.
"""

from __future__ import annotations

import base64
import random
from unittest import mock

import pytest
from fuzz import session_target
from fuzz.sasl_judge import JudgedSasl
from smtp import switches
from smtp.sasl_peer import SERVER_NONCE

from angarium.sasl.exchange import MECHANISMS
from angarium.sasl.mechanism import Begin, Mechanism, first, respond
from angarium.sasl.steps import Accepted, Channel, Refused
from angarium.smtp import replies, server_events


@pytest.mark.parametrize("path", sorted(session_target.CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus_breaks_no_invariant(path) -> None:
    octets = path.read_bytes()
    session_target.check(octets)
    for settings in range(len(session_target.SETTINGS)):
        for choice in (0, 1, 2, 4, 8, 16, 31, 49):
            session_target.check(bytes([settings, choice]) + octets[session_target.CHOICES :])


def test_by_each_mechanism_somebody_comes_in_and_somebody_does_not() -> None:
    """The corpus reaches the end of every exchange, either way, so that what is mutated of it does."""
    came_in, was_refused = set(), set()
    with mock.patch("angarium.sasl.scram.make_nonce", return_value=SERVER_NONCE):
        for octets in session_target.corpus():
            number, choice, said = octets[0], octets[1], octets[session_target.CHOICES :]
            dialogue = session_target._played(number, said, session_target.line_ends(said), choice)
            if isinstance(dialogue.sasl, JudgedSasl):
                came_in.update(dialogue.sasl.came_in_by)
                if replies.AUTH_FAILED in dialogue.output:
                    was_refused.add(dialogue.sasl.mechanism)
    assert came_in == was_refused == set(MECHANISMS)


def anybody(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    yield from first(initial)
    return Accepted("user")


def whoever_says_so(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    return Refused("bad-credentials", (yield from first(initial)).decode())


def proving_it_to_all(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    yield from first(initial)
    yield from respond(b"r=x" + SERVER_NONCE + b",s=QQ==,i=4096")
    yield from respond(b"v=AAAA")
    return Refused("bad-credentials")


@pytest.mark.parametrize("mechanism, broken", [
    *((name, anybody) for name in MECHANISMS), ("XOAUTH2", whoever_says_so), ("SCRAM-SHA-256", proving_it_to_all),
])  # fmt: skip
def test_the_judge_of_logins_sees_a_mechanism_that_is_broken(
    monkeypatch: pytest.MonkeyPatch, mechanism: str, broken: Begin
) -> None:
    monkeypatch.setitem(MECHANISMS, mechanism, broken)
    flag = b"p=tls-exporter" if mechanism.endswith("PLUS") else b"n"
    first_response = b"line\n" if broken is whoever_says_so else flag + b",,n=user,r=x"
    if mechanism == "EXTERNAL":
        first_response = b"other"
    lines = [b"EHLO c.example", f"AUTH {mechanism} ".encode() + base64.b64encode(first_response)]
    octets = b"".join(line + b"\r\n" for line in [*lines, base64.b64encode(b"c=biws,r=x,p=AAAA")])
    with pytest.raises(AssertionError):
        session_target._played(0, octets, session_target.line_ends(octets), 49)


@pytest.mark.parametrize("choice", [64, 65, 130, 192, 195])
def test_the_corpus_breaks_no_invariant_without_some_extensions(choice: int) -> None:
    """Each input under another combination of switches, 36 for each value of the bits that choose."""
    for number, path in enumerate(sorted(session_target.CORPUS.iterdir())):
        octets = path.read_bytes()[session_target.CHOICES :]
        for settings in range(len(session_target.SETTINGS)):
            beyond = number % 36 * len(session_target.SETTINGS)
            session_target.check(bytes([beyond + settings, choice]) + octets)


def test_each_switch_is_off_in_some_combination_and_on_in_another() -> None:
    seen = [session_target.settings_of(number, choice)[1] for number in range(252) for choice in (64, 128, 192)]
    for name in switches.SWITCHES:
        assert {name in off for off in seen} == {True, False}, name
    assert len(set(seen)) > 100


@pytest.mark.parametrize("run", range(4))
def test_mutations_of_the_corpus_break_no_invariant(run: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance, seeds = random.Random(seed), session_target.corpus()
    for count in range(300):
        octets = session_target.mutated(chance, seeds)
        try:
            session_target.check(octets)
        except AssertionError:
            pytest.fail(f"seed {seed}, mutation {count}: check({octets!r})")


GOOD = b"EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<no@y.example>\r\n"
WHOLE = [GOOD + b"DATA\r\n", b"one\r\n.\r\n", b"QUIT\r\n"]


def played() -> session_target.Application:
    """Each piece alone: what ends a group comes with nothing behind it."""
    cuts = [16, len(WHOLE[0]), len(WHOLE[0]) + len(WHOLE[1])]
    return session_target._played(0, b"".join(WHOLE), cuts, 0)


def lose_a_reply(dialogue: session_target.Application) -> None:
    dialogue.output = dialogue.output.replace(b"250 2.1.0 Ok\r\n", b"", 1)


def add_a_reply(dialogue: session_target.Application) -> None:
    dialogue.output += b"250 2.0.0 Ok\r\n"


def take_who_was_refused(dialogue: session_target.Application) -> None:
    dialogue.committed[0][0].append(b"no@y.example")


def store_other_octets(dialogue: session_target.Application) -> None:
    dialogue.committed[0] = (dialogue.committed[0][0], b"two\r\n")


def forget_to_commit(dialogue: session_target.Application) -> None:
    dialogue.committed.clear()


def keep_a_bare_lf(dialogue: session_target.Application) -> None:
    dialogue.messages.append(b"never\nsent\r\n")


def say_a_long_line(dialogue: session_target.Application) -> None:
    dialogue.output = dialogue.output.replace(b"2.1.0 Ok", b"2.1.0 " + b"k" * 510, 1)


def say_a_bare_lf(dialogue: session_target.Application) -> None:
    dialogue.output = dialogue.output.replace(b"2.1.0 Ok", b"2.1.0 O\nk", 1)


def grow(dialogue: session_target.Application) -> None:
    dialogue.most_memory_octets = 1 << 20


def offer_what_is_off(dialogue: session_target.Application) -> None:
    dialogue.off = frozenset(("dsn",))


def tell_what_is_off(dialogue: session_target.Application) -> None:
    dialogue.off = frozenset(("priority",))
    dialogue.events[1] = server_events.Mail(b"a@x.example", priority=3)


def chunk_what_is_off(dialogue: session_target.Application) -> None:
    dialogue.off = frozenset(("announces_limits", "chunking"))
    dialogue.output = dialogue.output.replace(b"250-CHUNKING\r\n", b"")
    dialogue.events.append(server_events.Data(is_chunking=True))


def test_a_session_in_order_passes() -> None:
    session_target._judge(played(), b"".join(WHOLE))


@pytest.mark.parametrize(
    "damage",
    [
        lose_a_reply, add_a_reply, take_who_was_refused, store_other_octets, forget_to_commit, keep_a_bare_lf,
        say_a_long_line, say_a_bare_lf, grow, offer_what_is_off, tell_what_is_off, chunk_what_is_off,
    ],
)  # fmt: skip
def test_each_invariant_can_break(damage) -> None:
    """A judge that lets everything pass would find nothing."""
    dialogue = played()
    damage(dialogue)
    with pytest.raises(AssertionError):
        session_target._judge(dialogue, b"".join(WHOLE))


@pytest.mark.parametrize("off, line, code", [
    ("size", b"MAIL FROM:<a@x.example> BODY=7BIT SIZE=3", 250),
    ("dsn", b"rcpt to:<a@x.example> notify=never", 250),
    ("eightbitmime", b"MAIL FROM:<> BODY=7BIT", 250),
    ("binarymime", b"MAIL FROM:<> BODY=BINARYMIME", 250),
    ("smtputf8", b"MAIL FROM:<> SMTPUTF8", 250),
    ("vrfy", b"VRFY a", 252),
])  # fmt: skip
def test_a_command_of_what_is_off_must_not_be_accepted(off: str, line: bytes, code: int) -> None:
    with pytest.raises(AssertionError):
        switches.judge_accepted(frozenset((off,)), line, code)
    switches.judge_accepted(frozenset(switches.SWITCHES) - {off, "eightbitmime"}, line, code)
