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
    binarymime=True, deliver_by=True, future_release=Duration(86400), priority=True, no_soliciting=["net.example:ADV"],
    max_messages=10,
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
                b"MAIL FROM:<a@x.example> BODY=BINARYMIME BY=3600;RT HOLDFOR=600 MT-PRIORITY=-2 "
                b"SOLICIT=com.example:OK\r\n"
                b"RCPT TO:<b@y.example>\r\nBDAT %d LAST\r\n%b" % (len(body), body)
            )
            assert [(await peer.reply())[:3] for _ in range(3)] == ["250"] * 3
        ((envelope, stored),) = await stored_messages(tmp_path)
        assert without_trace(stored) == body
        assert envelope.flags & Flag.BINARYMIME
        attributes = dict(envelope.attributes)
        hold, asked = attributes.pop(Attribute.HOLD_UNTIL).split(b";")
        by, mode = attributes.pop(Attribute.DELIVER_BY).split(b";")
        assert int(hold) == pytest.approx(time.time() + 600, abs=30)
        assert asked == b"F600"
        assert int(by) == pytest.approx(time.time() + 3600, abs=30)
        assert mode == b"RT"
        assert attributes == {Attribute.PRIORITY: b"-2", Attribute.SOLICIT: b"com.example:OK"}

    run(main())


@pytest.mark.parametrize(
    ("parameter", "reply"),
    [
        (b"HOLDFOR=86401", "501 5.5.4 Held longer"),
        (b"HOLDUNTIL=2001-01-01T00:00:00Z", "501 5.5.4 HOLDUNTIL is in the past"),
        (b"HOLDUNTIL=9999-01-01T00:00:00Z", "501 5.5.4 Held longer"),
        # RFC 4865 §5.2.2: a release behind the by-time, whatever the mode.
        (b"HOLDFOR=600 BY=599;R", "501 5.5.4 Held longer than the by-time"),
        (b"HOLDFOR=600 BY=599;N", "501 5.5.4 Held longer than the by-time"),
        (b"HOLDFOR=600 BY=-5;N", "501 5.5.4 Held longer than the by-time"),
        (b"SOLICIT=net.example:adv", "550 5.7.1 SOLICIT=net.example:ADV"),
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


async def sent(peer: SmtpPeer, parameters: bytes, message: bytes) -> str:
    """The reply to the end of data."""
    peer.say(b"MAIL FROM:<a@x.example>%b\r\nRCPT TO:<b@y.example>\r\nDATA\r\n" % parameters)
    assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
    return await peer.ask(message + b"\r\n.\r\n")


def test_a_release_at_the_by_time_is_in_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ALL) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer, b" HOLDFOR=600 BY=600;R", b"Subject: x\r\n")).startswith("250 2.0.0")
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 900)).encode()
            assert (await sent(peer, b" HOLDUNTIL=" + until, b"Subject: y\r\n")).startswith("250 2.0.0")
        holds = [dict(envelope.attributes)[Attribute.HOLD_UNTIL] for envelope, _ in await stored_messages(tmp_path)]
        assert sorted(hold.partition(b";")[2] for hold in holds) == [b"F600", b"U"]

    run(main())


def test_received_says_priority_and_keywords(tmp_path: Path) -> None:
    """RFC 6710 §4.1 (2), RFC 3865 §2.6."""

    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ALL) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await sent(peer, b" MT-PRIORITY=-4 SOLICIT=com.example:OK", b"Subject: x\r\n")
        ((_, stored),) = await stored_messages(tmp_path)
        trace = stored.partition(b"Subject:")[0]
        assert b" with ESMTP\r\n\t(SOLICIT=com.example:OK)\r\n\tid " in trace
        assert b"\r\n\tfor <b@y.example>\r\n\tPRIORITY -4;\r\n" in trace

    run(main())


@pytest.mark.parametrize(
    ("field", "keywords", "is_refused"),
    [
        (b"Solicitation: net.example:ADV\r\n", None, True),
        (b"solicitation:\r\n com.example:OK,\r\n\tNET.example:adv\r\n", None, True),
        (b"Solicitation : org.example:X, net.example:ADV\r\n", None, True),
        (b"Solicitation: com.example:OK\r\n", b"com.example:OK", False),
        (b"Solicitation: 1 is no keyword; net.example:ADV\r\n", None, False),
        (b"X Y: no field\r\nSolicitation: net.example:ADV\r\n", None, True),
        (b"From a@b.example Thu Nov 26\r\nSolicitation: com.example:OK\r\n", b"com.example:OK", False),
        (b"Solicitations: net.example:ADV\r\n", None, False),
        (b"X-Solicitation: net.example:ADV\r\n", None, False),
        (b"Subject: x\r\n\r\nSolicitation: net.example:ADV\r\n", None, False),
    ],
)
@pytest.mark.parametrize("filling", [0, 400_000])
def test_the_field_solicitation_counts_as_the_parameter(
    tmp_path: Path, field: bytes, keywords: bytes | None, is_refused: bool, filling: int
) -> None:
    """RFC 3865 §2.3: SHOULD NOT deliver; §2.7: what the header says is passed on. Streamed, too."""
    message = b"To: b@y.example\r\n" + field + b"\r\n" + b"0123456789abcde\r\n" * (filling // 17)

    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ALL) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            reply = await sent(peer, b"", message)
            assert reply.startswith("550 5.7.1 SOLICIT=net.example:ADV " if is_refused else "250 2.0.0")
            assert (await sent(peer, b"", b"Subject: next\r\n")).startswith("250 2.0.0")
        stored = await stored_messages(tmp_path)
        assert len(stored) == 1 + (not is_refused)
        if not is_refused:
            (envelope,) = [envelope for envelope, octets in stored if b"Subject: next" not in octets]
            assert dict(envelope.attributes).get(Attribute.SOLICIT) == keywords

    run(main())


def test_without_keywords_nothing_is_refused(tmp_path: Path) -> None:
    """RFC 3865 §2.2: NO-SOLICITING alone is a no-op that lets SOLICIT pass along."""

    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ExtensionOptions(no_soliciting=[])) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert "250-NO-SOLICITING" in await hello(peer)
            assert (await sent(peer, b" SOLICIT=net.example:ADV", b"Subject: x\r\n")).startswith("250")
            assert (await sent(peer, b"", b"Solicitation: net.example:ADV\r\n")).startswith("250")
        keywords = [dict(envelope.attributes)[Attribute.SOLICIT] for envelope, _ in await stored_messages(tmp_path)]
        assert keywords == [b"net.example:ADV"] * 2

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
