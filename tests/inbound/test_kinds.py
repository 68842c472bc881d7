"""Kinds of listeners: what each needs, and how each behaves on a socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import auth_harness, plain
from inbound.intake_harness import intake_harness, listener_options, run
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.options import ListenerAuthOptions
from angarium.inbound.submission_options import SubmissionOptions
from angarium.model.address import ListenAddress

TLS = {"certificates": [{"cert": "/c.pem", "key": "/k.pem"}]}
CLEAR = {"allow_plaintext_from": ["127.0.0.0/8"]}


def options(protocol: str, address: str = "127.0.0.1:2525", **more: Any) -> Any:
    return listener_options(ListenAddress.decode(address), {"protocol": protocol, **more})


@pytest.mark.parametrize(
    ("protocol", "more", "reason"),
    [
        ("lmtp", {"address": "0.0.0.0:25"}, "RFC 2033"),
        ("submission", {}, 'tls: protocol "submission" needs it'),
        ("submission", {"tls": {**TLS, "starttls": False}}, 'tls: protocol "submission" needs it'),
        ("submission", {"tls": {**TLS, "implicit": True}}, 'that is protocol "submissions"'),
        ("submissions", {}, "begins with it"),
        ("smtp", {"submission": {"complete_with": "x.example"}}, 'only for protocol "submission"'),
        ("submission", {"tls": TLS, "submission": {"complete_with": "localhost"}}, "is not a domain"),
        ("submission", {"tls": TLS, "submission": {"complete_with": "x.example\r\n"}}, "is not a domain"),
    ],
)
def test_what_a_kind_cannot_be_is_refused(protocol: str, more: dict[str, Any], reason: str) -> None:
    import msgspec

    from angarium.inbound.options import ListenerOptions
    from angarium.model.units import decode_unit

    table = {"address": "127.0.0.1:2525", "protocol": protocol, **more}
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert(table, ListenerOptions, dec_hook=decode_unit)


def test_what_a_kind_implies() -> None:
    import msgspec

    from angarium.inbound.options import ListenerOptions
    from angarium.model.units import decode_unit

    def made(table: dict[str, Any]) -> ListenerOptions:
        return msgspec.convert({"address": "127.0.0.1:2525", **table}, ListenerOptions, dec_hook=decode_unit)

    implicit = made({"protocol": "submissions", "tls": TLS})
    assert implicit.tls is not None
    assert (implicit.tls.implicit, implicit.tls.offers_starttls, implicit.auth.required) == (True, False, True)
    assert made({"protocol": "submission", "tls": TLS}).auth.required
    assert not made({"protocol": "lmtp"}).auth.is_offered


def test_lmtp_takes_a_message_for_each_recipient(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, protocol="lmtp", relay_from=[], relay_to=["y.example"]) as harness:
            peer = await SmtpPeer.connect(harness.port)
            assert await peer.reply() == "220 mx.test.example LMTP Angarium"
            assert (await peer.ask(b"EHLO client.example\r\n")).startswith("500 5.5.1 ")
            assert await peer.ask(b"LHLO client.example\r\n") == "250 HELP"
            peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<b@z.example>\r\n"
                     b"RCPT TO:<c@y.example>\r\nDATA\r\n")  # fmt: skip
            assert [reply[:9] for reply in await peer.replies(5)] == [
                "250 2.1.0", "250 2.1.5", "550 5.7.1", "250 2.1.5", "354 End d"]  # fmt: skip
            peer.say(b"Subject: x\r\n\r\nhello\r\n.\r\n")
            first, second = await peer.replies(2)
            assert first == second
            assert first.startswith("250 2.0.0 Ok: queued as ")
            assert (await peer.ask(b"NOOP\r\n")).startswith("250 2.0.0 Ok")
            event = harness.events("received")[0]
            assert event["protocol"] == "LMTP"
            assert event["to"] == ["b@y.example", "c@y.example"]
            assert (await peer.ask(b"QUIT\r\n")).startswith("221 ")

    run(main())


def test_lmtp_tells_each_recipient_that_the_disk_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, protocol="lmtp") as harness:
            peer = await SmtpPeer.greeted(harness.port, b"LHLO client.example\r\n")
            await peer.open_data(3)
            peer.say(b"bare\nline\r\n.\r\n")
            assert [reply[:9] for reply in await peer.replies(3)] == ["554 5.6.0"] * 3

    run(main())


def test_submission_wants_auth_and_the_owner_networks_do_without(tmp_path: Path) -> None:
    async def main() -> None:
        auth = ListenerAuthOptions(required=True, allow_plaintext_from=["127.0.0.0/8"])
        async with auth_harness(tmp_path, auth=auth) as harness:
            closed = await harness.listen(protocol="submission", auth=auth, relay_from=[])
            trusting = await harness.listen(protocol="submission", auth=auth, relay_from=["127.0.0.1"])
            peer = await SmtpPeer.greeted(closed.context.options.address.port)
            assert await peer.ask(b"MAIL FROM:<alice@x.example>\r\n") == "530 5.7.0 Authentication required"
            assert (await peer.ask(plain())).startswith("235 ")
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n")).startswith("250 ")
            assert (await peer.ask(b"RCPT TO:<b@anywhere.example>\r\n")).startswith("250 ")
            assert (await peer.ask(b"RCPT TO:<b>\r\n")).startswith("554 5.1.2 ")
            peer = await SmtpPeer.greeted(trusting.context.options.address.port)
            assert (await peer.ask(b"MAIL FROM:<printer@x.example>\r\n")).startswith("250 ")
            assert (await peer.ask(b"RCPT TO:<b@anywhere.example>\r\n")).startswith("250 ")

    run(main())


def test_submission_completes_addresses(tmp_path: Path) -> None:
    async def main() -> None:
        auth = ListenerAuthOptions(required=True, allow_plaintext_from=["127.0.0.0/8"])
        submission = SubmissionOptions(complete_with="x.example")
        async with intake_harness(
            tmp_path, protocol="submission", auth=auth, submission=submission
        ) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(b"MAIL FROM:<alice>\r\nRCPT TO:<bob>\r\nDATA\r\n")
            assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
            assert (await peer.ask(b"Subject: x\r\n\r\nhello\r\n.\r\n")).startswith("250 ")
            event = harness.events("received")[0]
            assert (event["from"], event["to"]) == ("alice@x.example", ["bob@x.example"])

    run(main())
