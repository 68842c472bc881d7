"""RCPT and MAIL under [domain.*], [recipients] and [[bcc]]: what clients hear, and what the envelope says."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.recipients import RecipientJudge, own_domain_keys
from angarium.model.plan import Host, Plan, Site
from angarium.model.units import decode_unit
from angarium.recipients.options import BccOptions, DomainOptions, RecipientsOptions
from angarium.tls.terms import TlsTerms

USERS = "bob\ncarol\ntwin\n"
ALIASES = """\
twin@ours.example     twin@ours.example, carol@ours.example
info@ours.example     bob@ours.example, carol@ours.example, dave@else.example
out@ours.example      dave@else.example
drop@ours.example     discard:
broken@ours.example   "
"""
ALL_OURS = {"ours.example": {"recipients": ["file:@DIR@/users"]}}
MESSAGE = b"Subject: x\r\n\r\nhello\r\n.\r\n"


class NextHop:
    """What is asked ahead: knows `known`, says `replies` of a verb instead of 250."""

    def __init__(self, protocol: str = "smtp") -> None:
        self.protocol = protocol
        self.known = {"<bob@ours.example>"}
        self.replies: dict[bytes, bytes] = {}
        self.asked: list[str] = []
        self.sessions = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.close()

    async def plan(self, domain: bytes) -> Plan:
        site = Site("hop", self.protocol, (Host("hop", ("127.0.0.1",), self.port),))  # type: ignore[arg-type]
        return Plan(site, float("inf"))

    async def terms(self, site: Site) -> TlsTerms:
        return TlsTerms()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        writer.write(self.replies.get(b"", b"220 hop.example\r\n"))
        while line := await reader.readline():
            verb = line[:4]
            reply = self.replies.get(verb, b"250-ok\r\n250 2.0.0 ok\r\n")
            if verb == b"RCPT":
                path = line.decode().removeprefix("RCPT TO:").strip()
                self.asked.append(path)
                await self.go_on.wait()
                if path not in self.known and verb not in self.replies:
                    reply = b"550 5.1.1 who?\r\n"
            writer.write(reply)
            if verb == b"QUIT":
                break
        writer.close()


@asynccontextmanager
async def recipients_of(
    folder: Path,
    domains: dict[str, dict[str, Any]] | None = None,
    *,
    hop: NextHop | None = None,
    bcc: list[dict[str, str]] | None = None,
    listener: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[IntakeHarness, SmtpPeer]]:
    """A listener that may relay for nobody but our domains, and a client that has been greeted."""
    (folder / "users").write_text(USERS)
    (folder / "aliases").write_text(ALIASES)
    (folder / "senders").write_text("bob@ours.example robert@ours.example\n")
    options = {"aliases": ["file:@DIR@/aliases"], **options}
    text = msgspec.json.encode([domains or ALL_OURS, options, bcc or []]).replace(b"@DIR@", str(folder).encode())
    kind = tuple[dict[str, DomainOptions], RecipientsOptions, list[BccOptions]]
    own, made, copies = msgspec.convert(msgspec.json.decode(text), kind, dec_hook=decode_unit)
    hop = hop or NextHop()
    async with intake_harness(folder, **(listener or {"relay_from": []})) as harness:
        judge = RecipientJudge(harness.loop, harness.journal, HOSTNAME)
        await judge.apply(own, made, copies, hop.plan, hop.terms)
        harness.intake.appointing = (judge.judges_of,)
        harness.intake.own_domains = own_domain_keys(own)
        harness.listeners[0].apply(HOSTNAME, harness.listeners[0].context.options)
        yield harness, await SmtpPeer.greeted(harness.port)
        judge.close()


async def rcpt(peer: SmtpPeer, path: str, parameters: str = "") -> str:
    return await peer.ask(f"RCPT TO:<{path}>{parameters}\r\n".encode())


async def queued(harness: IntakeHarness, peer: SmtpPeer) -> list[tuple[str, str, int]]:
    """Ends the transaction; forward-path, ORCPT and NOTIFY of all recipients as the envelope has them."""
    assert (await peer.ask(b"DATA\r\n"))[:3] == "354"
    assert (await peer.ask(MESSAGE))[:3] == "250"
    envelope = harness.last_envelope()
    return [(each.forward_path.decode(), each.orcpt.decode(), each.notify) for each in envelope.recipients]


def test_unknown_recipients_are_refused_in_the_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with recipients_of(tmp_path) as (harness, peer):
            peer.say(
                b"MAIL FROM:<a@x.example>\r\nRCPT TO:<eve@ours.example>\r\nRCPT TO:<BOB@Ours.Example>\r\n"
                b"RCPT TO:<bob+tag@ours.example>\r\nRCPT TO:<bob@else.example>\r\n"
            )
            replies = await peer.replies(5)
            assert [reply[:9] for reply in replies] == [
                "250 2.1.0", "550 5.1.1", "250 2.1.5", "250 2.1.5", "550 5.7.1",
            ]  # fmt: skip
            assert await queued(harness, peer) == [("BOB@Ours.Example", "", 0), ("bob+tag@ours.example", "", 0)]

    run(main())


@pytest.mark.parametrize(
    "path",
    [
        '"victim@else.example"@ours.example',
        "victim%else.example@ours.example",
        "else.example!victim@ours.example",
        "@ours.example:victim@else.example",
        "@ours.example,@else.example:victim@else.example",
        '"victim@else.example\\"@ours.example',
        "victim@else.example@ours.example",
    ],
)
def test_quoted_local_part_source_route_and_percent_hack_do_not_relay(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with recipients_of(tmp_path) as (_, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, path))[0] == "5"
            assert (await rcpt(peer, path.replace("ours.example", "OURS.example.")))[0] == "5"
            assert (await peer.ask(b"DATA\r\n"))[:3] == "554"

    run(main())


@pytest.mark.parametrize("path", ['"victim@else.example"@ours.example', "victim%else.example@ours.example"])
def test_quoted_local_part_does_not_relay_where_everybody_is_taken(tmp_path: Path, path: str) -> None:
    """Nobody is called that, and who is behind us might take part of the name for a domain."""

    async def main() -> None:
        domains = {"ours.example": {}, "old.example": {"alias_of": "ours.example"}}
        async with recipients_of(tmp_path, domains) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, path))[:9] == "550 5.7.1"
            assert (await rcpt(peer, path.replace("ours", "old")))[:9] == "550 5.7.1"
            assert (await rcpt(peer, "anybody@ours.example"))[:3] == "250"
            assert [each[0] for each in await queued(harness, peer)] == ["anybody@ours.example"]

    run(main())


def test_alias_out_of_our_domain_is_allowed_and_the_same_mailbox_directly_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with recipients_of(tmp_path) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, "dave@else.example"))[:9] == "550 5.7.1"
            assert (await rcpt(peer, "out@ours.example"))[:3] == "250"
            assert await queued(harness, peer) == [("dave@else.example", "rfc822;out@ours.example", 0)]

    run(main())


def test_expansion_keeps_orcpt_and_tells_success_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with recipients_of(tmp_path) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            await rcpt(peer, "info@ours.example", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;i@list.example")
            await rcpt(peer, "out@ours.example", " NOTIFY=SUCCESS")
            orcpt = "rfc822;i@list.example"
            assert await queued(harness, peer) == [
                ("info@ours.example", orcpt, 2 | 16),
                ("bob@ours.example", orcpt, 4),
                ("carol@ours.example", orcpt, 4),
                ("dave@else.example", orcpt, 4),            # and not again for the second alias
            ]

    run(main())


def test_an_alias_that_names_itself_is_told_as_expanded_and_still_gets_its_mail(tmp_path: Path) -> None:
    async def main() -> None:
        async with recipients_of(tmp_path) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            await rcpt(peer, "twin@ours.example", " NOTIFY=SUCCESS")
            assert await queued(harness, peer) == [
                ("twin@ours.example", "", 2 | 16),
                ("twin@ours.example", "rfc822;twin@ours.example", 1),
                ("carol@ours.example", "rfc822;twin@ours.example", 1),
            ]

    run(main())


def test_trouble_with_a_map_is_temporary_and_logged(tmp_path: Path) -> None:
    async def main() -> None:
        async with recipients_of(tmp_path) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, "broken@ours.example"))[:9] == "451 4.3.0"
            assert "is not a mailbox" in harness.events("recipient-trouble")[0]["reason"]

    run(main())


def test_more_recipients_than_a_message_may_have_are_put_off(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "long").write_text("all@ours.example " + " ".join(f"m{n}@e.example" for n in range(60)) + "\n")
        async with recipients_of(tmp_path, aliases=["file:@DIR@/long"], max_recipients=100) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, "all@ours.example"))[:3] == "250"
            assert (await rcpt(peer, "all@ours.example"))[:9] == "452 4.5.3"
            assert len(await queued(harness, peer)) == 60

    run(main())


def test_a_discarded_recipient_is_taken_and_nobody_gets_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with recipients_of(tmp_path) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, "drop@ours.example"))[:3] == "250"
            assert (await peer.ask(b"DATA\r\n"))[:3] == "354"
            assert (await peer.ask(MESSAGE))[:3] == "250"
            assert len(harness.events("discarded")) == 1

    run(main())


def test_sender_is_rewritten_in_the_envelope(tmp_path: Path) -> None:
    async def main() -> None:
        async with recipients_of(tmp_path, senders=["file:@DIR@/senders"]) as (harness, peer):
            for sender in (b"Bob@ours.example", b"eve@ours.example", b""):
                await peer.ask(b"MAIL FROM:<" + sender + b"> ENVID=x\r\n")
                await rcpt(peer, "carol@ours.example")
                await queued(harness, peer)
            froms = [event["from"] for event in harness.events("received")]
            assert froms == ["robert@ours.example", "eve@ours.example", ""]

    run(main())


def test_copies_are_recipients_of_whom_nobody_hears(tmp_path: Path) -> None:
    async def main() -> None:
        rules = [
            {"to": "all@arc.example"},
            {"to": "to@arc.example", "recipient": "ours.example", "sender": "y.example"},
            {"to": "to@arc.example", "recipient": "carol@ours.example"},
            {"to": "to@arc.example", "recipient": "carol+again@ours.example"},
        ]
        async with recipients_of(tmp_path, bcc=rules) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, "eve@ours.example"))[:3] == "550"
            await rcpt(peer, "out@ours.example")
            await rcpt(peer, "carol@ours.example", " NOTIFY=SUCCESS")
            await rcpt(peer, "carol+again@ours.example")
            assert await queued(harness, peer) == [
                ("dave@else.example", "rfc822;out@ours.example", 0),
                ("all@arc.example", "", 1),
                ("carol@ours.example", "", 2),
                ("to@arc.example", "", 1),
                ("carol+again@ours.example", "", 0),
            ]

    run(main())


ASKED = {"ours.example": {"recipients": ["call-ahead"]}}


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_next_hop_is_asked_once_for_each_mailbox(tmp_path: Path, protocol: str) -> None:
    async def main() -> None:
        hop = NextHop(protocol)
        await hop.start()
        async with recipients_of(tmp_path, ASKED, hop=hop) as (_, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            for _ in range(2):
                assert (await rcpt(peer, "bob@ours.example"))[:9] == "250 2.1.5"
                assert (await rcpt(peer, '"bob"@OURS.example'))[:9] == "250 2.1.5"
                assert (await rcpt(peer, "eve@ours.example"))[:9] == "550 5.1.1"
            assert hop.asked == ["<bob@ours.example>", "<eve@ours.example>"]
        hop.stop()

    run(main())


def test_many_who_ask_for_one_mailbox_wait_for_one_answer(tmp_path: Path) -> None:
    async def main() -> None:
        hop = NextHop()
        await hop.start()
        hop.go_on.clear()
        async with recipients_of(tmp_path, ASKED, hop=hop) as (harness, peer):
            peers = [peer, *[await SmtpPeer.greeted(harness.port) for _ in range(9)]]
            for each in peers:
                each.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<bob@ours.example>\r\n")
            await harness.until(lambda: hop.asked)
            for each in peers:
                assert (await each.reply())[:3] == "250"
            # The one who asked first leaves; the others get their answer all the same.
            raw = peers[0].writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peers[0].cut()
            await harness.until(lambda: len(harness.intake.clients) == 9)
            hop.go_on.set()
            for each in peers[1:]:
                assert (await each.reply())[:9] == "250 2.1.5"
            assert hop.sessions == 1
        hop.stop()

    run(main())


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        (b"", b"554 5.3.2 not now\r\n"),
        (b"", b"rubbish\r\n"),
        (b"", b"220-" + b"x" * 600 + b"\r\n"),
        (b"MAIL", b"550 5.7.1 not you\r\n"),
        (b"RCPT", b"451 4.3.0 later\r\n"),
    ],
)
def test_a_next_hop_that_says_neither_yes_nor_no_is_asked_again_later(
    tmp_path: Path, verb: bytes, reply: bytes
) -> None:
    async def main() -> None:
        hop = NextHop()
        hop.replies[verb] = reply
        await hop.start()
        async with recipients_of(tmp_path, ASKED, hop=hop) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, "bob@ours.example"))[:9] == "451 4.4.1"
            assert len(harness.events("call-ahead-failed")) == 1
            hop.replies.clear()
            assert (await rcpt(peer, "bob@ours.example"))[:9] == "250 2.1.5"
        hop.stop()

    run(main())


def test_a_next_hop_that_is_away_defers_or_accepts_as_told(tmp_path: Path) -> None:
    async def main() -> None:
        hop = NextHop()
        await hop.start()
        hop.stop()
        for on_trouble, code in (("defer", "451"), ("accept", "250")):
            folder = tmp_path / on_trouble
            folder.mkdir()
            options = {"on_trouble": on_trouble}
            async with recipients_of(folder, ASKED, hop=hop, call_ahead=options) as (_, peer):
                await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
                assert (await rcpt(peer, "bob@ours.example"))[:3] == code

    run(main())


def test_a_silent_next_hop_is_given_up_in_time(tmp_path: Path) -> None:
    async def main() -> None:
        hop = NextHop()
        await hop.start()
        hop.go_on.clear()
        async with recipients_of(tmp_path, ASKED, hop=hop, call_ahead={"timeout": "1s"}) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await rcpt(peer, "bob@ours.example"))[:9] == "451 4.4.1"
            assert harness.events("call-ahead-failed")[0]["reason"] == "no answer in time"
        hop.go_on.set()
        hop.stop()

    run(main())


def test_catch_all_gets_what_the_next_hop_does_not_know(tmp_path: Path) -> None:
    async def main() -> None:
        hop = NextHop()
        await hop.start()
        domains = {"ours.example": {"recipients": ["call-ahead"], "catch_all": "post@ours.example"}}
        async with recipients_of(tmp_path, domains, hop=hop) as (harness, peer):
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            await rcpt(peer, "bob@ours.example")
            await rcpt(peer, "eve@ours.example")
            assert [each[0] for each in await queued(harness, peer)] == ["bob@ours.example", "post@ours.example"]
        hop.stop()

    run(main())
