"""Reads and plays tests/transcripts/client/*.txt: what a client does with a server's replies.

--- name
# reason and RFC
= lmtp loop tls begins-with-tls  how the session begins; tls: STARTTLS where offered
= ready pipelining chunking ...  the hello is over, with these extensions
S: octets                        what the server sends
C: octets                        all that the client sends because of the line(s) before; "-": nothing.
                                 Without a C line behind S nothing may be sent either
E: send-body delivered(over, slot=0) !       events, with the fields that matter; "!": RemoteProtocolError
X: PIPELINING SIZE=1000          the extensions known now; "-": none. MAILMAX=N RCPTMAX=N RCPTDOMAINMAX=N: of LIMITS
> start [by=bdat] [size=N] [8bit] [utf8] [requiretls] [ret=X] [envid=X] <reverse-path> <forward-path>[;notify;orcpt] ...
                                 further options: [by=60;R] [priority=N] [solicit=X] [submitter=X]
> body octets                    to the transaction that may send its body (or was started by=bdat)
> quit
> handshake                      TLS is up
> login MECHANISM                with PASSWORD or TOKEN; challenges are answered as the mechanism does. "fault" behind
                                 the events: why it gave up
> auth MECHANISM [octets]        by hand; "-": an empty initial response
> respond octets                 "-": an empty one
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from angarium.sasl import client
from angarium.sasl.client import ClientExchange, Credentials, Derive, Fault
from angarium.sasl.login_options import WITH_TOKEN, LoginOptions
from angarium.smtp.client_session import BrokenDialogue, ClientSession, Event

FOLDER = Path(__file__).parent.parent / "transcripts" / "client"
HOSTNAME = b"relay.example.org"
EXTENSIONS = (
    "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES", "REQUIRETLS",
    "DELIVERBY", "MT-PRIORITY", "NO-SOLICITING", "LIMITS",
)  # fmt: skip

# RFC 7677 §3's and RFC 7628 §4's own
NONCE, PASSWORD = b"rOprNGfwEbeRWgbNEkqO", "pencil"
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg"

_ESCAPE = re.compile(r"\\(r|n|\\)")
_EVENT = re.compile(r"(!|[a-z-]+)(?:\(([^)]*)\))?")


@dataclass
class ClientTranscript:
    name: str
    reason: str = ""
    settings: list[str] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)


def read_all() -> list[ClientTranscript]:
    found: list[ClientTranscript] = []
    for path in sorted(FOLDER.glob("*.txt")):
        in_file = len(found)
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("--- "):
                found.append(ClientTranscript(f"{path.stem}: {line[4:]}"))
            elif line.startswith("#") and len(found) > in_file:
                found[-1].reason += line[1:].strip() + " "
            elif line.startswith("= "):
                found[-1].settings += line[2:].split()
            elif line[:2] in ("S:", "C:", "E:", "X:"):
                found[-1].lines.append((line[0], line[3:]))
            elif line.startswith("> "):
                found[-1].lines.append((">", line[2:]))
            elif line.strip() and not line.startswith("#"):
                raise ValueError(f"{path.name}: {line!r}")
    return found


def octets_of(text: str) -> bytes:
    plain = {"r": "\r", "n": "\n", "\\": "\\"}
    return _ESCAPE.sub(lambda match: plain[match[1]], text).encode()


def play(transcript: ClientTranscript, cuts_of: Callable[[bytes], Iterable[int]]) -> None:
    Player(transcript.settings, cuts_of).play(transcript)


class Binding:
    """A channel whose binding anybody can look up."""

    def channel_binding(self, kind: str) -> bytes | None:
        return b"0123456789abcdef" if kind == "tls-exporter" else None


class Player:
    def __init__(self, settings: list[str], cuts_of: Callable[[bytes], Iterable[int]]) -> None:
        self.cuts_of = cuts_of
        self.session = ClientSession(
            HOSTNAME, "lmtp" in settings, "loop" in settings, "tls" in settings, "begins-with-tls" in settings
        )
        self.events: list[Event] = []
        self.output = b""
        self.is_broken = False
        self.slot = -1
        self.exchange: ClientExchange | None = None
        self.faults: list[str] = []
        keywords = [word.upper() for word in settings if word.upper() in EXTENSIONS]
        if keywords or "ready" in settings:
            self.session.receive(
                b"220 mx\r\n250-mx\r\n" + b"".join(b"250-%b\r\n" % k.encode() for k in keywords) + b"250 HELP\r\n"
            )
            self.session.take_output()

    def play(self, transcript: ClientTranscript) -> None:
        lines = transcript.lines
        for number, (kind, text) in enumerate(lines):
            where = f"{transcript.name}: {kind} {text}"
            if kind == "S":
                self._expect_nothing_left(where)
                self.feed(octets_of(text))
            elif kind == ">":
                self.act(text)
            elif kind == "C":
                expected = b"" if text == "-" else octets_of(text)
                assert self.output == expected, where
                self.output = b""
            elif kind == "E":
                self.check_events(text, where)
            else:
                self.check_extensions(text, where)
            if kind == "S" and not any(each[0] == "C" for each in lines[number + 1 : number + 3]):
                assert self.output == b"", where

    def feed(self, octets: bytes) -> None:
        edges = [0, *sorted(set(self.cuts_of(octets))), len(octets)]
        for start, end in itertools.pairwise(edges):
            if start == end or self.is_broken:
                continue
            try:
                events = self.session.receive(octets[start:end])
                self.events += events
                if self.exchange is not None:
                    self.answer(self.exchange, events)
            except BrokenDialogue as error:
                self.events += error.events_before
                self.is_broken = True
            self.output += self.session.take_output()

    def log_in(self, mechanism: str) -> None:
        options = (
            LoginOptions(user="user@example.com", token_file="/t", mechanisms=[mechanism])  # type: ignore[list-item]
            if mechanism in WITH_TOKEN
            else LoginOptions(user="user", password_file="/p", mechanisms=[mechanism])  # type: ignore[list-item]
        )
        credentials = Credentials(options, TOKEN if mechanism in WITH_TOKEN else PASSWORD)
        offered = frozenset(self.session.mechanisms.decode().split())
        channel = Binding() if self.session.is_tls else None
        assert client.choose(credentials, offered, channel) == mechanism
        self.exchange = ClientExchange(mechanism, credentials, offered, channel)  # type: ignore[arg-type]
        made, client.make_nonce = client.make_nonce, lambda: NONCE
        try:
            self.session.begin_auth(mechanism, self.exchange.start())
        finally:
            client.make_nonce = made

    def answer(self, exchange: ClientExchange, events: list[Event]) -> None:
        try:
            for event in events:
                if event.kind == "auth-challenge":
                    response = exchange.respond(self.session.challenge)
                    if isinstance(response, Derive):
                        response = exchange.derived(response.compute())
                    self.session.respond_auth(response)
                elif event.kind == "authenticated":
                    exchange.finish()
        except Fault as fault:
            self.faults.append(str(fault))
            if events[-1].kind == "auth-challenge":
                self.session.respond_auth(None)

    def act(self, text: str) -> None:
        verb, _, rest = text.partition(" ")
        if verb == "quit":
            self.session.close()
        elif verb == "handshake":
            self.session.after_handshake()
        elif verb == "login":
            self.log_in(rest)
        elif verb == "auth":
            mechanism, _, initial = rest.partition(" ")
            self.session.begin_auth(mechanism, initial.removeprefix("-").encode() if initial else None)
        elif verb == "respond":
            self.session.respond_auth(rest.removeprefix("-").encode())
        elif verb == "body":
            self.session.send_body(self.slot, octets_of(rest))
        else:
            self.start(rest.split())
        self.output += self.session.take_output()

    def start(self, words: list[str]) -> None:
        options: dict[str, object] = {}
        paths: list[tuple[bytes, int, bytes]] = []
        for word in words:
            if word.startswith("<"):
                path, _, rest = word[1:].partition(">")
                notify, _, orcpt = rest[1:].partition(";")
                paths.append((path.encode(), int(notify or 0), orcpt.encode()))
            elif word == "8bit":
                options["is_8bit"] = True
            elif word == "utf8":
                options["is_smtputf8"] = True
            elif word == "requiretls":
                options["requires_tls"] = True
            else:
                key, _, value = word.partition("=")
                if key == "by" and ";" in value:
                    seconds, mode = value.split(";")
                    options["deliver_by"] = (int(seconds), mode[0], mode.endswith("T"))
                    continue
                options[{"size": "message_octets"}.get(key, key)] = (
                    int(value)
                    if key in ("size", "priority")
                    else value.encode()
                    if key in ("envid", "solicit", "submitter")
                    else value
                )
        self.slot = self.session.start(paths[0][0], list(paths[1:]), **options)  # type: ignore[arg-type]

    def check_events(self, text: str, where: str) -> None:
        text, _, fault = text.partition(" fault ")
        assert self.faults == ([fault] if fault else []), where
        self.faults = []
        expected = _EVENT.findall(text)
        found = [event.kind for event in self.events] + (["!"] if self.is_broken else [])
        assert found == [name for name, _ in expected], where
        for event, (_, fields) in zip(self.events, expected, strict=False):
            named = [item for item in fields.split(", ") if item]
            if event.kind != "send-body":
                assert event.is_over == ("over" in named), where
            else:
                self.slot = event.slot
            for item in named:
                key, _, value = item.partition("=")
                if key == "status":
                    assert ".".join(map(str, event.status)) == value, where
                elif key != "over":
                    assert str(getattr(event, key)) == value, where
        self.events = []

    def check_extensions(self, text: str, where: str) -> None:
        session = self.session
        numbers = {"SIZE": session.size_limit, "DELIVERBY": session.by_minimum_s}
        limits = {
            f"MAILMAX={session.mail_limit}",
            f"RCPTMAX={session.recipient_limit}",
            f"RCPTDOMAINMAX={session.domain_limit}",
        }
        found = [
            f"{keyword}={numbers[keyword]}" if keyword in numbers else keyword
            for keyword in EXTENSIONS
            if session.offers(keyword)
        ]
        words = [] if text == "-" else text.split()
        assert found == [word for word in words if "MAX=" not in word], where
        assert {word for word in words if "MAX=" in word} <= limits, where

    def _expect_nothing_left(self, where: str) -> None:
        assert self.output == b"", where
        assert not self.events, where
