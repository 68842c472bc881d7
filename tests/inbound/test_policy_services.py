"""Policy services asked by sessions: what they are told at each stage, and what their actions do."""

from __future__ import annotations

import hashlib
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate
from inbound.auth_harness import CLEAR, PASSWORD, plain, write_credentials
from inbound.intake_harness import IntakeHarness, run
from inbound.policy_harness import policy_harness
from inbound.smtp_peer import SmtpPeer
from inbound.test_hooks import MAIL, RCPT, sent
from inbound.test_messages_in import stored_messages
from inbound.tls_peer import TlsPeer
from policy.policy_server import PolicyServer, Question, policy_server
from tls.authority import authority, certificate, client_context, der, listener_tls, write_authority

from angarium.inbound.authority import Authority
from angarium.inbound.quota import Counts
from angarium.mime.notify import Notify
from angarium.model.units import Duration
from angarium.policy.options import STATES
from angarium.sasl.options import AuthOptions

STRANGERS = {"relay_from": [], "relay_to": ["y.example"]}


@asynccontextmanager
async def asking(
    folder: Path, actions: dict[str, str], hooks: str = "", **options: Any
) -> AsyncIterator[tuple[IntakeHarness, PolicyServer]]:
    """A harness and the service it asks. actions: by state; DUNNO for the others."""

    def answer(question: Question) -> bytes:
        return f"action={actions.get(question['protocol_state'], 'DUNNO')}\n\n".encode()

    async with policy_server(answer) as (server, address):
        service = {"address": address, "states": list(STATES), **options}
        async with policy_harness(folder, hooks, listener=STRANGERS, service=[service]) as harness:
            yield harness, server


