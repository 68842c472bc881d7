"""TLS on a listener: the handshake, what is chosen in it, messages under it, its end."""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from inbound.intake_harness import IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_messages_in import stored_messages
from inbound.tls_peer import TlsPeer
from tls.authority import certificate, client_context, der, listener_tls, write

from angarium.inbound.extensions import ExtensionOptions
from angarium.metrics import counters
from angarium.queue.inspect import id_number, show
from angarium.tls.certificates import load

MESSAGE = b"Subject: x\r\n\r\n" + b"".join(b"line %d\r\n" % number for number in range(300))


pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")


def counted(name: str) -> int:
    return next(each for each in counters.registry() if each.name == name).total()


async def send(peer: TlsPeer, message: bytes = MESSAGE) -> str:
    await peer.open_data()
    return await peer.ask(message + b".\r\n")


def test_a_message_under_starttls(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            assert (await send(peer)).startswith("250 2.0.0 Ok: queued as ")
            (received,) = harness.events("received")
            assert received["protocol"] == "ESMTPS"
            assert (received["tls"], received["cipher"]) == ("TLSv1.3", peer.tls.cipher()[0])  # type: ignore[index]
            assert await peer.ask(b"QUIT\r\n") == "221 2.0.0 mx.test.example Bye"
            assert await peer.reply() == "", "close_notify: nobody cut the connection short"
            assert not harness.events("tls-failed")

    run(main())


def test_what_a_message_asks_of_tls_is_kept_with_it(tmp_path: Path) -> None:
    """RFC 8689: the parameter, the field, and that the field means nothing next to the parameter."""

    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            wanted = []
            for parameter in (b"", b" REQUIRETLS"):
                for field in (b"Subject: x\r\n", b"TLS-Required: No\r\n"):
                    peer.say(b"MAIL FROM:<a@x.example>" + parameter + b"\r\n")
                    assert (await peer.reply()).startswith("250")
                    peer.say(b"RCPT TO:<b@y.example>\r\n")
                    assert (await peer.reply()).startswith("250")
                    assert (await peer.ask(b"DATA\r\n")).startswith("354")
                    reply = await peer.ask(field + b"\r\nx\r\n.\r\n")
                    found = show(harness.scheduler, id_number(reply.rpartition(" ")[2]) or 0)
                    assert found is not None
                    wanted.append(found.get("tls"))
            assert wanted == [None, "optional", "required", "required"]

    run(main())


def test_a_listener_that_does_not_heed_the_field_passes_it_on(tmp_path: Path) -> None:
    """RFC 8689 §3: TLS-Required: No lets a message go unprotected, which is not for every client to say."""

    async def main() -> None:
        options = ExtensionOptions(tls_required_field=False)
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path), extensions=options) as harness:
            peer = await TlsPeer.started(harness.port)
            wanted = []
            for parameter in (b"", b" REQUIRETLS"):
                for command in (b"MAIL FROM:<a@x.example>" + parameter, b"RCPT TO:<b@y.example>", b"DATA"):
                    assert (await peer.ask(command + b"\r\n"))[:1] in "23"
                reply = await peer.ask(b"TLS-Required: No\r\n\r\nx\r\n.\r\n")
                found = show(harness.scheduler, id_number(reply.rpartition(" ")[2]) or 0)
                assert found is not None
                wanted.append(found.get("tls"))
            assert wanted == [None, "required"]
        for _, body in await stored_messages(tmp_path):
            assert b"\r\nTLS-Required: No\r\n\r\nx\r\n" in body

    run(main())


def test_tls_from_the_first_octet(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, implicit=True, required=True)) as harness:
            peer = await TlsPeer.connect(harness.port)
            assert (await peer.reply()).startswith("220 mx.test.example ")
            peer.say(b"EHLO client.example\r\n")
            assert await peer.reply() == "250 HELP"
            assert (await peer.ask(b"STARTTLS\r\n")).startswith("503 5.5.1")
            assert (await send(peer)).startswith("250 ")

    run(main())


