"""One run of the fuzz target for whole server sessions: octets in, an AssertionError out when an invariant breaks.

The first two octets choose settings, with extensions that are switched off (`settings_of`), and what the application
answers (`Application`), the rest is what a client says.
The invariants, for any octets:

- events and well-formed replies, never an exception; each reply line of 512 octets at the most, and no bare CR or LF
  (RFC 5321 §4.5.3.1.5);
- the same ones for every cut into reads, one a line among them, as a client sends that waits for each reply;
- one reply for each command and each chunk, in their order, and one behind message data, as a client counts that knows
  the RFCs and nothing else (trusting_client.py);
- a message is taken only behind a MAIL, a RCPT and a DATA or BDAT that were all accepted in one transaction, with
  exactly the recipients and the octets that this client takes for accepted; nothing after the session has ended;
- it is answered 250 when, and only when, the application has committed it;
- of an extension that is switched off nothing is offered, accepted or told (smtp/switches.py);
- nobody is authenticated but by credentials that are good: sasl_judge.py says what is asked of an exchange; and where
  AUTH is required no mail begins before it, unless a node that may (XCLIENT) said who the client is;
- what is taken holds no bare CR or LF and no NUL, unless it was announced as binary;
- the memory of a session stays below MOST_MEMORY_OCTETS.

`make fuzz` drives this with coverage of the compiled session (coverage.py). `python -m fuzz.session_target --seconds 60
[--seed N]` mutates the corpus beside this file without; inputs that break something are written to the current
directory. A test does the same briefly (test_session.py).
"""

from __future__ import annotations

import argparse
import base64
import functools
import random
import re
import sys
import time
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

from fuzz.sasl_judge import JudgedSasl
from fuzz.trusting_client import TrustingClient
from smtp import switches
from smtp.sasl_peer import SERVER_NONCE, TOKENS
from smtp.server_dialogue import Dialogue

from angarium.smtp import limits, replies, server_events
from angarium.smtp.refusal_ids import RefusalIds
from angarium.smtp.server_settings import ServerSettings

CORPUS = Path(__file__).parent / "corpus" / "session"
# Partial line or AUTH line, body with room to grow, replies of one feed.
MOST_MEMORY_OCTETS = 96 << 10
MAX_MESSAGE_OCTETS = 5000
CHOICES = 2

_PLAIN = {"max_message_octets": MAX_MESSAGE_OCTETS}
SETTINGS = [
    dict(max_errors=6, run_octets=4096, max_recipients=3),
    dict(max_errors=1000, run_octets=512, starttls=True),
    dict(
        max_errors=50, run_octets=4096, max_line_octets=1000,
        refusal_ids=RefusalIds(), tells_refusal_ids=True,
    ),
    dict(max_errors=50, run_octets=4096, lmtp=True, max_recipients=5),
    dict(
        max_errors=100, run_octets=2048, binarymime=True, priority=True,
        deliver_by_minimum_s=60, hold_max_s=86400, no_soliciting=b"org.example.ads", max_messages=4,
        announces_limits=True,
    ),
    dict(
        max_errors=100, run_octets=4096, must_qualify=True, completion=b"x.example",
        auth_required=True, starttls=True,
    ),
    dict(max_errors=100, requires_tls=True, requiretls=True, starttls=True),
]  # fmt: skip
# The octets that choose: so many combinations of switches for each of the settings, and none of them switched off.
_COMBINATIONS_BIT = 64


@functools.cache
def settings_of(number: int, choice: int) -> tuple[ServerSettings, frozenset[str]]:
    """The settings, and which extensions they are without. Bits 6 and 7 of the choice, and what the number is beyond
    the count of settings, are the seed of what is switched off; without the bits nothing is."""
    options: dict[str, Any] = {**_PLAIN, **SETTINGS[number % len(SETTINGS)]}
    if seed := choice // _COMBINATIONS_BIT:
        options = switches.without(options, switches.chosen(random.Random(f"{seed} {number // len(SETTINGS)}")))
    return ServerSettings("mx.test.example", **options), switches.is_off(options)


_LINE = rb"[ -~]{0,%d}\r\n" % (limits.REPLY_LINE_OCTETS - 6)
_REPLY = re.compile(rb"(?:\d{3}-%s)*(\d{3}) (?=(?:(\d)\.\d{1,3}\.\d{1,3} )?)%s" % (_LINE, _LINE))
_REFUSAL_ID = re.compile(rb" \[[0-9A-Z]{8}\]\r\n")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")

