"""Every refusal has its reason: the table of replies and the table of reasons say the same, and the page tells it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from angarium.smtp import reasons, replies
from angarium.smtp.refusal_ids import RefusalIds
from angarium.smtp.server_session import ServerSession
from angarium.smtp.server_settings import ServerSettings

DOCS = Path(__file__).parents[2] / "docs"
REFUSALS = {
    name: reply for name, reply in vars(replies).items() if isinstance(reply, bytes) and reply[:1] in (b"4", b"5")
}
HOSTNAME = b"mx.test.example"


def test_every_refusal_has_a_reason_and_every_reason_a_refusal() -> None:
    assert set(reasons.REASONS) == set(REFUSALS)


def test_every_refusal_has_an_enhanced_status_code_of_its_class() -> None:
    for name, reply in REFUSALS.items():
        assert re.fullmatch(rb"([45])\d\d \1\.\d{1,3}\.\d{1,3} [ -~]+\r\n", reply), name


def test_no_two_replies_are_alike() -> None:
    """A reply is how a reason is found."""
    assert len(set(REFUSALS.values())) == len(REFUSALS)


def test_words_are_plain_and_unique() -> None:
    words = reasons.words()
    assert len(words) == len(reasons.REASONS) + len(reasons.OF_POLICIES)
    for word in words:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", word)
        reason = reasons.of_word(word)
        assert reason is not None
        assert reason.sentence.endswith(".")


def test_keys_are_those_of_the_configuration() -> None:
    page = (DOCS / "configuration.md").read_text()
    known = {
        f"{section}.{key}"
        for section, text in re.findall(r"^## \[*(\w+)[^\n]*\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
        for key in re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)
    }
    for reason in (*reasons.REASONS.values(), *reasons.OF_POLICIES):
        for key in reason.keys:
            assert any(each == key or each.startswith(f"{key}.") for each in known), (reason.word, key)


def test_the_page_has_every_reason_as_it_is() -> None:
    table = (DOCS / "refusals.md").read_text().partition("|---|---|---|---|\n")[2]
    expected = []
    for name, reason in [*reasons.REASONS.items(), *(("", reason) for reason in reasons.OF_POLICIES)]:
        reply = " ".join(REFUSALS[name].decode().split()[:2]) if name else ""
        codes = f"`{reply}`" if name else "its own"
        sentence = reason.sentence.replace("|", "\\|")
        keys = ", ".join(f"`{key}`" for key in reason.keys)
        expected.append(f"| `{reason.word}` | {codes} | {sentence} | {keys} |")
    assert table.splitlines() == expected


def test_replies_that_hold_our_name_are_known_as_they_are_said() -> None:
    settings = ServerSettings(HOSTNAME)
    words = settings.refusal_words
    assert words[settings.timeout_reply] == b"timeout"
    assert words[settings.errors_reply] == b"too-many-errors"
    assert words[replies.RELAY_DENIED] == b"relay-denied"
    assert not any(b"%s" in reply for reply in words)


def refused(settings: ServerSettings, octets: bytes) -> bytes:
    session = ServerSession(settings)
    session.greet()
    session.take_output()
    session.receive(octets)
    while session.next_event() is not None:
        pass
    return session.take_output()


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"NONSENSE\r\n", rb"500 5\.5\.1 Command not recognised \[([0-9A-Z]{8})\]\r\n"),
        (b"NOOP\n", rb"521 5\.5\.2 .* \[([0-9A-Z]{8})\]\r\n"),
    ],
)
def test_the_id_stands_in_the_reply_only_when_wanted(octets: bytes, reply: bytes) -> None:
    ids = RefusalIds()
    told = refused(ServerSettings(HOSTNAME, refusal_ids=ids, tells_refusal_ids=True), octets)
    assert re.fullmatch(reply, told)
    assert b"[" not in refused(ServerSettings(HOSTNAME, refusal_ids=ids), octets)
    assert b"[" not in refused(ServerSettings(HOSTNAME, tells_refusal_ids=True), octets)


def test_goodbye_is_no_refusal() -> None:
    settings = ServerSettings(HOSTNAME, refusal_ids=RefusalIds(), tells_refusal_ids=True)
    assert refused(settings, b"QUIT\r\n") == b"221 2.0.0 mx.test.example Bye\r\n"


def test_no_reply_grows_past_its_limit() -> None:
    """RFC 5321 §4.5.3.1.5: 512 octets."""
    settings = ServerSettings(HOSTNAME, refusal_ids=RefusalIds(), tells_refusal_ids=True)
    session = ServerSession(settings)
    session.close_with(b"421 4.7.0 " + b"x" * 500 + b"\r\n")
    assert session.take_output() == b"421 4.7.0 " + b"x" * 500 + b"\r\n"
