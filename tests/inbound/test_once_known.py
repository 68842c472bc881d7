"""What holds for strangers ends where a client has said who it is; and what is refused counts for nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from inbound.auth_harness import CLEAR, auth_harness, logged_in, plain, write_credentials
from inbound.intake_harness import IntakeHarness, intake_harness, run
from inbound.policy_harness import policy_harness
from inbound.smtp_peer import SmtpPeer
from inbound.test_admission import BAD, LISTED, admitting
from inbound.test_auth_hook import HOOKS, hook_harness
from inbound.test_client_certificates import NOBODY, certificate, client_context, fingerprint
from inbound.test_limits import PUBLIC, refused, set_limits
from inbound.test_tls import listener_tls
from inbound.tls_peer import TlsPeer

from angarium.inbound.authority import Authority
from angarium.inbound.quota import Counts
from angarium.model.units import Duration
from angarium.sasl.options import AuthOptions, QuotaOptions

MAIL, RCPT = b"MAIL FROM:<alice@x.example>\r\n", b"RCPT TO:<b@y.example>\r\n"
LIMITS: dict[str, Any] = {"connections": 1, "messages": "1/h", "recipients": "1/h", "errors": "1/h"}


async def goes_past_limits(peer: SmtpPeer) -> bool:
    """Two of everything."""
    told = []
    for _ in range(2):
        told += [await peer.ask(command) for command in (MAIL, RCPT, b"RSET\r\n", b"WHAT\r\n")]
    return [reply[:3] for reply in told] == ["250", "250", "250", "500"] * 2


def test_limits_for_strangers_end_with_a_login(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            set_limits(harness, LIMITS)
            peer = await logged_in(harness.port)
            other = await SmtpPeer.greeted(harness.port)        # its place among the open ones is free again
            assert await goes_past_limits(peer)
            assert (await other.ask(plain()))[:3] == "235", "nobody has used up anything"

    run(main())


def test_limits_that_count_own_clients_go_on_behind_a_login(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            set_limits(harness, {"recipients": "1/h"}, {"messages": "1/h", "own_clients": True})
            peer = await logged_in(harness.port)
            peer.say(MAIL + RCPT + RCPT + b"RSET\r\n" + MAIL)
            assert [reply[:3] for reply in await peer.replies(5)] == ["250", "250", "250", "250", "450"]

    run(main())


def test_limits_for_strangers_end_with_a_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        leaf = certificate("a.example", ca="stranger")
        tls = listener_tls(tmp_path, relay_certificates=[fingerprint(leaf)])
        async with intake_harness(tmp_path, **NOBODY, tls=tls) as harness:
            set_limits(harness, LIMITS)
            assert await goes_past_limits(await TlsPeer.started(harness.port, client_context(leaf)))
            stranger = await TlsPeer.started(harness.port)
            assert (await stranger.ask(MAIL))[:3] == "250"
            await stranger.ask(b"RSET\r\n")
            assert (await stranger.ask(MAIL))[:3] == "450"

    run(main())


def test_limits_for_strangers_come_back_with_a_reload_that_takes_the_right_away(tmp_path: Path) -> None:
    async def main() -> None:
        leaf = certificate("a.example", ca="stranger")
        tls = listener_tls(tmp_path, relay_certificates=[fingerprint(leaf)])
        async with intake_harness(tmp_path, **NOBODY, tls=tls) as harness:
            set_limits(harness, {"messages": "1/h", "connections": 1})
            peer = await TlsPeer.started(harness.port, client_context(leaf))
            assert await goes_past_limits(peer)
            context = harness.listeners[0].context
            without = await harness.listen(**NOBODY, tls=listener_tls(tmp_path))
            harness.listeners[0].apply("mx.test.example", without.context.options, context.tls)
            told = [(await peer.ask(command))[:3] for command in (b"RSET\r\n", MAIL, b"RSET\r\n", MAIL)]
            assert told == ["250", "250", "250", "450"]
            assert (await refused(harness.port))[:9] == "421 4.7.0", "it counts as open again"

    run(main())


def test_who_logs_in_is_not_kept_waiting_for_the_points_of_its_address(tmp_path: Path) -> None:
    async def main() -> None:
        with DnsServer(LISTED) as dns:
            listener = {"auth": CLEAR, **PUBLIC}
            points = {"dns_list": [BAD], "tarpit_score": 5, "tarpit_delay": "20s"}
            async with admitting(tmp_path, dns, listener, **points) as harness:
                with_alice(harness, tmp_path)
                peer = await SmtpPeer.connect(harness.port)
                await harness.until(lambda: harness.events("scored"))
                for say in (b"", b"EHLO a.example\r\n", plain()):
                    peer.say(say)
                    while not peer.reader._buffer:      # type: ignore[attr-defined]
                        harness.wheel.advance_by_ms(1_000)
                        await asyncio.sleep(0.01)
                    await peer.reply()
                # Else for twenty seconds nothing would come.
                assert (await asyncio.wait_for(peer.ask(MAIL), 10))[:3] == "250"

    run(main())


# ---- what is refused

REFUSING = """
def on_mail(mail):
    if mail.octets == 7:
        return Defer("Not now")