def test_every_stage_is_asked_about_with_what_is_known_by_then(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, {}) as (harness, server):
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example> SIZE=1234\r\n")
            await peer.ask(RCPT)
            await peer.ask(b"RCPT TO:<c@y.example>\r\n")
            await peer.ask(b"DATA\r\n")
            reply = await peer.ask(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert reply[:3] == "250"
            asked = server.questions
            assert [each["protocol_state"] for each in asked] == [
                "CONNECT", "EHLO", "MAIL", "RCPT", "RCPT", "DATA", "END-OF-MESSAGE",
            ]  # fmt: skip
            assert {each["client_address"] for each in asked} == {"127.0.0.1"}
            assert [each["helo_name"] for each in asked] == [""] + ["client.example"] * 6
            assert [each["sender"] for each in asked] == ["", ""] + ["a@x.example"] * 5
            assert [each["recipient"] for each in asked] == ["", "", "", "b@y.example", "c@y.example", "", ""]
            assert [each["size"] for each in asked] == ["0", "0"] + ["1234"] * 4 + ["17"]
            assert [each["recipient_count"] for each in asked] == ["0"] * 5 + ["2"] * 2
            assert len({each["instance"] for each in asked[2:]}) == 1 and asked[2]["instance"]
            assert asked[-1]["queue_id"] == reply.rpartition(" ")[2]
            await sent(peer)
            assert server.questions[7]["protocol_state"] == "MAIL"          # of one EHLO they know already
            assert server.questions[7]["instance"] != asked[2]["instance"]

    run(main())


POSTFIX = (
    "request protocol_state protocol_name client_address client_name client_port reverse_client_name server_address "
    "server_port helo_name sender recipient recipient_count queue_id instance size etrn_domain stress sasl_method "
    "sasl_username sasl_sender ccert_subject ccert_issuer ccert_fingerprint ccert_pubkey_fingerprint "
    "encryption_protocol encryption_cipher encryption_keysize policy_context"
)  # SMTPD_POLICY_README, as smtpd_check.c orders them


def test_a_client_in_clear_has_every_attribute_of_postfix(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, {}) as (harness, server):
            peer = await SmtpPeer.greeted(harness.port)
            own_port = peer.writer.get_extra_info("sockname")[1]
            await peer.ask(MAIL)
            harness.intake.is_tight = True
            await peer.ask(RCPT)
            assert {" ".join(each) for each in server.questions} == {POSTFIX}
            asked = server.questions[-1]
            assert asked["client_port"] == str(own_port)
            assert (asked["server_address"], asked["server_port"]) == ("127.0.0.1", str(harness.port))
            assert asked["encryption_keysize"] == "0"
            assert [each["stress"] for each in server.questions] == ["", "", "", "yes"]
            empty = {name for name, value in asked.items() if not value}
            assert empty == {
                "queue_id", "etrn_domain", "sasl_method", "sasl_username", "sasl_sender", "ccert_subject",
                "ccert_issuer", "ccert_fingerprint", "ccert_pubkey_fingerprint", "encryption_protocol",
                "encryption_cipher", "policy_context",
            }  # fmt: skip

    run(main())


def colons(digest: bytes) -> str:
    return digest.hex(":").upper()


@pytest.mark.parametrize(
    ("version", "cipher"),
    [(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"), (ssl.TLSVersion.TLSv1_3, "TLS_AES_256_GCM_SHA384")],
)
def test_tls_and_certificate_are_told_as_postfix_spells_them(
    tmp_path: Path, version: ssl.TLSVersion, cipher: str
) -> None:
    ours = authority().issue_cert("client.example", common_name="Zoë = client.example", key_type=trustme.KeyType.ECDSA)
    others = certificate("client.example", ca="stranger")

    async def main() -> None:
        async with policy_server(lambda _: b"action=DUNNO\n\n") as (server, address):
            service = {"address": address, "ask_for": "all"}
            listener = {**STRANGERS, "tls": listener_tls(tmp_path, client_ca=write_authority(tmp_path))}
            async with policy_harness(tmp_path, "", listener=listener, service=[service]) as harness:
                for leaf in (ours, others, None):
                    context = client_context(leaf)
                    context.minimum_version = context.maximum_version = version
                    if version == ssl.TLSVersion.TLSv1_2:
                        context.set_ciphers(cipher)
                    peer = await TlsPeer.started(harness.port, context)
                    await peer.ask(MAIL)
                    await peer.ask(RCPT)
                    asked = server.questions[-1]
                    told = peer.tls.cipher()
                    assert told is not None
                    assert told[2] == int(asked["encryption_keysize"])
                    assert asked["encryption_protocol"] == version.name.replace("_", ".")
                    assert asked["encryption_cipher"] == told[0]
                    if version == ssl.TLSVersion.TLSv1_2:
                        assert told[0] == cipher
                    if leaf is None:
                        assert asked["ccert_fingerprint"] == asked["ccert_pubkey_fingerprint"] == ""
                        assert asked["ccert_subject"] == asked["ccert_issuer"] == ""
                        continue
                    key = load_der_x509_certificate(der(leaf)).public_key()
                    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                    assert asked["ccert_fingerprint"] == colons(hashlib.sha256(der(leaf)).digest())
                    assert asked["ccert_pubkey_fingerprint"] == colons(hashlib.sha256(spki).digest())
                    # Of a certificate that nobody vouches for the names are not told.
                    names = (asked["ccert_subject"], asked["ccert_issuer"].partition("+20")[0])
                    # The authority has no common name: its organization is told.
                    known = ("Zo+C3+AB+20+3D+20client.example", "trustme")
                    assert names == (known if leaf is ours else ("", ""))

    run(main())


def test_the_mechanism_is_told_and_only_of_an_exchange_that_succeeded(tmp_path: Path) -> None:
    async def main() -> None:
        async with policy_server(lambda _: b"action=DUNNO\n\n") as (server, address):
            service = {"address": address, "states": ["mail"], "ask_for": "all"}
            listener = {**STRANGERS, "auth": CLEAR}
            async with policy_harness(tmp_path, "", listener=listener, service=[service]) as harness:
                authority = Authority(harness.loop, harness.journal, Counts())
                source = write_credentials(tmp_path / "credentials", "alice@x.example")
                authority.apply(AuthOptions(credentials=source, failure_delay=Duration(0)))
                harness.intake.authority = authority
                peer = await SmtpPeer.greeted(harness.port)
                assert (await peer.ask(plain(password="wrong")))[:3] == "535"
                await peer.ask(MAIL)
                await peer.ask(b"RSET\r\n")
                await peer.ask(b"AUTH LOGIN " + b64encode(b"alice@x.example") + b"\r\n")
                assert (await peer.ask(b64encode(PASSWORD.encode()) + b"\r\n"))[:3] == "235"
                await peer.ask(b"MAIL FROM:<alice@x.example>\r\n")
                said = [(each["sasl_method"], each["sasl_username"]) for each in server.questions]
                assert said == [("", ""), ("LOGIN", "alice@x.example")]
                authority.close()

    run(main())


def test_a_balancer_says_to_which_address_and_port_its_client_came(tmp_path: Path) -> None:
    async def main() -> None:
        async with policy_server(lambda _: b"action=DUNNO\n\n") as (server, address):
            service = {"address": address, "states": ["connect"], "ask_for": "all"}
            listener = {**STRANGERS, "proxy_from": ["127.0.0.0/8"]}
            async with policy_harness(tmp_path, "", listener=listener, service=[service]) as harness:
                for header in (
                    b"PROXY TCP4 192.0.2.9 198.51.100.7 56324 587\r\n",
                    b"PROXY TCP6 2001:db8::9 2001:db8::7 56324 587\r\n",
                ):
                    peer = await SmtpPeer.connect(harness.port)
                    peer.say(header)
                    assert (await peer.reply())[:3] == "220"
                names = ("client_address", "client_port", "server_address", "server_port")
                assert [[each[name] for name in names] for each in server.questions] == [
                    ["192.0.2.9", "56324", "198.51.100.7", "587"],
                    ["2001:db8::9", "56324", "2001:db8::7", "587"],
                ]

    run(main())


def test_a_refusal_is_said_at_its_stage(tmp_path: Path) -> None:
    async def main() -> None:
        for state, command, reply in (
            ("EHLO", MAIL, "550 5.5.2 Bad name"),
            ("MAIL", MAIL, "450 4.1.8 Who"),
            ("RCPT", RCPT, "554 5.7.1 No"),
            ("DATA", b"x\r\n.\r\n", "554 5.7.1 Access denied"),
            ("END-OF-MESSAGE", b"x\r\n.\r\n", "451 4.3.0 Scanner down"),
        ):
            actions = {
                "EHLO": "550 5.5.2 Bad name", "MAIL": "450 4.1.8 Who", "RCPT": "REJECT No", "DATA": "REJECT",
                "END-OF-MESSAGE": "451 4.3.0 Scanner down",
            }  # fmt: skip
            folder = tmp_path / state
            folder.mkdir()
            async with asking(folder, {state: actions[state]}) as (harness, _):
                peer = await SmtpPeer.greeted(harness.port)
                for each in (MAIL, RCPT, b"DATA\r\n", b"x\r\n.\r\n"):
                    said = await peer.ask(each)
                    if each == command:
                        break
                    assert said[:1] in "23", (state, said)
                assert said == reply
                assert harness.events("received") == []

    run(main())


def test_who_may_relay_is_no_business_of_a_service_for_strangers(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            policy_server(lambda _: b"action=REJECT\n\n") as (server, address),
            policy_harness(tmp_path, "", service=[{"address": address}]) as harness,
        ):
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer))[:3] == "250"
            assert server.questions == []

    run(main())


def test_a_service_of_another_listener_is_not_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, {"RCPT": "REJECT"}, listeners=["192.0.2.1:25"]) as (harness, server):
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer))[:3] == "250"
            assert server.questions == []

    run(main())


