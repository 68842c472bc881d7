"""What each kind of listener offers, by docs/extensions.md's table; and what is switched off is not known either."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from inbound.auth_harness import auth_harness, plain
from inbound.intake_harness import HOSTNAME, intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_messages_in import stored_messages, without_trace
from inbound.tls_peer import TlsPeer
from tls.authority import listener_tls

from angarium.inbound.extensions import DEFAULTS, ExtensionOptions
from angarium.inbound.kinds import Kind
from angarium.inbound.options import ListenerAuthOptions, ListenerOptions
from angarium.model.units import Duration, decode_unit

PAGE = Path(__file__).parents[2] / "docs" / "extensions.md"
HEAD = "| extension | RFC | parameter or command | switch | smtp | submission | submissions | lmtp |\n"
KINDS: tuple[Kind, ...] = get_args(Kind)
# What is not announced, and by what it is known that it is there.
COMMANDS = {"VRFY": b"VRFY x\r\n", "ETRN": b"ETRN x.example\r\n", "XCLIENT": b"XCLIENT NAME=x\r\n",
            "XFORWARD": b"XFORWARD NAME=x\r\n"}  # fmt: skip


def table() -> dict[str, list[str]]:
    """Extension: its cells behind the name."""
    rows = PAGE.read_text().partition(HEAD)[2].partition("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: row[1:] for row in cells}


def offered(kind: Kind) -> dict[str, str]:
    return {name: cells[3 + KINDS.index(kind)] for name, cells in table().items()}


def words(reply: bytes) -> set[str]:
    return {line[4:].split()[0].decode() for line in reply.splitlines()[1:]} - {"HELP"}


async def said(peer: SmtpPeer, command: bytes) -> bytes:
    peer.say(command)
    reply = b""
    while not re.search(rb"^\d\d\d .*\r\n", reply, re.MULTILINE):
        reply += await peer.reader.readline()
    return reply


async def said_under_tls(peer: TlsPeer, command: bytes) -> bytes:
    peer.say(command)
    while not re.search(rb"^\d\d\d .*\r\n", peer._opened, re.MULTILINE):
        await peer._more()
    reply, peer._opened = peer._opened, b""
    return reply


async def keywords(port: int, kind: Kind, has_tls: bool) -> tuple[set[str], set[str]]:
    """Announced in clear and under TLS."""
    hello = (b"LHLO" if kind == "lmtp" else b"EHLO") + b" client.example\r\n"
    plain = await SmtpPeer.connect(port)
    in_clear: set[str] = set()
    if kind != "submissions":
        await plain.reply()
        in_clear = words(await said(plain, hello))
        if not has_tls:
            return in_clear, set()
        assert (await plain.ask(b"STARTTLS\r\n"))[:3] == "220"
    peer = TlsPeer(plain)
    await peer.handshake()
    if kind == "submissions":
        assert (await peer.reply())[:3] == "220"
    return in_clear, words(await said_under_tls(peer, hello))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_tls", [True, False], ids=["tls", "clear"])
def test_a_kind_offers_by_itself_what_the_page_says(tmp_path: Path, kind: Kind, has_tls: bool) -> None:
    if not has_tls and kind in ("submission", "submissions"):
        pytest.skip("these need TLS")

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            tls = {"tls": listener_tls(tmp_path)} if has_tls else {}
            listener = await harness.listen(protocol=kind, relay_from=[], **tls)
            in_clear, under_tls = await keywords(listener.context.options.address.port, kind, has_tls)
        assert in_clear | under_tls <= set(table()), "the page has all that is announced"
        for name, cell in offered(kind).items():
            if name in {*COMMANDS, "PROXY", "TLS-Required"}:
                assert name not in in_clear | under_tls
                continue
            is_there = cell in ("yes", "always") or (cell == "with `tls`" and has_tls)
            assert (name in in_clear | under_tls) == is_there, name
            if name in ("REQUIRETLS", "AUTH"):
                assert name not in in_clear
            elif name == "STARTTLS":
                assert name not in under_tls

    run(main())


@pytest.mark.parametrize("kind", ["smtp", "lmtp"])
def test_commands_of_a_kind_are_known_as_the_page_says(tmp_path: Path, kind: Kind) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, protocol=kind) as harness:
            hello = (b"LHLO" if kind == "lmtp" else b"EHLO") + b" client.example\r\n"
            peer = await SmtpPeer.greeted(harness.port, hello)
            for name, command in COMMANDS.items():
                code = "252" if offered(kind)[name] == "yes" else "502"
                assert (await peer.ask(command))[:3] == code, name

    run(main())


def test_every_switch_of_the_page_is_a_key_and_every_key_is_on_it() -> None:
    keys = {f"extensions.{key}" for key in ExtensionOptions.__struct_fields__}
    found: set[str] = set()
    for cells in table().values():
        for number, key in enumerate(re.findall(r"`([a-z0-9_.]+)`", cells[2])):
            found.add(key if number == 0 else f"extensions.{key}")
    others = {
        "tls.starttls", "tls.requiretls", "auth.offered", "etrn_for", "xclient_from", "xforward_from", "proxy_from",
    }  # fmt: skip
    assert found == keys | others
    assert set(DEFAULTS) == set(KINDS)
    assert {key.partition(".")[0] for key in others} <= set(ListenerOptions.__struct_fields__)


ON: dict[str, Any] = {
    "binarymime": True, "deliver_by": True, "priority": True, "future_release": Duration(3600), "no_soliciting": [],
}  # fmt: skip
NO_8BIT = {"eightbitmime": False, "smtputf8": False, "binarymime": False}
MAIL = b"MAIL FROM:<a@x.example>"


@pytest.mark.parametrize(
    ("keyword", "off", "commands", "codes"),
    [
        ("SIZE", {"size": False}, [MAIL + b" SIZE=10"], ("250", "555 5.5.4")),
        ("8BITMIME", NO_8BIT, [MAIL + b" BODY=8BITMIME"], ("250", "555 5.5.4")),
        ("8BITMIME", NO_8BIT, [MAIL + b" BODY=7BIT"], ("250", "555 5.5.4")),
        ("SMTPUTF8", {"smtputf8": False}, [MAIL + b" SMTPUTF8"], ("250", "555 5.5.4")),
        ("SMTPUTF8", {"smtputf8": False}, ["MAIL FROM:<é@x.example> SMTPUTF8".encode()], ("250", "555 5.5.4")),
        ("BINARYMIME", {"binarymime": False}, [MAIL + b" BODY=BINARYMIME"], ("250", "504 5.5.4")),
        ("DSN", {"dsn": False}, [MAIL + b" RET=HDRS"], ("250", "555 5.5.4")),
        ("DSN", {"dsn": False}, [MAIL + b" ENVID=x"], ("250", "555 5.5.4")),
        ("DSN", {"dsn": False}, [MAIL, b"RCPT TO:<b@y.example> NOTIFY=NEVER"], ("250", "555 5.5.4")),
        ("DSN", {"dsn": False}, [MAIL, b"RCPT TO:<b@y.example> ORCPT=rfc822;b@y.example"], ("250", "555 5.5.4")),
        ("DELIVERBY", {"deliver_by": False}, [MAIL + b" BY=60;R"], ("250", "555 5.5.4")),
        ("FUTURERELEASE", {"future_release": Duration(0)}, [MAIL + b" HOLDFOR=60"], ("250", "555 5.5.4")),
        ("MT-PRIORITY", {"priority": False}, [MAIL + b" MT-PRIORITY=3"], ("250", "555 5.5.4")),
        ("NO-SOLICITING", {"no_soliciting": None}, [MAIL + b" SOLICIT=net.example:ADV"], ("250", "555 5.5.4")),
        ("LIMITS", {"limits": False}, [MAIL], ("250", "250")),
        ("", {"vrfy": False}, [b"VRFY b@y.example"], ("252", "502 5.5.1")),
        ("CHUNKING", {"chunking": False, "binarymime": False}, [MAIL, b"RCPT TO:<b@y.example>", b"BDAT 3 LAST\r\nx"],
         ("250", "502 5.5.1")),
        ("PIPELINING", {"pipelining": False}, [MAIL + b"\r\nRSET"], ("250", "503 5.5.0")),
    ],
)  # fmt: skip
def test_what_is_switched_off_is_neither_offered_nor_taken(
    tmp_path: Path, keyword: str, off: dict[str, Any], commands: list[bytes], codes: tuple[str, str]
) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ExtensionOptions(**ON)) as harness:
            other = await harness.listen(extensions=ExtensionOptions(**{**ON, **off}))
            for port, is_on in ((harness.port, True), (other.context.options.address.port, False)):
                peer = await SmtpPeer.greeted(port)
                said_by_us = words(await said(peer, b"EHLO client.example\r\n"))
                assert not keyword or (keyword in said_by_us) is is_on
                for command in commands[:-1]:
                    assert (await peer.ask(command + b"\r\n"))[:3] == "250"
                code = codes[0] if is_on else codes[1]
                assert (await peer.ask(commands[-1] + b"\r\n"))[: len(code)] == code

    run(main())


@pytest.mark.parametrize(
    ("command", "code"),
    [(b"STARTTLS", "502"), (b"AUTH PLAIN AAAA", "502"), (MAIL + b" AUTH=<>", "555"), (MAIL + b" REQUIRETLS", "555"),
     (b"ETRN x.example", "502"), (b"XCLIENT NAME=x", "502"), (b"XFORWARD NAME=x", "502"), (b"EXPN x", "502")],
)  # fmt: skip
def test_what_is_configured_elsewhere_is_not_known_without(tmp_path: Path, command: bytes, code: str) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(command + b"\r\n"))[:3] == code

    run(main())


@pytest.mark.parametrize("kind", ["smtp", "lmtp"])
def test_a_chunk_that_nobody_wants_is_read_away_and_nothing_in_it_is_a_command(tmp_path: Path, kind: Kind) -> None:
    chunk = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n"

    async def main() -> None:
        extensions = ExtensionOptions(chunking=False)
        async with intake_harness(tmp_path, protocol=kind, extensions=extensions) as harness:
            hello = (b"LHLO" if kind == "lmtp" else b"EHLO") + b" client.example\r\n"
            peer = await SmtpPeer.greeted(harness.port, hello)
            peer.say(MAIL + b"\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\n")
            assert [reply[:3] for reply in await peer.replies(3)] == ["250"] * 3
            peer.say(b"BDAT %d LAST\r\n%b" % (len(chunk), chunk))
            assert (await peer.reply())[:9] == "502 5.5.1"
            # The transaction has failed: what follows of the message finds none.
            assert (await peer.ask(b"DATA\r\n"))[:3] == "503"
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n"))[:3] == "503"
            await harness.until(lambda: harness.intake.active == 0)
            peer.say(MAIL + b"\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
            assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
            assert (await peer.ask(b"Subject: meant\r\n\r\n.\r\n"))[:3] == "250"
        ((envelope, stored),) = await stored_messages(tmp_path)
        assert without_trace(stored) == b"Subject: meant\r\n\r\n"
        assert envelope.reverse_path == b"a@x.example"

    run(main())


@pytest.mark.parametrize("before", [b"", MAIL + b"\r\n"], ids=["outside", "without-recipients"])
def test_a_chunk_is_not_known_whenever_it_comes(tmp_path: Path, before: bytes) -> None:
    """503 would tell the client to try at another time what is not there at any."""

    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ExtensionOptions(chunking=False)) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            if before:
                assert (await peer.ask(before))[:3] == "250"
            assert (await peer.ask(b"BDAT 6 LAST\r\nRSET\r\n"))[:9] == "502 5.5.1"
            assert (await peer.ask(MAIL + b"\r\n"))[:3] == "250"

    run(main())


@pytest.mark.parametrize(
    ("chunk", "is_chunking"),
    [(b"BDAT 3\r\nx\r\n", True), (b"BDAT 3\r\nx\r\n", False), (b"BDAT 3\r\n\n\n\n", True),
     (b"BDAT 3 LAST\r\nx\r\n", False), (b"NOOP " + b"x" * 4000 + b"\r\n", True)],
    ids=["taken", "refused", "bad", "last-refused", "line-too-long"],
)  # fmt: skip
def test_without_pipelining_nothing_behind_a_chunk_or_a_long_line_is_carried_out(
    tmp_path: Path, chunk: bytes, is_chunking: bool
) -> None:
    async def main() -> None:
        extensions = ExtensionOptions(pipelining=False, chunking=is_chunking)
        async with intake_harness(tmp_path, extensions=extensions) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for command in (MAIL, b"RCPT TO:<b@y.example>"):
                assert (await peer.ask(command + b"\r\n"))[:3] == "250"
            peer.say(chunk + b"BDAT 0 LAST\r\n")
            assert await peer.rest() == b"503 5.5.0 Improper pipelining: wait for the reply to this command\r\n"
        assert not await stored_messages(tmp_path)

    run(main())


def test_without_pipelining_nothing_that_was_sent_ahead_is_carried_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ExtensionOptions(pipelining=False)) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(MAIL + b"\r\nRCPT TO:<b@y.example>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n")
            assert (await peer.rest()).startswith(b"503 5.5.0 ")
            peer = await SmtpPeer.greeted(harness.port)
            for command in (MAIL, b"RCPT TO:<b@y.example>", b"BDAT 14 LAST\r\nSubject: x\r\n"):
                assert (await peer.ask(command + b"\r\n"))[:3] == "250", "a chunk belongs to its command"
            assert (await peer.ask(b"QUIT\r\n"))[:3] == "221"

    run(main())


def test_a_reload_takes_pipelining_from_nobody_who_was_offered_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            listener = harness.listeners[0]
            options = msgspec.structs.replace(listener.context.options, extensions=ExtensionOptions(pipelining=False))
            listener.apply(HOSTNAME, options)
            await peer.open_data()
            assert (await peer.ask(b"Subject: x\r\n\r\n.\r\n"))[:3] == "250"
            assert b"PIPELINING" not in await said(peer, b"EHLO client.example\r\n")
            peer.say(b"RSET\r\nRSET\r\n")
            assert (await peer.rest()).startswith(b"503 5.5.0 ")

    run(main())


OFFERED = [
    MAIL + b" SIZE=10", MAIL + b" BODY=8BITMIME", MAIL + b" SMTPUTF8", MAIL + b" BODY=BINARYMIME",
    MAIL + b" RET=HDRS ENVID=x", MAIL + b" BY=60;R", MAIL + b" HOLDFOR=3600",
    MAIL + b" MT-PRIORITY=3", MAIL + b" SOLICIT=net.example:ADV",
    MAIL + b" AUTH=<>",
]  # fmt: skip
ALL_OFF = {
    "size": False, **NO_8BIT, "chunking": False, "dsn": False, "deliver_by": False, "future_release": Duration(0),
    "priority": False, "no_soliciting": None,
}  # fmt: skip


def test_a_reload_takes_nothing_from_sessions_that_were_offered_it(tmp_path: Path) -> None:
    """Connections are kept for many messages by those who deliver here: they were told 5xx for what EHLO had offered,
    and failed the mail."""

    async def main() -> None:
        async with auth_harness(tmp_path, extensions=ExtensionOptions(**ON), relay_to=["y.example"]) as harness:
            listener = harness.listeners[0]
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain()))[:3] == "235"
            other = await SmtpPeer.connect(harness.port)
            await other.reply()
            before = listener.context.options
            off = msgspec.structs.replace(
                before, extensions=ExtensionOptions(**{**ON, **ALL_OFF}), auth=ListenerAuthOptions()
            )
            listener.apply(HOSTNAME, off)
            mail = MAIL.replace(b"<a@", b"<alice@")
            for command in OFFERED:
                assert (await peer.ask(command.replace(MAIL, mail) + b"\r\n"))[:3] == "250", command
                assert (await peer.ask(b"RCPT TO:<b@y.example> NOTIFY=NEVER\r\n"))[:3] == "250"
                assert (await peer.ask(b"RSET\r\n"))[:3] == "250"
            assert (await peer.ask(mail + b"\r\n"))[:3] == "250"
            assert (await peer.ask(b"RCPT TO:<b@y.example> NOTIFY=NEVER\r\n"))[:3] == "250"
            for chunk in (b"BDAT 14\r\nSubject: x\r\n\r\n", b"BDAT 3 LAST\r\nx\r\n"):
                assert (await peer.ask(chunk))[:3] == "250"
            # Who says EHLO now is offered what holds now; and so is who had not said it.
            for one in (peer, other):
                assert not words(await said(one, b"EHLO client.example\r\n")) & {"CHUNKING", "DSN", "FUTURERELEASE"}
                for command in OFFERED:
                    assert (await one.ask(command.replace(MAIL, mail) + b"\r\n"))[:1] == "5", command
            # And what comes back is not lost on who has not said EHLO yet.
            late = await SmtpPeer.connect(harness.port)
            await late.reply()
            listener.apply(HOSTNAME, before)
            assert b"CHUNKING" in await said(late, b"EHLO client.example\r\n")
            assert (await late.ask(MAIL + b" BODY=8BITMIME\r\n"))[:3] == "250"

    run(main())


def test_keywords_that_a_reload_brings_hold_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, extensions=ExtensionOptions(**ON)) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            listener = harness.listeners[0]
            wanted = ExtensionOptions(**{**ON, "no_soliciting": ["net.example:ADV"]})
            listener.apply(HOSTNAME, msgspec.structs.replace(listener.context.options, extensions=wanted))
            assert (await peer.ask(MAIL + b" SOLICIT=net.example:ADV\r\n"))[:9] == "550 5.7.1"

    run(main())


def test_a_message_larger_than_may_be_is_refused_without_size_too(tmp_path: Path) -> None:
    async def main() -> None:
        extensions = ExtensionOptions(size=False)
        async with intake_harness(tmp_path, extensions=extensions, max_message_octets=1 << 16) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            peer.say(100 * (b"x" * 900 + b"\r\n") + b".\r\n")
            assert (await peer.reply())[:3] == "552"

    run(main())


@pytest.mark.parametrize(
    ("listener", "reason"),
    [
        ({"extensions": {"eightbitmime": False}}, "extensions: smtputf8: needs eightbitmime"),
        ({"extensions": {"chunking": False, "binarymime": True}}, "extensions: binarymime: needs chunking"),
        ({"protocol": "lmtp", "extensions": {"pipelining": False}}, "extensions.pipelining: LMTP is never without"),
        ({"protocol": "lmtp", "etrn_for": {"x.example": ["192.0.2.1"]}}, 'etrn_for: only for protocol "smtp"'),
    ],
)
def test_combinations_that_no_client_could_use_are_refused(listener: dict[str, Any], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert({"address": "127.0.0.1:2525", **listener}, ListenerOptions, dec_hook=decode_unit)
    assert reason.removeprefix("extensions: ") in str(refused.value)
