"""Reads tests/transcripts/*.txt: dialogues as data.

    --- name
    # reason and RFC, free text
    = max_message_octets=1000 max_errors=3
                         settings of the session; `denied=<path>` and `full` are about the application;
                         `auth=PLAIN,LOGIN` offers AUTH, with a binding when `bound`, a client's `certificate=name`;
                         `auth=`: only TLS is missing;
                         `takes=xclient,xforward,etrn`: which of these are offered; `completion=x.example`
                         `whole`: played as one block only, because arriving together is the point
    C: octets            what the client sends; escapes \\r \\n \\t \\\\ \\xNN; {text*count} repeats
    S: 250 2.1.0 / 354   replies, each the start of one (of its last line)
    E: MailFrom(reverse_path=a@x.example) DataStart
                         events, each with the fields that matter; "-": none
    M: octets            the message that was taken, without trace field
Consecutive C lines are one block; the S, E and M lines that follow are all that it causes. The greeting is
implied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "transcripts"

_ESCAPE = re.compile(rb"\\(r|n|t|\\|x[0-9a-fA-F]{2})")
_REPEAT = re.compile(rb"\{(.*?)\*(\d+)\}", re.DOTALL)
_EVENT = re.compile(r"(\w+)(?:\(([^)]*)\))?|-")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}


@dataclass
class Block:
    octets: bytes = b""
    replies: list[str] = field(default_factory=list)
    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    is_answered: bool = False


@dataclass
class Transcript:
    name: str
    reason: str = ""
    settings: dict[str, int | str] = field(default_factory=dict)
    denied: list[bytes] = field(default_factory=list)
    is_full: bool = False
    is_whole: bool = False
    mechanisms: str | None = None
    is_bound: bool = False
    certificate: str | None = None
    takes: list[str] = field(default_factory=list)
    completion: bytes | None = None
    blocks: list[Block] = field(default_factory=list)


def read(path: Path) -> list[Transcript]:
    """The transcripts of one file; a line of dashes and a name begins each."""
    transcripts: list[Transcript] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("--- "):
            transcripts.append(Transcript(f"{path.stem}: {line[4:].strip()}"))
        elif line.startswith("#") and transcripts:
            transcripts[-1].reason += line[1:].strip() + " "
        elif line.startswith("= "):
            _set(transcripts[-1], line[2:])
        elif line[:3] in ("C: ", "S: ", "E: ", "M: "):
            _add(transcripts[-1], line[0], line[3:])
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"{path.name}:{number}: {line!r}")
    return transcripts


def read_all() -> list[Transcript]:
    return [transcript for path in sorted(FOLDER.glob("*.txt")) for transcript in read(path)]


def octets_of(text: str) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code[1:], 16)]) if code[:1] == b"x" else _PLAIN[code]

    # Escapes inside a repeated text first, so that "{a\\r\\n*3}" is three lines.
    return _REPEAT.sub(lambda match: match[1] * int(match[2]), _ESCAPE.sub(plain, text.encode()))


def _set(transcript: Transcript, text: str) -> None:
    for word in text.split():
        key, _, value = word.partition("=")
        if key == "whole":
            transcript.is_whole = True
        elif key == "full":
            transcript.is_full = True
        elif key == "auth":
            transcript.mechanisms = value.replace(",", " ")
        elif key == "bound":
            transcript.is_bound = True
        elif key == "certificate":
            transcript.certificate = value
        elif key == "takes":
            transcript.takes = value.split(",")
        elif key == "completion":
            transcript.completion = value.encode()
        elif key == "denied":
            transcript.denied.append(value.encode())
        else:
            transcript.settings[key] = int(value) if value.removeprefix("-").isdigit() else value


def _add(transcript: Transcript, kind: str, text: str) -> None:
    if kind == "C":
        if not transcript.blocks or transcript.blocks[-1].is_answered:
            transcript.blocks.append(Block())
        transcript.blocks[-1].octets += octets_of(text)
        return
    block = transcript.blocks[-1]
    block.is_answered = True
    if kind == "S":
        block.replies += [reply.strip() for reply in text.split(" / ") if reply.strip() != "-"]
    elif kind == "E":
        for match in _EVENT.finditer(text):
            if match[1]:
                fields = dict(item.split("=", 1) for item in (match[2] or "").split(", ") if item)
                block.events.append((match[1], fields))
    else:
        block.messages.append(octets_of(text))
