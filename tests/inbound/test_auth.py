"""AUTH on real connections: what it allows, what it refuses, and what happens while the answer is being made."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import CLEAR, PASSWORD, auth_harness, logged_in, plain, write_credentials
from inbound.intake_harness import run
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.options import ListenerAuthOptions
from angarium.inbound.quota import HOUR_NS, Allowance, Counts, Quota
from angarium.model.units import Duration
from angarium.sasl.options import AuthOptions, CredentialSource, QuotaOptions
from angarium.sasl.steps import Unavailable


async def send(peer: SmtpPeer, sender: bytes = b"alice@x.example") -> str:
    peer.say(b"MAIL FROM:<" + sender + b">\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
    assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
    return await peer.ask(b"Subject: x\r\n\r\nx\r\n.\r\n")


def test_whoever_authenticates_may_relay_and_is_in_the_log_and_the_trace_field(tmp_path: Path) -> None:
    """RFC 4954 §4, RFC 3848 §1."""

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            stranger = await SmtpPeer.greeted(harness.port)
            assert (await stranger.ask(b"MAIL FROM:<alice@x.example>\r\n"))[:3] == "250"
            assert (await stranger.ask(b"RCPT TO:<b@y.example>\r\n")).startswith("550 5.7.1 ")
            peer = await logged_in(harness.port)
            assert (await send(peer)).startswith("250 2.0.0 ")
            (received,) = harness.events("received")
            assert (received["user"], received["protocol"]) == ("alice@x.example", "ESMTPA")
            (event,) = harness.events("authenticated")
            assert (event["user"], event["mechanism"], event["client"]) == ("alice@x.example", "PLAIN", "127.0.0.1")

    run(main())


def test_what_is_offered_depends_on_the_network_and_on_tls(tmp_path: Path) -> None:
    """RFC 4954 §4: no AUTH in clear, but for networks that are trusted with it. -PLUS and EXTERNAL need TLS below."""

    async def offer(port: int) -> list[str]:
        peer = await SmtpPeer.connect(port)
        await peer.reply()
        peer.say(b"EHLO client.example\r\n")
        lines = []
        while not lines or lines[-1][3] == "-":
            lines.append((await peer.reader.readline()).decode())
        peer.cut()
        return [line[4:].strip() for line in lines if line[4:].startswith("AUTH")]

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            assert await offer(harness.port) == ["AUTH SCRAM-SHA-256 PLAIN LOGIN"]
            await harness.listen(auth=ListenerAuthOptions(offered=True, allow_plaintext_from=["10.0.0.0/8"]))
            port = harness.listeners[1].context.options.address.port
            assert await offer(port) == []
            peer = await SmtpPeer.greeted(port)
            assert (await peer.ask(plain())).startswith("538 5.7.11 ")
            await harness.listen(
                auth=ListenerAuthOptions(offered=True, mechanisms=["LOGIN"], allow_plaintext_from=["127.0.0.1"])
            )
            assert await offer(harness.listeners[2].context.options.address.port) == ["AUTH LOGIN"]
            await harness.listen()
            plain_port = harness.listeners[3].context.options.address.port
            assert await offer(plain_port) == []
            peer = await SmtpPeer.greeted(plain_port)
            assert (await peer.ask(plain())).startswith("502 ")

    run(main())


def test_mail_needs_authentication_where_it_is_required(tmp_path: Path) -> None:
    """RFC 4954 §6: 530; RFC 6409 §4.3."""

    async def main() -> None:
        auth = ListenerAuthOptions(required=True, allow_plaintext_from=["127.0.0.0/8"])
        async with auth_harness(tmp_path, auth=auth) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n")).startswith("530 5.7.0 ")
            assert (await peer.ask(plain()))[:3] == "235"
            assert (await send(peer))[:3] == "250"

    run(main())


@pytest.mark.parametrize(("identity", "password"), [("alice@x.example", "wrong"), ("nobody@x.example", PASSWORD)])
def test_wrong_credentials_are_535_whoever_it_was(identity: str, password: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain(identity, password))).startswith("535 5.7.8 ")
            (event,) = harness.events("auth-failed")
            assert (event["user"], event["reason"]) == (identity, "bad-credentials")
            assert password not in str(harness.events("auth-failed"))
            assert (await peer.ask(plain()))[:3] == "235"

    run(main())


def test_whoever_does_not_exist_is_hashed_as_well_and_at_the_same_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the time of a 535 tells who exists."""
    costs: list[str] = []

    def fits(verifier: str, password: bytes) -> bool:
        costs.append(verifier.rpartition("$")[0].rpartition("$")[0])
        return False

    monkeypatch.setattr("angarium.sasl.file_backend._fits", fits)

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for identity in ("alice@x.example", "nobody@x.example"):
                assert (await peer.ask(plain(identity, "wrong")))[:3] == "535"

    run(main())
    assert len(costs) == 2 and len(set(costs)) == 1 and costs[0].startswith("$argon2id$")


