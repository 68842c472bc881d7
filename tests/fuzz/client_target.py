"""One run of the fuzz target for whole client sessions: what a hostile server says in, an AssertionError out when an
invariant breaks.

The first two octets choose what we are (LMTP, STARTTLS, AUTH, how bodies go) and how many transactions we try, the rest
is what the server says. The invariants, for any octets:

- events or BrokenDialogue, never another exception; texts bounded and without control octets;
- what we send is whole: commands that end with CRLF, each from the grammar below, and bodies behind a 354 or a BDAT
  only;
- replies are matched with commands in their order, as a slow reader here does it: as many recipients are told refused,
  and as many messages delivered, as there were such replies to such commands, no more and no fewer;
- each transaction is over once at the most, and one that was delivered had a recipient that was accepted;
- nothing said in clear counts after STARTTLS: the extensions are forgotten (RFC 3207 §4.2);
- what waits to be sent stays below MOST_OUTPUT_OCTETS.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from angarium.model.errors import LocalProtocolError
from angarium.smtp.client_session import EVENT_NAMES, STAGE_NAMES, BrokenDialogue, ClientSession, Event

CORPUS = Path(__file__).parent / "corpus" / "client"
CHOICES = 2
MOST_OUTPUT_OCTETS = 4096
BODY = b"body\r\n.dot\r\n"
STUFFED = b"body\r\n..dot\r\n.\r\n"

_COMMAND = re.compile(rb"(EHLO|LHLO|HELO|STARTTLS|AUTH|MAIL|RCPT|DATA|RSET|QUIT|BDAT|\.|cmVzcA==|\*)[ -~]*\r\n")
_LATE = re.compile(rb"(?:eHh4){166}eHg=\r\n")
_REPLY = re.compile(rb"(?:(\d\d\d)(?:-[^\r\n]*)\r\n)*(\d\d\d)(?: [^\r\n]*)?\r\n")

WORDS = [
    b"220 mx.example ESMTP\r\n",
    b"250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-DSN\r\n250-SIZE 9999\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
    b"250-mx.example\r\n250-STARTTLS\r\n250 HELP\r\n",
    b"250-mx.example\r\n250-LIMITS MAILMAX=1 RCPTMAX=2 RCPTDOMAINMAX=1\r\n250 PIPELINING\r\n",
    b"250-mx.example\r\n250-PIPELINING\r\n250 AUTH PLAIN LOGIN\r\n",
    b"334 VXNlcm5hbWU6\r\n",
    b"334\r\n",
    b"235 2.7.0 ok\r\n",
    b"535 5.7.8 no\r\n",
    b"250-",
    b"250 2.0.0 ok\r\n",
    b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.1.5 ok\r\n354 go\r\n",
    b"220 2.0.0 go\r\n",
    b"354 go\r\n",
    b"421 4.3.2 bye\r\n",
    b"450 4.2.0 later\r\n",
    b"451-4.3.0 later\r\n451 4.3.0 still\r\n",
    b"500 5.5.1 what\r\n",
    b"550 5.1.1 no\r\n",
    b"221 2.0.0 bye\r\n",
    b"999 x\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b"\xc3\xa9",
    b"-",
    b" ",
    b"x" * 520,
    b"250 " + b"y" * 1100 + b"\r\n",
]


@dataclass
class Expectation:
    """A command that went out. `slot` counts transactions."""

    verb: bytes
    slot: int = -1


class Dialogue:
    """A client that begins transactions whenever it may, and a slow reader that counts what replies must mean."""

    def __init__(self, choices: bytes) -> None:
        kind, self.transactions = choices[0], choices[1] % 6
        self.by = ["data", "bdat", "bdat-later"][kind % 3]
        self.session = ClientSession(
            b"client.example", is_lmtp=kind & 8 != 0, watches_for_loop=kind & 16 != 0, wants_tls=kind & 32 != 0
        )
        self.is_lmtp = kind & 8 != 0
        self.logs_in = kind & 64 != 0
        self.initial = b"x" * (500 if kind & 128 else 5)
        self.seen: list[object] = []
        self.sent = b""
        self.said = b""  # by the server, in clear and under TLS
        self.is_broken = False
        self.overs = 0
        self.started = 0

    def play(self, octets: bytes, cuts: list[int]) -> None:
        start = 0
        for end in [*sorted(cuts), len(octets)]:
            if end <= start and octets:
                continue
            self._receive(octets[start:end])
            if self.is_broken:
                return
            start = end

    def _receive(self, octets: bytes) -> None:
        try:
            events = self.session.receive(octets)
        except BrokenDialogue as error:
            self.is_broken = True
            assert self.session.is_closed
            self.seen += error.events_before
            for event in error.events_before:
                assert isinstance(event, Event)
                self._see(event)
            return
        for event in events:
            self.seen.append(event)
            self._see(event)
        self._log_in()
        self._begin()
        self._send()

    def _see(self, event: Event) -> None:
        assert event.kind in EVENT_NAMES
        assert event.stage in STAGE_NAMES
        assert len(event.text) <= 1024
        assert not any(octet < 32 and octet != 10 for octet in event.text)
        self.overs += event.is_over
        assert self.overs <= self.started
        if self.is_broken:
            return
        if event.kind == "send-body":
            self.session.send_body(event.slot, BODY)
        elif event.kind == "auth-challenge":
            assert not self.session.may_start
            self.session.respond_auth(b"resp" if self.session.challenge is not None else None)
        elif event.kind == "starttls":
            self._send()
            self.session.after_handshake()
            assert self.session.extensions == 0
            assert self.session.is_tls

    def _log_in(self) -> None:
        """Once, where it is offered and nothing was begun yet."""
        if self.logs_in and self.session.is_ready and b"PLAIN" in self.session.mechanisms.split() and not self.started:
            self.logs_in = False
            self.session.begin_auth("PLAIN", self.initial)

    def _begin(self) -> None:
        while self.transactions and self.session.may_start:
            self.transactions -= 1
            self.started += 1
            by = self.by if self.session.offers("CHUNKING") else "data"
            slot = self.session.start(b"a@x.example", [b"b@y.example", (b"c@y.example", 2, b"rfc822;c")], by=by)
            if by == "bdat" and self.session.offers("PIPELINING"):
                self.session.send_body(slot, BODY)
        if not self.transactions and self.session.is_ready:
            try:
                self.session.close()
            except LocalProtocolError:
                return

    def _send(self) -> None:
        output = self.session.take_output()
        assert len(output) <= MOST_OUTPUT_OCTETS
        self.sent += output
        self.seen.append(output)


def commands_of(sent: bytes) -> list[bytes]:
    """The verbs that get a reply, in order; "." for message data. Bodies are known, and nothing else goes out."""
    verbs = []
    at = 0
    while at < len(sent):
        if sent.startswith(STUFFED, at):
            at += len(STUFFED)
            verbs.append(b".")
            continue
        if match := _LATE.match(sent, at):      # an initial response that was too long for the command
            at = match.end()
            verbs.append(b"AUTH")
            continue
        match = _COMMAND.match(sent, at)
        assert match is not None, sent[at : at + 60]
        at = match.end()
        if match[1] == b"BDAT":
            assert match[0] == b"BDAT %d LAST\r\n" % len(BODY)
            assert sent.startswith(BODY, at)
            at += len(BODY)
        verbs.append(match[1])
    return verbs


def check(octets: bytes) -> None:
    if len(octets) < CHOICES:
        return
    chance = random.Random(zlib.crc32(octets))
    choices, octets = octets[:CHOICES], octets[CHOICES:]
    cuts = [chance.randrange(len(octets) + 1) for _ in range(chance.randrange(1, 12))] if octets else []
    for each in ([], cuts, list(range(1, len(octets))) if len(octets) < 400 else []):
        dialogue = Dialogue(choices)
        dialogue.play(octets, each)
        judge(dialogue, octets)


def judge(dialogue: Dialogue, octets: bytes) -> None:
    commands = deque(commands_of(dialogue.sent))
    codes = [int(match[2]) for match in _REPLY.finditer(octets)]
    events = [event for event in dialogue.seen if isinstance(event, Event)]
    delivered = sum(event.kind in ("delivered", "recipient-delivered") for event in events)
    ends = sum(verb in (b".", b"BDAT") for verb in commands) * (2 if dialogue.is_lmtp else 1)
    assert delivered <= ends
    assert dialogue.overs <= dialogue.started
    if not dialogue.is_broken and not dialogue.session.is_closed and codes and dialogue.session.reply_count:
        _judge_outcomes(dialogue, commands, codes[: dialogue.session.reply_count], events)


def _judge_outcomes(
    dialogue: Dialogue, commands: deque[bytes], codes: list[int], events: list[Event]
) -> None:
    """Replies against commands, one by one, and what they must have been told as."""
    delivered = refused = accepted = pending = 0
    is_mail_ok = False
    for number, code in enumerate(codes):
        if number == 0:
            continue  # the greeting
        if pending:
            pending -= 1
            delivered += code < 300
            refused += code >= 400
            continue
        assert commands, "a reply to nothing was taken"
        verb = commands.popleft()
        if verb == b"MAIL":
            is_mail_ok, accepted = code < 300, 0
        elif verb == b"RCPT":
            accepted += is_mail_ok and code < 300
            refused += is_mail_ok and code >= 400
        elif verb in (b".", b"BDAT") and is_mail_ok and accepted:
            delivered += code < 300
            if dialogue.is_lmtp:
                refused += code >= 400
                pending = accepted - 1
    assert delivered == sum(event.kind in ("delivered", "recipient-delivered") for event in events)
    assert refused == sum(event.kind == "recipient-refused" for event in events)