WORDS = [
    b"EHLO c.example\r\n",
    b"HELO c.example\r\n",
    b"MAIL FROM:<a@x.example>\r\n",
    b"MAIL FROM:<> BODY=8BITMIME SIZE=9\r\n",
    b"RCPT TO:<b@y.example>\r\n",
    b"RCPT TO:<no@y.example>\r\n",
    b"DATA\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"NOOP\r\n",
    b"BDAT 5\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 12 LAST\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN\r\n",
    b"AUTH PLAIN =\r\n",
    b"AUTH SCRAM-SHA-256 biws\r\n",
    b"AUTH SCRAM-SHA-256-PLUS ",
    b"AUTH EXTERNAL\r\n",
    b"AUTH EXTERNAL =\r\n",
    b"AUTH EXTERNAL dXNlcg==\r\n",
    b"AUTH OAUTHBEARER ",
    b"AUTH OAUTHBEARER\r\n",
    b"AUTH XOAUTH2 ",
    b"AQ==\r\n",
    b"=\r\n",
    b"*\r\n",
    b"\r",
    b"\n",
    b"\x00",
    b"\xc3\xa9",
    b"\xff",
    b"\r\n",
    b"\n.\n",
    b"\r.\r",
    b"<",
    b">",
    b'"',
    b"\\",
    b"@",
    b" ENVID=+41",
    b" ORCPT=rfc822;a",
    b" SMTPUTF8",
    b"x" * 70,
    b"y" * 600,
    b"z" * 2500,
    b"GET / HTTP/1.1\r\n",
    b"LHLO c.example\r\n",
    b"VRFY a\r\n",
    b"HELP\r\n",
    b"ETRN x.example\r\n",
    b"XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE] HELO=h PROTO=ESMTP LOGIN=l\r\n",
    b"XFORWARD NAME=n ADDR=192.0.2.1 PORT=2 PROTO=SMTP HELO=h IDENT=i SOURCE=LOCAL\r\n",
    b" BODY=BINARYMIME",
    b" BODY=7BIT",
    b" SIZE=99999",
    b" RET=HDRS",
    b" NOTIFY=SUCCESS,FAILURE",
    b" NOTIFY=NEVER",
    b" AUTH=<>",
    b" REQUIRETLS",
    b" BY=120;RT",
    b" HOLDFOR=60",
    b" HOLDUNTIL=2030-01-01T00:00:00Z",
    b" MT-PRIORITY=-3",
    b" SOLICIT=org.example.ads",
    b"<Postmaster>",
    b"<@r.example:b@y.example>",
]


# What the octets behind the base64 of AUTH are made of.
SASL_WORDS = [
    b"n,,", b"y,,", b"p=tls-exporter,,", b"p=tls-server-end-point,,", b"n,a=user,", b"n=user", b",r=", b"a=", b"m=x,",
    b",", b"=2C", b"=3D", b"c=biws", b",p=", b"\0", b"user", b"pencil", b"user=", b"user@example.com", b"\1", b"\1\1",
    b"auth=Bearer ", b"host=h\1", b"\r\n", b"\n", b"\x7f", b"\xff", b"\xc2\xad", b"\xc2\x85", b"\xe2\x80\xa8",
    SERVER_NONCE, *(token.encode() for token in TOKENS),
]  # fmt: skip
_RESPONSE = re.compile(rb"(?:(?<=\n)|(?<= ))[A-Za-z0-9+/]{4,}={0,2}(?=\r\n)")