def test_scram_over_a_connection(tmp_path: Path) -> None:
    """RFC 5802 §5; the proof is made by what a client knows, the password."""
    import hashlib
    import hmac

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            bare = b"n=alice@x.example,r=fyko"
            reply = await peer.ask(b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,," + bare) + b"\r\n")
            assert reply.startswith("334 ")
            server_first = base64.b64decode(reply[4:])
            fields = dict(field.split(b"=", 1) for field in server_first.split(b","))
            salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(fields[b"s"]), int(fields[b"i"]))
            without_proof = b"c=biws,r=" + fields[b"r"]
            client_key = hmac.digest(salted, b"Client Key", "sha256")
            message = b",".join((bare, server_first, without_proof))
            signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
            proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
            reply = await peer.ask(base64.b64encode(without_proof + b",p=" + base64.b64encode(proof)) + b"\r\n")
            expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
            assert base64.b64decode(reply[4:]) == b"v=" + base64.b64encode(expected)
            assert (await peer.ask(b"\r\n"))[:3] == "235"
            assert (await send(peer))[:3] == "250"

    run(main())


class Slow:
    """Knows nobody until it is told to go on."""

    mechanisms = frozenset(("PLAIN", "LOGIN"))

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.dropped = 0

    def begin(self, mechanism: str, peer: Any, gate: Any) -> Any:
        return SlowConversation(self, gate)

    def close(self) -> None:
        pass


class SlowConversation:
    def __init__(self, slow: Slow, gate: Any) -> None:
        self.slow = slow
        self.gate = gate

    async def respond(self, response: bytes | None) -> Any:
        self.gate.admit("")
        self.slow.asked.set()
        await self.slow.may_answer.wait()
        raise Unavailable("slow")

    def drop(self) -> None:
        self.slow.dropped += 1


def test_octets_behind_auth_before_its_answer_end_the_session(tmp_path: Path) -> None:
    """RFC 4954 §4: AUTH comes last in a group, and guesses sent one behind the other are not tried."""

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            slow = Slow()
            harness.intake.authority._backend = slow  # type: ignore[union-attr]
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(plain())
            await asyncio.wait_for(slow.asked.wait(), 20)
            peer.say(plain())
            # What was written before another connection's dialogue is read before that is over.
            other = await SmtpPeer.greeted(harness.port)
            assert (await other.ask(b"NOOP\r\n"))[:3] == "250"
            slow.may_answer.set()
            assert (await peer.rest()).startswith(b"503 5.5.0 ")
            assert len(harness.events("auth-failed")) == 1

    run(main())


def test_a_client_that_goes_away_while_it_is_judged_leaves_a_failure_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            slow = Slow()
            harness.intake.authority._backend = slow  # type: ignore[union-attr]
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(plain())
            await asyncio.wait_for(slow.asked.wait(), 20)
            peer.cut()
            await harness.until(lambda: not harness.intake.clients)
            assert slow.dropped == 1
            slow.may_answer.set()
            assert [event["reason"] for event in harness.events("auth-failed")] == ["abandoned"]

    run(main())


