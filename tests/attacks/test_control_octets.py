"""No control octet gets from a peer into the session's values, the Received field, the log, a report or a look-up.

Every place where a peer can put octets of its own is tried with every control octet. What is taken must hold none.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer
from smtp.sasl_peer import SaslPeer
from smtp.server_dialogue import Dialogue

from angarium.mime.dsn import ReportedMessage, ReportedRecipient, compose_dsn
from angarium.model.outcome import Trouble
from angarium.smtp.server_settings import ServerSettings

SETTINGS = ServerSettings("mx.test.example")
CONTROLS = [bytes([octet]) for octet in (*range(32), 127)]
HELLO = b"EHLO c.example\r\n"
MAIL = b"MAIL FROM:<a@x.example>\r\n"

# Where "%" stands, a peer's octets go.
SLOTS = {
    "helo name": (b"", b"EHLO c%.example\r\n"),
    "helo literal": (b"", b"EHLO [IPv6:::1%]\r\n"),
    "reverse-path": (HELLO, b"MAIL FROM:<a%a@x.example>\r\n"),
    "quoted reverse-path": (HELLO, b'MAIL FROM:<"a%a"@x.example>\r\n'),
    "quoted pair": (HELLO, b'MAIL FROM:<"a\\%a"@x.example>\r\n'),
    "domain": (HELLO, b"MAIL FROM:<a@x%.example>\r\n"),
    "source route": (HELLO, b"MAIL FROM:<@r%.example:a@x.example>\r\n"),
    "ENVID": (HELLO, b"MAIL FROM:<a@x.example> ENVID=a%b\r\n"),
    "AUTH=": (HELLO, b"MAIL FROM:<a@x.example> AUTH=a%b\r\n"),
    "SIZE": (HELLO, b"MAIL FROM:<a@x.example> SIZE=1%\r\n"),
    "unknown parameter": (HELLO, b"MAIL FROM:<a@x.example> X%Y=1\r\n"),
    "forward-path": (HELLO + MAIL, b"RCPT TO:<b%b@y.example>\r\n"),
    "quoted forward-path": (HELLO + MAIL, b'RCPT TO:<"b%b"@y.example>\r\n'),
    "ORCPT type": (HELLO + MAIL, b"RCPT TO:<b@y.example> ORCPT=rfc%822;b@y.example\r\n"),
    "ORCPT address": (HELLO + MAIL, b"RCPT TO:<b@y.example> ORCPT=rfc822;b%@y.example\r\n"),
    "VRFY": (HELLO, b"VRFY a%b\r\n"),
}


@pytest.mark.parametrize("slot", SLOTS)
def test_no_argument_takes_a_control_octet(slot: str) -> None:
    before, command = SLOTS[slot]
    for octet in CONTROLS:
        dialogue = Dialogue(SETTINGS)
        dialogue.greet()
        for line in before.splitlines(keepends=True):
            dialogue.feed(line)
        count, said = len(dialogue.events), len(dialogue.output)
        dialogue.feed(command.replace(b"%", octet))
        assert dialogue.output[said : said + 1] == b"5", (slot, octet)
        taken = [event for event in dialogue.events[count:] if type(event).__name__ not in ("Refused", "Close")]
        assert not taken, (slot, octet)


def test_what_is_logged_and_stored_of_a_hostile_client_is_one_clean_line_each(tmp_path: Path) -> None:
    """Log injection and header injection in one: as far as each command gets, nothing of it breaks a line."""

    async def main() -> None:
        async with intake_harness(tmp_path, max_errors=10_000) as harness:
            for octet in CONTROLS:
                for _, command in SLOTS.values():
                    peer = await SmtpPeer.connect(harness.port)
                    await peer.reply()
                    peer.say(command.replace(b"%", octet + b'","event":"received","id":"X'))
                    assert (await peer.reply())[:1] == "5"
                    peer.cut()
            peer = await SmtpPeer.greeted(harness.port, b"EHLO c.example\r\n")
            await peer.open_data()
            assert (await peer.ask(b"Subject: x\r\n\r\n.\r\n")).startswith("250 ")
            harness.journal.flush()
            raw = (tmp_path / "events.json").read_bytes()
            assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", raw)
            events = [json.loads(line) for line in raw.split(b"\n") if line]
            assert [event["event"] for event in events if event["event"] != "rejected"] == ["received"]
            assert all(re.fullmatch(r"[0-9A-Z]{8}", event["id"]) for event in events if event["event"] == "rejected")

    run(main())


@pytest.mark.parametrize("octet", CONTROLS)
def test_a_report_holds_nothing_that_a_peer_smuggled_into_xtext_or_a_reply(octet: bytes) -> None:
    """xtext may spell any octet (RFC 3461 §4), and a next hop may say anything: both end up in DSN fields."""
    spelled = b"+%02X" % octet[0]
    evil = octet + b"\r\nX-Evil: yes"
    dsn = compose_dsn(
        ReportedMessage(
            reverse_path=b"a@x.example", content=b"Subject: x\r\n\r\nbody\r\n", message_octets=20, received_utc_s=1e9,
            queue_id="0000000000000", helo=b"c.example", envid=b"e" + spelled + b"+0D+0AX-Evil: yes",
        ),
        [ReportedRecipient(
            forward_path=b"b@y.example", outcome="failed", orcpt=b"rfc822;b" + spelled + b"+0D+0AX-Evil:+20yes",
            trouble=Trouble(550, (5, 1, 1), evil.decode("latin-1"), "mx" + evil.decode("latin-1")),
        )],
        hostname="mx.test.example", dsn_id="0000000000001", now_utc_s=1e9,
    )  # fmt: skip
    assert not re.search(rb"(?m)^X-Evil", dsn.octets)
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", dsn.octets)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", dsn.octets)


@pytest.mark.parametrize("octet", [octet for octet in CONTROLS if octet != b"\x00"])
def test_no_identity_takes_a_control_octet(octet: bytes) -> None:
    """NUL separates the parts of PLAIN; every other control octet has no place in them."""
    for response in (b"\0us%er\0pencil", b"us%er\0user\0pencil", b"\0user%\0pencil"):
        dialogue = Dialogue(SETTINGS, sasl=SaslPeer(b"PLAIN"))
        dialogue.greet()
        dialogue.feed(HELLO)
        dialogue.feed(b"AUTH PLAIN " + base64.b64encode(response.replace(b"%", octet)) + b"\r\n")
        assert dialogue.output.endswith(b"535 5.7.8 Authentication credentials invalid\r\n"), response
        assert dialogue.session.identity is None


def test_oversize_and_malformed_responses_are_refused_and_cost_nothing() -> None:
    long = base64.b64encode(b"\0" + b"u" * 9300 + b"\0pencil")
    cases = [
        b"AUTH PLAIN " + long + b"\r\n",
        b"AUTH PLAIN " + b"A" * 1_000_000 + b"\r\n",
        b"AUTH PLAIN AAA\r\n",
        b"AUTH PLAIN ====\r\n",
        b"AUTH PLAIN A=AA\r\n",
        b"AUTH PLAIN \xff\xff\r\n",
        b"AUTH PLAIN " + base64.b64encode(b"\0\0") + b"\r\n",
        b"AUTH PLAIN " + base64.b64encode(b"no separators") + b"\r\n",
        b"AUTH PLAIN " + base64.b64encode(b"\0" * 5000) + b"\r\n",
        b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=user,r=" + b"x" * 8000) + b"\r\n",
        b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"y,,m=ext,n=user,r=x") + b"\r\n",
        b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=us=2Xer,r=x") + b"\r\n",
        b"AUTH " + b"X" * 400 + b"\r\n",
    ]
    for case in cases:
        dialogue = Dialogue(SETTINGS, sasl=SaslPeer(b"PLAIN SCRAM-SHA-256"))
        dialogue.greet()
        dialogue.feed(HELLO)
        for start in range(0, len(case), 8192):
            dialogue.feed(case[start : start + 8192])
        if dialogue.output.rpartition(b"\r\n334 ")[1]:  # SCRAM goes on where a name or nonce is only long
            dialogue.feed(b"*\r\n")
        assert re.search(rb"\r\n5\d\d 5\.\d\.\d+ [^\r]*\r\n$", dialogue.output), case[:40]
        assert dialogue.session.identity is None
        assert dialogue.most_memory_octets <= 64 << 10, case[:40]