class Application(Dialogue):
    """Answers as the choices say, and keeps what it has committed."""

    def __init__(self, settings: ServerSettings, off: frozenset[str], choice: int) -> None:
        super().__init__(
            settings,
            denied=[b"no@y.example"],
            is_full=choice & 31 == 31,
            sasl=JudgedSasl(is_bound=bool(choice & 32), has_certificate=bool(choice & 16)) if choice & 1 else None,
            takes=("xclient", "xforward", "etrn") if choice & 2 else (),
        )
        self.settings = settings
        self.off = off
        self.refuses_data = choice & 12 == 4
        self.refuses_messages = choice & 12 == 8
        self.ends_at_denied = choice & 48 == 16
        self.recipients: list[bytes] = []
        self.committed: list[tuple[list[bytes], bytes]] = []
        self.is_introduced = False

    def _answer(self, event: server_events.ServerEvent) -> None:
        match event:
            case server_events.Mail():
                assert self.is_known() or not self.settings.auth_required
                self.recipients = []
            case server_events.Rcpt(forward_path=path) if path not in self.denied:
                self.recipients.append(path)
            case server_events.Rcpt() if self.ends_at_denied:
                self.session.refuse(b"421 4.7.1 Enough\r\n")
                self.events.append(event)
                return
            case server_events.Data() if self.refuses_data:
                self.session.refuse(b"451 4.3.0 Not now\r\n")
                self.events.append(event)
                return
            case server_events.Message() if self.refuses_messages:
                self._message = b""
                self.session.take_body()
                self.session.finish(b"554 5.7.1 Not this one\r\n")
                self.events.append(event)
                return
        super()._answer(event)
        match event:
            case server_events.Message():
                self.committed.append((self.recipients, self.messages[-1]))
            case server_events.XClient() | server_events.StartTls():
                self.is_introduced = isinstance(event, server_events.XClient)
                if isinstance(self.sasl, JudgedSasl):
                    self.sasl.is_in = False

    def is_known(self) -> bool:
        return self.is_introduced or (isinstance(self.sasl, JudgedSasl) and self.sasl.is_in)


def check(octets: bytes) -> None:
    """Plays a session whole, in pieces, a line at a time and octet by octet."""
    if len(octets) >= CHOICES:
        with mock.patch("angarium.sasl.scram.make_nonce", return_value=SERVER_NONCE):
            _check(octets)


def _check(octets: bytes) -> None:
    chance = random.Random(zlib.crc32(octets))
    number, choice, octets = octets[0], octets[1], octets[CHOICES:]
    whole = _played(number, octets, [], choice)
    cuts = [chance.randrange(len(octets) + 1) for _ in range(chance.randrange(1, 12))] if octets else []
    pieces = _played(number, octets, cuts, choice)
    each = _played(number, octets, list(range(1, len(octets))), choice) if len(octets) < 400 else pieces
    lines = _played(number, octets, line_ends(octets), choice)
    for dialogue in (whole, pieces, lines, each):
        _judge(dialogue, octets)
    for cut in (pieces, lines, each):
        if b"Improper pipelining" in whole.output or b"Octets in clear behind" in whole.output:
            # Octets behind a command that ends a group are seen as such only when they arrive with it.
            assert cut.messages[: len(whole.messages)] == whole.messages
            continue
        if b"Improper pipelining" in cut.output:
            continue
        assert cut.events == whole.events
        assert cut.messages == whole.messages
        assert _REFUSAL_ID.sub(b"\r\n", cut.output) == _REFUSAL_ID.sub(b"\r\n", whole.output)


def line_ends(octets: bytes) -> list[int]:
    return [match.end() for match in re.finditer(rb"\r\n", octets)]


def _played(number: int, octets: bytes, cuts: list[int], choice: int) -> Application:
    application = Application(*settings_of(number, choice), choice)
    application.greet()
    application.feed_in_pieces(octets, cuts)
    return application


def _judge(dialogue: Application, octets: bytes) -> None:
    settings = dialogue.settings
    assert dialogue.most_memory_octets <= MOST_MEMORY_OCTETS, dialogue.most_memory_octets
    at = 0
    while at < len(dialogue.output):
        reply = _REPLY.match(dialogue.output, at)
        assert reply is not None, dialogue.output[at : at + 80]
        assert reply[2] is None or reply[2] == reply[1][:1], reply[0]
        assert reply[1][:1] not in (b"4", b"5") or reply[2] is not None, reply[0]
        at = reply.end()
    _judge_order(dialogue)
    for message in dialogue.messages:
        assert len(message) <= MAX_MESSAGE_OCTETS
        assert settings.binarymime or _BARE.search(message) is None, message
    switches.judge_off(dialogue.off, dialogue.output, dialogue.events)
    client = TrustingClient(
        octets, dialogue.output, dialogue.session.is_closed, settings.is_lmtp, "chunking" not in dialogue.off
    )
    believed = client.read()
    for line, code in client.accepted:
        switches.judge_accepted(dialogue.off, line, code)
    assert [taken.message for taken in believed] == [message for _, message in dialogue.committed]
    for taken, (recipients, _) in zip(believed, dialogue.committed, strict=True):
        assert len(taken.recipients) == len(recipients) > 0
        for command, path in zip(taken.recipients, recipients, strict=True):
            assert path in command or settings.completion is not None, (command, path)
    if dialogue.session.is_closed:
        count, said = len(dialogue.events), len(dialogue.output)
        dialogue.feed(b"EHLO late.example\r\nMAIL FROM:<late@x.example>\r\n")
        assert (len(dialogue.events), len(dialogue.output)) == (count, said)