def test_a_client_that_cancels_may_go_on(tmp_path: Path) -> None:
    """RFC 4954 §4."""

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"AUTH LOGIN\r\n"))[:3] == "334"
            assert (await peer.ask(b"*\r\n")).startswith("501 ")
            assert (await peer.ask(plain()))[:3] == "235"

    run(main())


def test_nobody_who_can_say_is_454_and_never_535(tmp_path: Path) -> None:
    """RFC 4954 §4, §6: the client keeps its password."""

    async def main() -> None:
        source = CredentialSource.decode(f"file:{tmp_path}/not-there")
        async with auth_harness(tmp_path, source=source) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain())).startswith("454 4.7.0 ")
            (error,) = harness.events("error")
            assert "not-there" in error["reason"]
            slow = Slow()
            harness.intake.authority._backend = slow  # type: ignore[union-attr]
            harness.intake.authority.options = AuthOptions(timeout=Duration(0.1))  # type: ignore[union-attr]
            assert (await peer.ask(plain())).startswith("454 4.7.0 ")

    run(main())


def test_a_changed_password_holds_at_once_though_the_old_one_was_right_a_moment_ago(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            await logged_in(harness.port)
            backend = harness.intake.authority._backend  # type: ignore[union-attr]
            write_credentials(tmp_path / "credentials", "alice@x.example", password="new")
            backend._looked_mono_s = float("-inf")  # type: ignore[union-attr]  # a second later
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain()))[:3] == "535"
            assert (await peer.ask(plain(password="new")))[:3] == "235"

    run(main())


def test_a_file_that_became_unusable_is_told_once_and_the_old_one_holds(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            await logged_in(harness.port)
            (tmp_path / "credentials").chmod(0o644)
            (tmp_path / "credentials").write_text("nonsense\n")
            for _ in range(2):
                harness.intake.authority._backend._looked_mono_s = float("-inf")  # type: ignore[union-attr]
                await logged_in(harness.port, "bob@x.example")
            assert ["0644" in event["reason"] for event in harness.events("error")] == [True]

    run(main())


def test_too_many_failures_of_an_address_are_421_and_the_right_password_is_not_tried(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path, failures_per_address=3) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(3):
                assert (await peer.ask(plain(password="wrong")))[:3] == "535"
            assert (await peer.ask(plain())).startswith("421 4.7.0 ")
            assert await peer.rest() == b""
            assert harness.events("auth-failed")[-1]["reason"] == "too-many-failures-of-address"

    run(main())


def test_too_many_failures_of_an_identity_are_454_for_it_and_nothing_for_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path, failures_per_identity=2) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(2):
                assert (await peer.ask(plain(password="wrong")))[:3] == "535"
            assert (await peer.ask(plain())).startswith("454 4.7.0 ")
            assert harness.events("auth-failed")[-1]["reason"] == "too-many-failures-of-identity"
            await logged_in(harness.port, "bob@x.example")

    run(main())


def test_guesses_side_by_side_are_no_more_than_may_fail(tmp_path: Path) -> None:
    """What is being judged has not failed yet: a thousand connections at once must not be a thousand tries."""

    async def main() -> None:
        async with auth_harness(tmp_path, failures_per_address=3) as harness:
            slow = Slow()
            harness.intake.authority._backend = slow  # type: ignore[union-attr]
            peers = [await SmtpPeer.greeted(harness.port) for _ in range(5)]
            for peer in peers:
                peer.say(plain())
            await harness.until(lambda: len(harness.events("auth-failed")) == 2)
            reasons = [event["reason"] for event in harness.events("auth-failed")]
            assert reasons == ["too-many-tries-at-once"] * 2
            slow.may_answer.set()
            assert [(await peer.reply())[:9] for peer in peers] == ["454 4.7.0"] * 5

    run(main())


def test_a_failure_is_answered_late_by_a_timer_and_others_are_not_kept_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path, failure_delay=Duration(30)) as harness:
            guesser = await SmtpPeer.greeted(harness.port)
            guesser.say(plain(password="wrong"))
            await harness.until(lambda: harness.events("auth-failed"))
            peer = await logged_in(harness.port)
            assert (await send(peer))[:3] == "250"
            guesser.cut()
            await harness.until(lambda: len(harness.intake.clients) == 1)

    run(main())