def test_the_trace_field_tells_protocol_version_and_cipher(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            context = client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            peer = await TlsPeer.started(harness.port, context)
            peer.say(b"MAIL FROM:<a@x.example> SMTPUTF8\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
            assert (await peer.replies(3))[2].startswith("354")
            assert (await peer.ask(MESSAGE + b".\r\n")).startswith("250")
            (received,) = harness.events("received")
            assert (received["protocol"], received["tls"]) == ("UTF8SMTPS", "TLSv1.2")
            assert received["cipher"].startswith("TLS_ECDHE_ECDSA_WITH_")
            stored = b"".join(path.read_bytes() for path in (tmp_path / "00").iterdir() if path.is_file())
            trace = re.search(rb" with UTF8SMTPS id \w+(.*?)\r\n\tfor <b@y", stored, re.DOTALL)
            assert trace is not None
            assert trace[1] == f"\r\n\t(version=TLSv1.2 cipher={received['cipher']})".encode()

    run(main())


def test_mail_in_clear_is_refused_where_tls_is_required(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, required=True)) as harness:
            plain = await SmtpPeer.greeted(harness.port)
            assert (await plain.ask(b"MAIL FROM:<a@x.example>\r\n")).startswith("530 5.7.0")
            peer = await TlsPeer.started(harness.port)
            assert (await send(peer)).startswith("250")

    run(main())


def test_without_a_loaded_certificate_tls_is_not_available_now(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            context = harness.listeners[0].context
            harness.listeners[0].apply("mx.test.example", context.options, None)
            plain = await SmtpPeer.greeted(harness.port)
            assert (await plain.ask(b"STARTTLS\r\n")).startswith("454 4.7.0")
            await plain.open_data()
            assert (await plain.ask(MESSAGE + b".\r\n")).startswith("250")

    run(main())


# What must not pass ---------------------------------------------------------------------------------------------------


def test_octets_injected_behind_starttls_end_the_connection_before_the_handshake(tmp_path: Path) -> None:
    """CVE-2011-0411: in one segment with STARTTLS, they would be answered as if they had come under TLS."""

    async def main() -> None:
        before = counted("angarium_in_starttls_injections_total")
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            plain = await SmtpPeer.greeted(harness.port)
            plain.say(b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\n")
            rest = await plain.rest()
            assert rest == b"554 5.5.0 Octets in clear behind STARTTLS, closing\r\n"
            (told,) = harness.events("rejected")
            assert (told["verb"], told["code"]) == ("STARTTLS", 554)
            assert counted("angarium_in_starttls_injections_total") == before + 1

    run(main())


def test_octets_in_clear_that_come_later_fail_the_handshake_and_are_never_read_as_commands(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            plain = await SmtpPeer.greeted(harness.port)
            assert (await plain.ask(b"STARTTLS\r\n")).startswith("220")
            plain.say(b"EHLO evil.example\r\nMAIL FROM:<evil@x.example>\r\n")
            rest = await plain.rest()
            assert not re.search(rb"^[2-5]\d\d[ -]", rest, re.MULTILINE), "an alert at most"
            (failed,) = harness.events("tls-failed")
            assert failed["client"] == "127.0.0.1"
            assert failed["reason"] == "wrong version number"

    run(main())


def test_nothing_is_said_in_clear_behind_the_220(tmp_path: Path) -> None:
    """The reply side of the same attack: a client must not take an injected reply for one under TLS."""

    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            plain = await SmtpPeer.greeted(harness.port)
            plain.say(b"RSET\r\nSTARTTLS\r\n")
            assert [reply[:3] for reply in await plain.replies(2)] == ["250", "220"]
            peer = TlsPeer(plain)
            await peer.handshake()
            assert (await peer.ask(b"EHLO client.example\r\n")).startswith("250 "), "the next reply is this one's"

    run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, implicit=True)) as harness:
            context = client_context()
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                await TlsPeer.connect(harness.port, context)
            await harness.until(lambda: harness.events("tls-failed"))
            assert harness.events("tls-failed")[0]["reason"] == "unsupported protocol"

    run(main())


def test_min_version_13_refuses_12(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, implicit=True, min_version="1.3")) as harness:
            context = client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                await TlsPeer.connect(harness.port, context)

    run(main())


def test_weak_ciphers_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, implicit=True)) as harness:
            for ciphers in ("AES128-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"):
                context = client_context()
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers(ciphers)
                with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
                    await TlsPeer.connect(harness.port, context)

    run(main())


def test_a_changed_record_ends_the_connection_and_what_came_with_it_counts_for_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            await peer.open_data()
            good, bad = peer.seal(MESSAGE + b".\r\n"), bytearray(peer.seal(b"NOOP\r\n"))
            bad[-1] ^= 1
            peer.send(good + bytes(bad))
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
                await peer.reply()
            (failed,) = harness.events("tls-failed")
            assert "decryption failed" in failed["reason"]
            peer.plain.cut()
            await harness.until(lambda: not harness.intake.clients and not harness.intake.committing)
            assert not harness.events("received")

    run(main())


# What is chosen -------------------------------------------------------------------------------------------------------