def _judge_order(dialogue: Application) -> None:
    """RFC 5321 §4.1.4, told from the events alone."""
    recipients = -1  # no transaction
    is_data = False
    may_be_over = False  # a chunk that is refused ends it, and is told as any command is
    for event in dialogue.events:
        match event:
            case server_events.Mail():
                assert recipients == -1 or may_be_over
                may_be_over = False
                recipients = -1 if dialogue.is_full else 0
            case server_events.Rcpt(forward_path=path):
                assert recipients >= 0
                recipients += path not in dialogue.denied
            case server_events.Data(is_chunking=is_chunking):
                assert recipients > 0
                is_data = not dialogue.refuses_data
                recipients = -1 if dialogue.refuses_data and is_chunking else recipients
            case server_events.Message():
                assert is_data
                recipients, is_data = -1, False
            case (
                server_events.Helo()
                | server_events.Reset()
                | server_events.StartTls()
                | server_events.Close()
                | server_events.XClient()
            ):
                recipients, is_data = -1, False
            case server_events.Refused(code=502) if "chunking" in dialogue.off:
                may_be_over = True
            case server_events.Refused(code=503 | 554) if recipients == 0:
                may_be_over = True  # a chunk before any recipient was accepted
            case server_events.Refused(reply=reply) if reply.startswith(replies.BDAT_NEEDS_EHLO[:-2]):
                may_be_over = True
            case server_events.Refused(code=code) if is_data and code in (552, 554):
                recipients, is_data = -1, False  # the message, or a chunk of it
            case _:
                pass
    assert dialogue.session.recipient_count <= 1000


def mutated(chance: random.Random, seeds: list[bytes]) -> bytes:
    """One of the corpus, changed a little: pieces cut, doubled, swapped with another's, words of SMTP put in."""
    octets = bytearray(chance.choice(seeds))
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(octets) + 1)
        kind = chance.randrange(7)
        if kind == 0:
            del octets[at : at + chance.randrange(1, 30)]
        elif kind == 1:
            octets[at:at] = chance.choice(WORDS)
        elif kind == 2:
            octets[at:at] = octets[at : at + chance.randrange(1, 60)]
        elif kind == 3 and octets:
            octets[at % len(octets)] = chance.randrange(256)
        elif kind == 4:
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            octets[at:] = other[start:]
        elif kind == 5 and (found := list(_RESPONSE.finditer(octets))):
            response = chance.choice(found)
            octets[response.start() : response.end()] = _mutated_response(chance, response[0])
        else:
            octets[at:at] = chance.choice(WORDS) + chance.choice(WORDS)
    if len(octets) >= CHOICES and chance.randrange(3) == 0:
        octets[:CHOICES] = chance.randbytes(CHOICES)  # other settings, most of them with extensions switched off
    return bytes(octets[:20_000])


def _mutated_response(chance: random.Random, base64_text: bytes) -> bytes:
    data = base64_text.rstrip(b"=")
    octets = bytearray(base64.b64decode(data[: len(data) - (len(data) % 4 == 1)] + b"=="))
    at = chance.randrange(len(octets) + 1)
    kind = chance.randrange(4)
    if kind == 0:
        del octets[at : at + chance.randrange(1, 8)]
    elif kind == 1:
        octets[at:at] = chance.choice(SASL_WORDS)
    elif kind == 2 and octets:
        octets[at % len(octets)] = chance.randrange(256)
    else:
        octets[at:] = chance.choice(SASL_WORDS)
    return base64.b64encode(octets)


def corpus() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.iterdir())]


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzzes whole server sessions.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    args = parser.parse_args()
    chance, seeds, count = random.Random(args.seed), corpus(), 0
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        octets = mutated(chance, seeds)
        try:
            check(octets)
        except AssertionError:
            name = f"session-{args.seed}-{count}"
            Path(name).write_bytes(octets)
            print(f"{name}: breaks an invariant", file=sys.stderr)
            raise
        count += 1
    print(f"{count} sessions, seed {args.seed}: no invariant broke")
    return 0


if __name__ == "__main__":
    sys.exit(main())