def test_reverse_paths_of_others_are_553(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path, senders={"alice@x.example": ["sales@x.example"]}) as harness:
            peer = await logged_in(harness.port)
            assert (await peer.ask(b"MAIL FROM:<bob@x.example>\r\n")).startswith("553 5.7.1 ")
            assert (await peer.ask(b"MAIL FROM:<>\r\n"))[:3] == "250"
            assert (await peer.ask(b"RSET\r\n"))[:3] == "250"
            assert (await send(peer, b"sales@x.example"))[:3] == "250"
            (event,) = harness.events("rejected")
            assert (event["user"], event["code"], event["verb"]) == ("alice@x.example", 553, "MAIL")

    run(main())


def test_quotas_of_messages_and_recipients_hold_over_sessions(tmp_path: Path) -> None:
    async def main() -> None:
        quota = {
            "*": QuotaOptions(messages_per_hour=2, messages_per_day=10),
            "bob@x.example": QuotaOptions(recipients_per_day=2),
        }
        async with auth_harness(tmp_path, quota=quota) as harness:
            for _ in range(2):
                assert (await send(await logged_in(harness.port)))[:3] == "250"
            peer = await logged_in(harness.port)
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n")).startswith("451 4.7.1 ")
            peer = await logged_in(harness.port, "bob@x.example")
            peer.say(b"MAIL FROM:<bob@x.example>\r\n" + b"RCPT TO:<a@y.example>\r\n" * 3)
            assert [reply[:3] for reply in await peer.replies(4)] == ["250", "250", "250", "451"]

    run(main())


def test_a_reload_changes_what_open_sessions_may_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            peer = await logged_in(harness.port)
            assert (await peer.ask(b"MAIL FROM:<bob@x.example>\r\n"))[:3] == "553"
            authority = harness.intake.authority
            assert authority is not None
            source = authority.options.credentials
            authority.apply(AuthOptions(credentials=source, senders={"*": ["x.example"]}))
            listener = harness.listeners[0]
            listener.apply("mx.test.example", listener.context.options)
            assert (await peer.ask(b"MAIL FROM:<bob@x.example>\r\n"))[:3] == "250"
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n"))[:3] == "250"

    run(main())


def test_what_was_hashed_a_moment_ago_is_not_hashed_again(tmp_path: Path) -> None:
    from angarium.sasl.file_backend import hashed_total

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            before = hashed_total.value
            for _ in range(3):
                await logged_in(harness.port)
            assert hashed_total.value == before + 1
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain(password="wrong")))[:3] == "535"
            assert hashed_total.value == before + 2
            kept = harness.intake.authority._backend._cache  # type: ignore[union-attr]
            assert PASSWORD not in repr(kept) and PASSWORD.encode() not in repr(kept).encode()

    run(main())


def test_clear_is_only_the_tests_own() -> None:
    assert CLEAR.is_offered and not ListenerAuthOptions().is_offered
    assert ListenerAuthOptions().allow_plaintext_from == []


def test_invented_identities_make_no_quota_and_no_other_failure_be_forgotten() -> None:
    # One table held them all, and counted nothing more once 65,536 names were in it.
    counts = Counts()
    options = QuotaOptions(messages_per_hour=1)
    assert Quota(counts.sent, "alice@x.example", options).take_message()
    attacked = Allowance(counts.failures_of_identities, "alice@x.example", 5, HOUR_NS)
    address = Allowance(counts.failures_of_addresses, "c0000207", 5, HOUR_NS)
    for allowance in (attacked, address):
        assert [allowance.take() for _ in range(6)] == [True] * 5 + [False]
    for number in range(100_000):
        Allowance(counts.failures_of_identities, f"invented {number}", 5, HOUR_NS).take()
    late = Allowance(counts.failures_of_identities, "invented late", 5, HOUR_NS)
    assert [late.take() for _ in range(6)] == [True] * 5 + [False]
    assert late.wait_ns() and attacked.wait_ns() and address.wait_ns()
    assert not Quota(counts.sent, "alice@x.example", options).take_message()