def test_deferring_if_permitted_waits_for_whoever_else_refuses(tmp_path: Path) -> None:
    hooks = """
    def on_rcpt(rcpt):
        if rcpt.local_part == "nobody":
            return Reject("No such user", status="5.1.1")
    """

    async def main() -> None:
        async with asking(tmp_path, {"RCPT": "DEFER_IF_PERMIT Greylisted"}, hooks) as (harness, _):
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(MAIL)
            assert await peer.ask(RCPT) == "450 4.7.1 Greylisted"
            assert await peer.ask(b"RCPT TO:<nobody@y.example>\r\n") == "550 5.1.1 No such user"
            assert await peer.ask(RCPT) == "450 4.7.1 Greylisted"

    run(main())


@pytest.mark.parametrize("state", ["CONNECT", "EHLO", "MAIL"])
def test_what_is_deferred_before_recipients_holds_for_every_one(tmp_path: Path, state: str) -> None:
    async def main() -> None:
        async with asking(tmp_path, {state: "DEFER_IF_PERMIT Not yet"}) as (harness, server):
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(MAIL)
            for _ in range(3):
                assert await peer.ask(RCPT) == "450 4.7.1 Not yet"
            server.answer = lambda question: (
                b"action=DEFER_IF_PERMIT One\n\n" if question["recipient"] == "b@y.example" else b"action=DUNNO\n\n"
            )
            await peer.ask(b"RSET\r\n")
            await peer.ask(MAIL)
            if state == "MAIL":
                assert await peer.ask(RCPT) == "450 4.7.1 One"
                assert (await peer.ask(b"RCPT TO:<c@y.example>\r\n"))[:3] == "250"

    run(main())