def on_rcpt(rcpt):
    if rcpt.local_part == "no":
        return Reject("No such person", status="5.1.1")
"""


def test_what_a_hook_refuses_takes_nothing_of_a_network(tmp_path: Path) -> None:
    async def main() -> None:
        async with policy_harness(tmp_path, REFUSING, listener=PUBLIC) as harness:
            set_limits(harness, {"messages": "1/h", "recipients": "2/h"})
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(MAIL + b"RCPT TO:<no@y.example>\r\n" * 3 + RCPT * 3)
            assert [reply[:3] for reply in await peer.replies(7)] == ["250", *["550"] * 3, "250", "250", "450"]

    run(main())


def test_what_is_refused_takes_nothing_of_a_quota(tmp_path: Path) -> None:
    async def main() -> None:
        async with hook_harness(tmp_path, HOOKS + REFUSING) as harness:
            authority: Any = harness.intake.authority
            quota = {"*": QuotaOptions(messages_per_hour=1, recipients_per_hour=2)}
            authority.apply(AuthOptions(credentials=authority.options.credentials, quota=quota))
            peer = await logged_in(harness.port)
            later = MAIL.replace(b">", b"> SIZE=7")
            peer.say(later * 3 + MAIL + b"RCPT TO:<no@y.example>\r\n" * 3 + RCPT * 3 + b"RSET\r\n" + MAIL)
            told = [reply[:3] for reply in await peer.replies(12)]
            assert told == [*["451"] * 3, "250", *["550"] * 3, "250", "250", "451", "250", "451"]

    run(main())


# ---- one identity, however it is written

SPELLINGS = ["alice@x.example", "Alice@x.example", "ALICE@X.EXAMPLE"]


def test_spellings_of_an_identity_are_no_more_guesses(tmp_path: Path) -> None:
    async def main() -> None:
        async with hook_harness(tmp_path, "def on_auth(credentials):\n    return None\n") as harness:
            authority: Any = harness.intake.authority
            source = authority.options.credentials
            authority.apply(AuthOptions(credentials=source, failures_per_identity=2, failure_delay=Duration(0)))
            told = []
            for identity in SPELLINGS:
                peer = await SmtpPeer.greeted(harness.port)
                told.append((await peer.ask(plain(identity)))[:3])
            assert told == ["535", "535", "454"]

    run(main())


def test_spellings_of_an_identity_have_one_quota(tmp_path: Path) -> None:
    """Where the source of credentials takes them for one, and does not say how it is written."""
    async def main() -> None:
        hooks = "def on_auth(credentials):\n    return credentials.identity\n"
        async with hook_harness(tmp_path, hooks) as harness:
            authority: Any = harness.intake.authority
            quota = {"Alice@x.example": QuotaOptions(messages_per_hour=2)}
            authority.apply(AuthOptions(credentials=authority.options.credentials, quota=quota))
            told = []
            for identity in SPELLINGS:
                peer = await SmtpPeer.greeted(harness.port)
                assert (await peer.ask(plain(identity)))[:3] == "235"
                told.append((await peer.ask(MAIL))[:3])
            assert told == ["250", "250", "451"]

    run(main())


def test_quotas_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in nothing but case"):
        AuthOptions(quota={"a@x.example": QuotaOptions(), "A@x.example": QuotaOptions()})


def with_alice(harness: IntakeHarness, folder: Path) -> None:
    authority = Authority(harness.loop, harness.journal, Counts())
    authority.apply(AuthOptions(credentials=write_credentials(folder / "credentials", "alice@x.example")))
    harness.intake.authority = authority
    harness.listeners[0].apply("mx.test.example", harness.listeners[0].context.options)
