"""Extensions of MAIL on the way in: who is offered and granted what, and what of it is on disk."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_messages_in import stored_messages, without_trace

from angarium.inbound.extensions import ExtensionOptions
from angarium.model.units import Duration
from angarium.spool.envelope import Attribute, Flag

ALL = ExtensionOptions(
    binarymime=True, future_release=Duration(86400), no_soliciting=["net.example:ADV"], max_messages=10
)


async def hello(peer: SmtpPeer) -> list[str]:
    """All lines of the answer to EHLO."""
    peer.say(b"EHLO again.example\r\n")
    lines = []
    while True:
        lines.append((await peer.reader.readline()).decode().removesuffix("\r\n"))
        if not lines[-1].startswith("250-"):
            return lines


def test_ehlo_offers_what_is_switched_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ALL, max_recipients=200) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            lines = await hello(peer)
            for line in (
                "250-BINARYMIME",
                "250-DELIVERBY",
                "250-MT-PRIORITY",
                "250-NO-SOLICITING net.example:ADV",
                "250-LIMITS MAILMAX=10 RCPTMAX=200",
            ):
                assert line in lines
            (hold,) = [line for line in lines if line.startswith("250-FUTURERELEASE ")]
            interval, latest = hold.split()[1:]
            assert interval == "86400"
            assert time.strptime(latest, "%Y-%m-%dT%H:%M:%SZ") > time.gmtime(time.time() + 86000)

    run(main())


def test_nothing_is_offered_that_is_switched_off(tmp_path: Path) -> None:
    off = ExtensionOptions(deliver_by=False, priority=False, limits=False)

    async def main() -> None:
        async with intake_harness(tmp_path, extensions=off) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            reply = " ".join(await hello(peer))
            for keyword in ("BINARYMIME", "DELIVERBY", "MT-PRIORITY", "NO-SOL", "LIMITS", "FUTURE"):
                assert keyword not in reply

    run(main())


def test_what_was_asked_for_is_on_disk(tmp_path: Path) -> None:
    body = b"Subject: x\r\n\r\n\x00\n\r\xff"

    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ALL) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(
                b"MAIL FROM:<a@x.example> BODY=BINARYMIME BY=600;RT HOLDFOR=3600 MT-PRIORITY=-2 "
                b"SOLICIT=com.example:OK\r\n"
                b"RCPT TO:<b@y.example>\r\nBDAT %d LAST\r\n%b" % (len(body), body)
            )
            assert [(await peer.reply())[:3] for _ in range(3)] == ["250"] * 3
        ((envelope, stored),) = await stored_messages(tmp_path)
        assert without_trace(stored) == body
        assert envelope.flags & Flag.BINARYMIME
        attributes = dict(envelope.attributes)
        hold = int(attributes.pop(Attribute.HOLD_UNTIL))
        by, mode = attributes.pop(Attribute.DELIVER_BY).split(b";")
        assert hold == pytest.approx(time.time() + 3600, abs=30)
        assert int(by) == pytest.approx(time.time() + 600, abs=30)
        assert mode == b"RT"
        assert attributes == {Attribute.PRIORITY: b"-2", Attribute.SOLICIT: b"com.example:OK"}

    run(main())


@pytest.mark.parametrize(
    ("parameter", "reply"),
    [
        (b"HOLDFOR=86401", "501 5.5.4 Held longer"),
        (b"HOLDUNTIL=2001-01-01T00:00:00Z", "501 5.5.4 HOLDUNTIL is in the past"),
        (b"HOLDUNTIL=9999-01-01T00:00:00Z", "501 5.5.4 Held longer"),
        (b"SOLICIT=net.example:adv", "550 5.7.1"),
    ],
)
def test_a_term_that_is_refused_leaves_no_transaction(tmp_path: Path, parameter: bytes, reply: str) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ALL) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(b"MAIL FROM:<a@x.example> %b\r\nRCPT TO:<b@y.example>\r\n" % parameter)
            assert (await peer.reply()).startswith(reply)
            assert (await peer.reply()).startswith("503 5.5.1")

    run(main())


def test_who_may_not_relay_has_no_priority_and_holds_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ALL, relay_from=[], relay_to=["y.example"]) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert "FUTURERELEASE" not in " ".join(await hello(peer))
            peer.say(b"MAIL FROM:<a@x.example> HOLDFOR=60\r\n")
            assert (await peer.reply()).startswith("555 5.5.4")
            peer.say(b"MAIL FROM:<a@x.example> MT-PRIORITY=9\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
            assert (await peer.reply()).startswith("250 2.3.6 0 ")
            assert [(await peer.reply())[:3] for _ in range(2)] == ["250", "354"]
            peer.say(b"Subject: x\r\n\r\n.\r\n")
            assert (await peer.reply()).startswith("250 2.0.0")
            peer.say(b"MAIL FROM:<a@x.example>\r\n")
            assert (await peer.reply()).startswith("250 2.1.0")
        ((envelope, _),) = await stored_messages(tmp_path)
        assert not envelope.attributes

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"no_soliciting": ["1a"]},
        {"no_soliciting": ["a b"]},
        {"no_soliciting": ["a\r\nb"]},
        {"no_soliciting": ["a" * 401]},
        {"future_release": Duration(2e9)},
        {"max_messages": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        ExtensionOptions(**options)  # type: ignore[arg-type]