@pytest.mark.parametrize("state", ["CONNECT", "EHLO", "MAIL", "RCPT"])
def test_a_deferral_for_refusals_covers_whatever_is_refused_later(tmp_path: Path, state: str) -> None:
    """access(5), DEFER_IF_REJECT: services, hooks and our own rules, at this state and at later ones."""
    hooks = """
    def on_rcpt(rcpt):
        if rcpt.local_part == "nobody":
            return Reject("No such user", status="5.1.1")
        if rcpt.local_part == "later":
            return Defer("Later")

    def on_message(message):
        return Reject("No")
    """
    services = STATES[STATES.index(state.lower()) :]  # type: ignore[arg-type]

    async def main() -> None:
        actions = {state: "DEFER_IF_REJECT Look again"}
        async with asking(tmp_path, actions, hooks, states=list(services)) as (harness, _):
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(MAIL))[:3] == "250"
            assert await peer.ask(b"RCPT TO:<nobody@y.example>\r\n") == "450 4.7.1 Look again"
            assert await peer.ask(b"RCPT TO:<later@y.example>\r\n") == "451 4.7.1 Later"
            # Asked by nobody of ours: what was wanted for the recipient before it is over.
            denied = await peer.ask(b"RCPT TO:<b@elsewhere.example>\r\n")
            assert denied == ("550 5.7.1 Relaying denied" if state == "RCPT" else "450 4.7.1 Look again")
            assert (await peer.ask(RCPT))[:3] == "250"
            await peer.ask(b"DATA\r\n")
            said = await peer.ask(b"x\r\n.\r\n")
            assert said == ("550 5.7.1 No" if state == "RCPT" else "450 4.7.1 Look again")
            assert {each["reason"] for each in harness.events("rejected")} >= {"policy-service", "policy-hook"}

    run(main())