def test_the_certificate_is_chosen_by_the_name_asked_for(tmp_path: Path) -> None:
    names = ["mx.test.example", "*.wild.example", "other.example"]
    files = [write(tmp_path, certificate(name), f"c{index}") for index, name in enumerate(names)]
    expected = {
        "mx.test.example": 0, "OTHER.example": 2, "a.wild.example": 1,
        "a.b.wild.example": 0, "wild.example": 0, "unknown.example": 0, None: 0,
    }  # fmt: skip

    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, certificates=files, implicit=True)) as harness:
            for name, index in expected.items():
                context = client_context()
                context.check_hostname = False
                peer = await TlsPeer.connect(harness.port, context, name=name)
                assert peer.tls.getpeercert(binary_form=True) == der(certificate(names[index])), name

    run(main())


def test_rsa_and_ecdsa_side_by_side_for_each_name(tmp_path: Path) -> None:
    kinds = [(name, kind) for name in ("mx.test.example", "other.example") for kind in ("RSA", "ECDSA")]
    files = [write(tmp_path, certificate(*each), f"c{index}") for index, each in enumerate(kinds)]

    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, certificates=files, implicit=True)) as harness:
            for name, kind in [*kinds, (None, "RSA"), (None, "ECDSA")]:
                context = client_context()
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
                peer = await TlsPeer.connect(harness.port, context, name=name)
                expected = certificate(name or "mx.test.example", kind)
                assert peer.tls.getpeercert(binary_form=True) == der(expected), (name, kind)

    run(main())


def test_alpn(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, implicit=True)) as harness:
            context = client_context()
            context.set_alpn_protocols(["h2", "smtp"])
            assert (await TlsPeer.connect(harness.port, context)).tls.selected_alpn_protocol() == "smtp"
            context.set_alpn_protocols(["h2", "http/1.1"])
            with pytest.raises(ssl.SSLError, match="no application protocol"):
                await TlsPeer.connect(harness.port, context)

    run(main())


def test_a_session_is_resumed_by_ticket_and_over_one_rotation_of_the_key_only(tmp_path: Path) -> None:
    async def resumed(harness: IntakeHarness, context: ssl.SSLContext, session: ssl.SSLSession | None) -> TlsPeer:
        return await TlsPeer.started(harness.port, context, session=session)

    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = client_context()
                context.minimum_version = context.maximum_version = version
                first = await resumed(harness, context, None)
                assert not first.tls.session_reused
                ticket = first.tls.session
                assert ticket is not None
                again = await resumed(harness, context, ticket)
                assert again.tls.session_reused, version
                harness.tickets.rotate()
                assert (await resumed(harness, context, again.tls.session)).tls.session_reused
                old = again.tls.session
                harness.tickets.rotate()
                assert not (await resumed(harness, context, old)).tls.session_reused

    run(main())


# How octets arrive ----------------------------------------------------------------------------------------------------


def test_octet_by_octet(tmp_path: Path) -> None:
    """Handshake and all: no cut changes what is understood."""

    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            plain = await SmtpPeer.greeted(harness.port)
            assert (await plain.ask(b"STARTTLS\r\n")).startswith("220")
            peer = TlsPeer(plain)
            pieces: list[asyncio.Task[None]] = []

            async def dribble(octets: bytes) -> None:
                for index in range(len(octets)):
                    plain.say(octets[index : index + 1])
                    await asyncio.sleep(0)

            peer.send = lambda octets: pieces.append(asyncio.ensure_future(chain(list(pieces), dribble, octets)))
            await peer.handshake()
            for octet in b"EHLO client.example\r\n":
                peer.say(bytes([octet]))
            assert (await peer.reply()).startswith("250 ")
            assert (await send(peer, b"x\r\n")).startswith("250 ")

    async def chain(before: list[asyncio.Task[None]], dribble: Any, octets: bytes) -> None:
        if before:
            await before[-1]
        await dribble(octets)

    run(main())


@pytest.mark.parametrize("record_octets", [1, 100, 10_000, 16_384])
def test_records_of_any_size(tmp_path: Path, record_octets: int) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            message = MESSAGE if record_octets < 100 else MESSAGE * 60
            await peer.open_data()
            text = message + b".\r\n"
            sealed = [peer.seal(text[at : at + record_octets]) for at in range(0, len(text), record_octets)]
            peer.send(b"".join(sealed))
            assert (await peer.reply()).startswith("250 ")
            assert harness.events("received")[0]["octets"] > len(message)

    run(main())


