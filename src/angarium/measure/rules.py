"""How a sink misbehaves: rules per verb with odds, read from options such as `rcpt@10=450`. Values and
their reading.
"""

from __future__ import annotations

import random
import re
from typing import Literal

import msgspec

# "connect" is the greeting, "." the end of the data of DATA or the last BDAT chunk's.
VERBS = (
    "connect",
    "helo",
    "ehlo",
    "lhlo",
    "mail",
    "rcpt",
    "data",
    ".",
    "bdat",
    "rset",
    "noop",
    "vrfy",
    "quit",
)
_REPLY = re.compile(r"([2-5][0-9][0-9])(?: (.*))?", re.DOTALL)
_PLAIN_TEXT = {"2": "2.0.0 OK", "3": "Go on", "4": "4.3.0 Try again later", "5": "5.3.0 No"}


class Rule(msgspec.Struct, frozen=True):
    """What to do instead of the usual reply to `verb`, in `percent` of all cases.

    action   "reply": send `reply` (complete, with CRLF); a 421 also closes. "delay": wait `delay_s` before
             whatever reply comes. "disconnect": close without a reply.
    """

    verb: str
    action: Literal["reply", "delay", "disconnect"]
    percent: float = 100.0
    reply: bytes = b""
    delay_s: float = 0.0


class Conduct(msgspec.Struct, frozen=True):
    """What the rules make of one command: wait, then reply (None: as usual) or close without a word."""

    delay_s: float = 0.0
    reply: bytes | None = None
    is_disconnect: bool = False


class Rules:
    """All rules of a sink, by verb. Of several replies or disconnects for a verb the first whose dice fall
    decides.
    """

    def __init__(self, rules: list[Rule], seed: int | None = None) -> None:
        self._by_verb: dict[str, list[Rule]] = {}
        for rule in rules:
            self._by_verb.setdefault(rule.verb, []).append(rule)
        self._chance = random.Random(seed)

    def verbs(self) -> frozenset[str]:
        """Verbs that need asking; the others are answered without looking here."""
        return frozenset(self._by_verb)

    def conduct(self, verb: str) -> Conduct:
        """Rolls the dice for one command."""
        delay_s, reply, is_disconnect = 0.0, None, False
        for rule in self._by_verb.get(verb, ()):
            if rule.percent < 100 and self._chance.random() * 100 >= rule.percent:
                continue
            if rule.action == "delay":
                delay_s += rule.delay_s
            elif reply is None and not is_disconnect:
                reply, is_disconnect = (rule.reply, False) if rule.action == "reply" else (None, True)
        return Conduct(delay_s, reply, is_disconnect)


def encode_reply(code: int, text: str) -> bytes:
    """A reply with CRLF at the end of each line; lines of `text` are separated by LF."""
    lines = text.split("\n")
    return b"".join(
        f"{code}{' ' if i == len(lines) - 1 else '-'}{line}\r\n".encode() for i, line in enumerate(lines)
    )


def _verb_and_percent(text: str) -> tuple[str, float]:
    verb, at, percent_text = text.strip().lower().partition("@")
    if verb not in VERBS:
        raise ValueError(f"{verb!r} is no verb; there are {', '.join(VERBS)}")
    if not at:
        return verb, 100.0
    try:
        percent = float(percent_text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent_text!r} is no percentage from 0 to 100")
    return verb, percent


def parse_reply_rule(text: str) -> Rule:
    """`rcpt=450`, `rcpt@10=450`, `.=554 5.7.1 No such luck`; "\\n" in the text starts another line of the
    reply.
    """
    head, equals, value = text.partition("=")
    verb, percent = _verb_and_percent(head)
    found = _REPLY.fullmatch(value.strip())
    if not equals or not found or "\r" in value:
        raise ValueError(f"{text!r} is not VERB[@PERCENT]=CODE[ TEXT]")
    said = found[2].replace("\\n", "\n") if found[2] else _PLAIN_TEXT[found[1][0]]
    return Rule(verb, "reply", percent, reply=encode_reply(int(found[1]), said))


def parse_delay_rule(text: str) -> Rule:
    """`data=0.5` or `data@5=30`, in seconds."""
    head, _, value = text.partition("=")
    verb, percent = _verb_and_percent(head)
    try:
        delay_s = float(value)
    except ValueError:
        delay_s = -1.0
    if not 0 <= delay_s < float("inf"):
        raise ValueError(f"{text!r} is not VERB[@PERCENT]=SECONDS")
    return Rule(verb, "delay", percent, delay_s=delay_s)


def parse_disconnect_rule(text: str) -> Rule:
    """`mail` or `.@1`."""
    verb, percent = _verb_and_percent(text)
    return Rule(verb, "disconnect", percent)