@pytest.mark.parametrize(("state", "command"), [("EHLO", b"EHLO other.example\r\n"), ("MAIL", b"RSET\r\n")])
@pytest.mark.parametrize("action", ["DEFER_IF_REJECT", "DEFER_IF_PERMIT"])
def test_what_waits_for_others_lasts_as_long_as_what_it_was_said_about(
    tmp_path: Path, state: str, command: bytes, action: str
) -> None:
    hooks = """
    def on_rcpt(rcpt):
        if rcpt.local_part == "nobody":
            return Reject("No such user", status="5.1.1")
    """

    async def main() -> None:
        async with asking(tmp_path, {state: f"{action} Look again"}, hooks) as (harness, server):
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(MAIL)
            whom = b"nobody" if action == "DEFER_IF_REJECT" else b"b"
            assert await peer.ask(b"RCPT TO:<" + whom + b"@y.example>\r\n") == "450 4.7.1 Look again"
            server.answer = lambda _: b"action=DUNNO\n\n"
            await peer.ask(command)
            await peer.ask(MAIL)
            assert (await peer.ask(b"RCPT TO:<nobody@y.example>\r\n")) == "550 5.1.1 No such user"
            assert (await peer.ask(RCPT))[:3] == "250"

    run(main())


def test_a_refusal_of_ehlo_is_not_softened_by_a_transaction_that_is_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, {"MAIL": "DEFER_IF_REJECT Look again"}) as (harness, server):
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer))[:3] == "250"
            server.answer = lambda question: (
                b"action=REJECT No\n\n" if question["protocol_state"] == "EHLO" else b"action=DUNNO\n\n"
            )
            await peer.ask(b"EHLO other.example\r\n")
            assert await peer.ask(MAIL) == "554 5.7.1 No"

    run(main())


def test_services_see_the_client_that_a_listed_peer_introduces(tmp_path: Path) -> None:
    async def main() -> None:
        async with policy_server(lambda _: b"action=DUNNO\n\n") as (server, address):
            service = {"address": address, "states": list(STATES), "ask_for": "all"}
            listener = {**STRANGERS, "xclient_from": ["127.0.0.0/8"]}
            async with policy_harness(tmp_path, "", listener=listener, service=[service]) as harness:
                peer = await SmtpPeer.greeted(harness.port)
                said = b"NAME=spike.example REVERSE_NAME=ptr.example ADDR=192.0.2.7 HELO=spike PROTO=ESMTP LOGIN=alice"
                assert (await peer.ask(b"XCLIENT " + said + b"\r\n"))[:3] == "220"
                await peer.ask(MAIL)
                await peer.ask(b"RSET\r\n")
                await peer.ask(b"XCLIENT NAME=[UNAVAILABLE] LOGIN=[UNAVAILABLE] HELO=spark PROTO=SMTP\r\n")
                said = b"PORT=4321 DESTADDR=198.51.100.7 DESTPORT=26 HELO=spark"
                await peer.ask(b"XCLIENT " + said + b"\r\n")
                ends = [
                    (each["client_port"], each["server_address"], each["server_port"], each["sasl_method"])
                    for each in server.questions
                ]
                own = ("127.0.0.1", str(harness.port))
                assert ends == [
                    (str(peer.writer.get_extra_info("sockname")[1]), *own, ""),
                    *[("unknown", *own, "XCLIENT")] * 3,
                    ("unknown", *own, ""),
                    ("4321", "198.51.100.7", "26", ""),
                ]
                server.questions.pop()
                seen = [
                    (
                        each["protocol_state"], each["client_address"], each["client_name"],
                        each["reverse_client_name"], each["helo_name"], each["protocol_name"], each["sasl_username"],
                    )
                    for each in server.questions
                ]  # fmt: skip
                introduced = ("192.0.2.7", "spike.example", "ptr.example", "spike", "ESMTP", "alice")
                assert seen == [
                    ("CONNECT", "127.0.0.1", "unknown", "unknown", "", "SMTP", ""),
                    ("CONNECT", *introduced),
                    ("EHLO", *introduced),
                    ("MAIL", *introduced),
                    ("CONNECT", "192.0.2.7", "unknown", "ptr.example", "spark", "SMTP", ""),
                ]

    run(main())