@pytest.mark.parametrize("by", ["DATA", "BDAT"])
def test_a_large_message_is_streamed_whatever_the_cuts(tmp_path: Path, by: str) -> None:
    line = b"".join(bytes([32 + number % 90]) * 70 + b"\r\n" for number in range(100))
    body = line * 150
    chance = random.Random(by)

    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            for _ in range(3):
                if by == "DATA":
                    await peer.open_data()
                    sealed = peer.seal(body + b".\r\n")
                else:
                    peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
                    await peer.replies(2)
                    sealed = peer.seal(b"BDAT %d LAST\r\n" % len(body) + body)
                at = 0
                while at < len(sealed):
                    step = chance.choice([1, 7, 1000, 16_384, 16_406, 60_000, 300_000])
                    peer.send(sealed[at : at + step])
                    at += step
                    await asyncio.sleep(0)
                assert (await peer.reply()).startswith("250 ")
            octets = {event["octets"] for event in harness.events("received")}
            assert len(octets) == 1
            assert octets.pop() > len(body)

    run(main())


# Its end --------------------------------------------------------------------------------------------------------------


def test_a_handshake_that_stalls_is_ended_by_its_deadline(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, handshake_timeout="10s")) as harness:
            plain = await SmtpPeer.greeted(harness.port)
            assert (await plain.ask(b"STARTTLS\r\n")).startswith("220")
            peer = TlsPeer(plain)
            held: list[bytes] = []
            peer.send = held.append
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            hello = peer.outgoing.read()
            for second in range(10):
                # An octet a second gains no time: the deadline is for the whole.
                plain.say(hello[second : second + 1])
                await asyncio.sleep(0.01)
                assert not harness.events("tls-failed"), second
                harness.wheel.advance_by_ms(1_000)
            harness.wheel.advance_by_ms(200)
            assert await plain.rest() == b""
            (failed,) = harness.events("tls-failed")
            assert failed["reason"] == "handshake timed out"

    run(main())


def test_a_client_that_goes_away_in_the_handshake_is_told_of_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, implicit=True)) as harness:
            plain = await SmtpPeer.connect(harness.port)
            plain.say(b"\x16\x03\x01")
            plain.writer.write_eof()
            await harness.until(lambda: harness.events("tls-failed"))
            assert await plain.rest() == b""
            await harness.until(lambda: not harness.intake.clients)
            assert [event["reason"] for event in harness.events("tls-failed")] == ["connection closed in the handshake"]

    run(main())


def test_a_client_that_says_close_notify_behind_its_message_still_gets_its_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            await peer.open_data()
            last = peer.seal(MESSAGE + b".\r\n")
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.unwrap()
            peer.send(last + peer.outgoing.read())
            assert (await peer.reply()).startswith("250 ")
            assert await peer.reply() == ""
            await harness.until(lambda: not harness.intake.clients)

    run(main())


def test_a_client_that_shuts_its_side_behind_its_message_still_gets_its_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            await peer.open_data()
            peer.say(MESSAGE + b".\r\n")
            peer.plain.writer.write_eof()
            assert (await peer.reply()).startswith("250 ")
            assert await peer.reply() == ""
            assert not harness.events("tls-failed")

    run(main())


def test_shutdown_ends_idle_sessions_under_tls_with_421(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            shaking = await SmtpPeer.greeted(harness.port)
            assert (await shaking.ask(b"STARTTLS\r\n")).startswith("220")
            harness.intake.drain()
            assert (await peer.reply()).startswith("421 4.3.2")
            assert await peer.reply() == ""
            assert await shaking.rest() == b"", "in the middle of a handshake nothing can be said"

    run(main())


def test_who_is_turned_away_from_implicit_tls_is_told_nothing_in_clear(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, implicit=True), max_sessions=1) as harness:
            first = await TlsPeer.connect(harness.port)
            assert (await first.reply()).startswith("220")
            assert await (await SmtpPeer.connect(harness.port)).rest() == b""

    run(main())


def test_sessions_under_way_keep_their_certificates_when_others_are_loaded(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path)) as harness:
            context = harness.listeners[0].context
            old = await TlsPeer.started(harness.port)
            await old.open_data()
            write(tmp_path, certificate("mx.test.example", "RSA"), "mx")
            assert context.options.tls is not None
            context.replace_certificates(load(context.options.tls, harness.tickets))
            new = await TlsPeer.started(harness.port)
            assert new.tls.getpeercert(binary_form=True) == der(certificate("mx.test.example", "RSA"))
            assert old.tls.getpeercert(binary_form=True) == der(certificate("mx.test.example"))
            assert (await old.ask(MESSAGE + b".\r\n")).startswith("250")
            assert (await send(new)).startswith("250")

    run(main())
