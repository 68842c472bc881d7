"""One run of the fuzz target for whole server sessions: octets and a seed in, an AssertionError out when an
invariant breaks.

The invariants: any octets give events and well-formed replies, never an exception and never much memory; the
same ones for every cut; a message is taken only behind a MAIL, a RCPT and a DATA or BDAT that were all accepted
in one transaction; nothing is taken once the session has ended; what is taken holds no bare CR or LF and no
NUL, and each was answered 250 once.

`python -m fuzz.session_target --seconds 60 [--seed N]` mutates the corpus beside this file for as long as it is
told; inputs that break something are written to the current directory. A test does the same briefly
(test_session.py).
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from pathlib import Path

from smtp.sasl_peer import SaslPeer
from smtp.server_dialogue import Dialogue

from angarium.smtp import server_events
from angarium.smtp.refusal_ids import RefusalIds
from angarium.smtp.server_settings import ServerSettings

CORPUS = Path(__file__).parent / "corpus" / "session"
# Partial line or AUTH line, body with room to grow, replies of one feed.
MOST_MEMORY_OCTETS = 96 << 10
MAX_MESSAGE_OCTETS = 5000

SETTINGS = [
    ServerSettings(
        "mx.test.example", max_message_octets=MAX_MESSAGE_OCTETS, max_errors=6, run_octets=4096, max_recipients=3
    ),
    ServerSettings(
        "mx.test.example", max_message_octets=MAX_MESSAGE_OCTETS, max_errors=1000, run_octets=512, starttls=True
    ),
    ServerSettings(
        "mx.test.example",
        max_message_octets=MAX_MESSAGE_OCTETS,
        max_errors=50,
        run_octets=4096,
        max_line_octets=1000,
        refusal_ids=RefusalIds(),
        tells_refusal_ids=True,
    ),
]
_REPLY = re.compile(rb"(?:\d{3}-[ -~]*\r\n)*(\d{3}) (?:(\d)\.\d{1,3}\.\d{1,3} )?[ -~]*\r\n")
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
]


def check(octets: bytes, seed: int) -> None:
    """Plays the octets whole and in pieces, under settings that the seed chooses."""
    chance = random.Random(seed)
    settings = SETTINGS[seed % len(SETTINGS)]
    options = {"denied": [b"no@y.example"], "is_full": seed % 11 == 0}
    whole = _played(settings, octets, [], options, seed)
    cuts = [chance.randrange(len(octets) + 1) for _ in range(chance.randrange(1, 12))] if octets else []
    pieces = _played(settings, octets, cuts, options, seed)
    each = _played(settings, octets, list(range(1, len(octets))), options, seed) if len(octets) < 400 else pieces
    for dialogue in (whole, pieces, each):
        _judge(dialogue)
    for cut in (pieces, each):
        if b"Improper pipelining" in whole.output or b"Octets in clear behind" in whole.output:
            # Octets behind a command that ends a group are seen as such only when they arrive with it.
            assert cut.messages[: len(whole.messages)] == whole.messages
            continue
        if b"Improper pipelining" in cut.output:
            continue
        assert cut.events == whole.events
        assert cut.messages == whole.messages
        assert _REFUSAL_ID.sub(b"\r\n", cut.output) == _REFUSAL_ID.sub(b"\r\n", whole.output)


def _played(
    settings: ServerSettings, octets: bytes, cuts: list[int], options: dict[str, object], seed: int
) -> Dialogue:
    sasl = SaslPeer(b"PLAIN LOGIN SCRAM-SHA-256") if seed % 3 == 1 else None
    dialogue = Dialogue(settings, sasl=sasl, **options)  # type: ignore[arg-type]
    dialogue.greet()
    dialogue.feed_in_pieces(octets, cuts)
    return dialogue


def _judge(dialogue: Dialogue) -> None:
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
        assert _BARE.search(message) is None, message
    assert dialogue.output.count(b"250 2.0.0 Ok: queued as") == len(dialogue.messages)
    if dialogue.session.is_closed:
        count, said = len(dialogue.events), len(dialogue.output)
        dialogue.feed(b"EHLO late.example\r\nMAIL FROM:<late@x.example>\r\n")
        assert (len(dialogue.events), len(dialogue.output)) == (count, said)


def _judge_order(dialogue: Dialogue) -> None:
    """RFC 5321 §4.1.4, told from the events alone."""
    recipients = -1  # no transaction
    is_data = False
    for event in dialogue.events:
        match event:
            case server_events.Mail():
                assert recipients == -1
                recipients = -1 if dialogue.is_full else 0
            case server_events.Rcpt(forward_path=path):
                assert recipients >= 0
                recipients += path not in dialogue.denied
            case server_events.Data():
                assert recipients > 0
                is_data = True
            case server_events.Message():
                assert is_data
                recipients, is_data = -1, False
            case server_events.Helo() | server_events.Reset() | server_events.StartTls() | server_events.Close():
                recipients, is_data = -1, False
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
        kind = chance.randrange(6)
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
        else:
            octets[at:at] = chance.choice(WORDS) + chance.choice(WORDS)
    return bytes(octets[:20_000])


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
        octets, seed = mutated(chance, seeds), chance.randrange(1 << 32)
        try:
            check(octets, seed)
        except AssertionError:
            name = f"session-{args.seed}-{count}"
            Path(name).write_bytes(octets)
            print(f"{name}: breaks an invariant with seed {seed}", file=sys.stderr)
            raise
        count += 1
    print(f"{count} sessions, seed {args.seed}: no invariant broke")
    return 0


if __name__ == "__main__":
    sys.exit(main())