def test_fields_of_services_are_prepended_once_a_message(tmp_path: Path) -> None:
    async def main() -> None:
        actions = {"RCPT": "PREPEND X-Greylist: delayed", "MAIL": "PREPEND Received-SPF: pass (x)"}
        async with asking(tmp_path, actions) as (harness, _):
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer, to=RCPT + b"RCPT TO:<c@y.example>\r\n"))[:3] == "250"
        ((_, content),) = await stored_messages(tmp_path)
        assert content.startswith(b"X-Greylist: delayed\r\nReceived-SPF: pass (x)\r\nReceived: from ")
        assert content.endswith(b"Subject: hi\r\n\r\nbody\r\n")

    run(main())


def test_messages_are_redirected_copied_and_discarded(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, {"RCPT": "REDIRECT trap@z.example"}) as (harness, server):
            peer = await SmtpPeer.greeted(harness.port)
            await sent(peer)
            server.answer = lambda question: (
                b"action=BCC log@z.example\n\n" if question["protocol_state"] == "MAIL" else b"action=DUNNO\n\n"
            )
            await sent(peer)
            server.answer = lambda _: b"action=DISCARD\n\n"
            assert (await sent(peer))[:3] == "250"
            assert [event["to"] for event in harness.events("received")] == [
                ["trap@z.example"], ["b@y.example", "log@z.example"],
            ]  # fmt: skip
            assert len(harness.events("discarded")) == 1

    run(main())


@pytest.mark.parametrize("said", ["", " NOTIFY=SUCCESS,FAILURE", " NOTIFY=NEVER"])
def test_nobody_hears_of_a_hidden_copy(tmp_path: Path, said: str) -> None:
    """As of [[bcc]]: one that fails would be reported to the sender, who does not know of it."""

    async def main() -> None:
        async with asking(tmp_path, {"MAIL": "BCC log@z.example", "RCPT": "BCC b@Y.Example"}) as (harness, _):
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer, to=f"RCPT TO:<b@y.example>{said}\r\n".encode()))[:3] == "250"
            notify = [(each.forward_path, each.notify) for each in harness.last_envelope().recipients]
            own = {"": 0, " NOTIFY=SUCCESS,FAILURE": Notify.SUCCESS | Notify.FAILURE, " NOTIFY=NEVER": Notify.NEVER}
            # Whom the client has named is a recipient like others, once, though a copy is wanted there, too.
            assert notify == [(b"b@y.example", own[said]), (b"log@z.example", Notify.NEVER)]

    run(main())


def test_who_is_sent_to_instead_is_no_hidden_copy(tmp_path: Path) -> None:
    hooks = """
    def on_message(message):
        if "hook@z.example" not in message.recipients:
            return Redirect(["hook@z.example"])
    """

    async def main() -> None:
        for number, (text, path) in enumerate([("", b"trap@z.example"), (hooks, b"hook@z.example")]):
            folder = tmp_path / str(number)
            folder.mkdir()
            actions = {} if text else {"RCPT": "REDIRECT trap@z.example"}
            async with asking(folder, actions, text) as (harness, _):
                peer = await SmtpPeer.greeted(harness.port)
                assert (await sent(peer))[:3] == "250"
                assert [(each.forward_path, each.notify) for each in harness.last_envelope().recipients] == [(path, 0)]

    run(main())


def test_what_a_service_notes_and_what_is_not_understood_is_logged(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, {"MAIL": "WARN strange", "RCPT": "FILTER smtp:x"}) as (harness, _):
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer))[:3] == "250"
            (note,) = harness.events("policy-note")
            assert (note["kind"], note["text"], note["sender"]) == ("warn", "strange", "a@x.example")
            (error,) = harness.events("error")
            assert error["reason"] == "action not understood: FILTER smtp:x"

    run(main())


def test_what_is_said_when_the_service_is_down(tmp_path: Path) -> None:
    async def main() -> None:
        service = {"address": f"unix:{tmp_path}/none"}
        async with policy_harness(tmp_path, "", listener=STRANGERS, service=[service]) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(MAIL)
            assert await peer.ask(RCPT) == "450 4.7.1 Policy service not available, try again later"

    run(main())
