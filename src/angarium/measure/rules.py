"""How a sink misbehaves: rules per verb with odds, read from options such as `rcpt@10=450`. Values and
their reading.
"""

from __future__ import annotations

import random
import re
from typing import Literal

import msgspec

# "connect" is the greeting, "." the end of the data of DATA or the last BDAT chunk's ("dot" is the same), "*"
# each reply.
EVERY_VERB = "*"
VERBS = (
    "connect",
    "helo",
    "ehlo",
    "lhlo",
    "starttls",
    "auth",
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
_DELAY = re.compile(r"(~?)(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", re.ASCII)
_PLAIN_TEXT = {"2": "2.0.0 OK", "3": "Go on", "4": "4.3.0 Try again later", "5": "5.3.0 No"}


class Delay(msgspec.Struct, frozen=True):
    """Seconds: always `low_s`; with `high_s` anything between the two; `is_exponential`: `low_s` on average, most of
    them shorter, some much longer.
    """

    low_s: float
    high_s: float = 0.0
    is_exponential: bool = False

    @property
    def is_fixed(self) -> bool:
        return not self.high_s and not self.is_exponential

    def draw(self, chance: random.Random) -> float:
        """How long this time."""
        if self.is_exponential:
            return chance.expovariate(1 / self.low_s) if self.low_s else 0.0
        return chance.uniform(self.low_s, self.high_s) if self.high_s else self.low_s


class Rule(msgspec.Struct, frozen=True):
    """What to do instead of the usual reply to `verb`, in `percent` of all cases.

    action   "reply": send `reply` (complete, with CRLF); a 421 also closes. "delay": wait `delay` before
             whatever reply comes. "disconnect": close without a reply.
    """

    verb: str
    action: Literal["reply", "delay", "disconnect"]
    percent: float = 100.0
    reply: bytes = b""
    delay: Delay = Delay(0.0)


class Conduct(msgspec.Struct, frozen=True):
    """What the rules make of one command: wait, then reply (None: as usual) or close without a word."""

    delay_s: float = 0.0
    reply: bytes | None = None
    is_disconnect: bool = False


class Rules:
    """All rules of a sink, by verb. Of several replies or disconnects for a verb the first whose dice fall
    decides.

    chance  the dice; by default of their own, with `seed`.
    """

    def __init__(self, rules: list[Rule], seed: int | None = None, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random(seed)
        self._by_verb: dict[str, list[Rule]] = {}
        self._certain: dict[str, Conduct] = {}
        for verb in VERBS:
            if found := [rule for rule in rules if rule.verb in (verb, EVERY_VERB)]:
                self._by_verb[verb] = found
                if all(rule.percent == 100 and rule.delay.is_fixed for rule in found):
                    self._certain[verb] = self._roll(found)

    def verbs(self) -> frozenset[str]:
        """Verbs that need asking; the others are answered without looking here."""
        return frozenset(self._by_verb)

    def conduct(self, verb: str) -> Conduct:
        """Rolls the dice for one command."""
        return self._certain.get(verb) or self._roll(self._by_verb.get(verb, []))

    def _roll(self, rules: list[Rule]) -> Conduct:
        delay_s, reply, is_disconnect = 0.0, None, False
        for rule in rules:
            if rule.percent < 100 and self._chance.random() * 100 >= rule.percent:
                continue
            if rule.action == "delay":
                delay_s += rule.delay.draw(self._chance)
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
    verb = "." if verb == "dot" else verb
    if verb not in VERBS and verb != EVERY_VERB:
        raise ValueError(f"{verb!r} is no verb; there are {', '.join(VERBS)}, and {EVERY_VERB} for each of them")
    if not at:
        return verb, 100.0
    try:
        percent = float(percent_text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent_text!r} is no percentage from 0 to 100")
    return verb, percent


def parse_reply(text: str) -> bytes:
    """`450`, `554 5.7.1 No such luck`; "\\n" in the text starts another line of the reply."""
    found = _REPLY.fullmatch(text.strip())
    if not found or "\r" in text:
        raise ValueError(f"{text!r} is not CODE[ TEXT]")
    said = found[2].replace("\\n", "\n") if found[2] else _PLAIN_TEXT[found[1][0]]
    return encode_reply(int(found[1]), said)


def parse_reply_rule(text: str) -> Rule:
    """`rcpt=450`, `rcpt@10=450`, `.=554 5.7.1 No such luck`; "\\n" in the text starts another line of the
    reply.
    """
    head, equals, value = text.partition("=")
    verb, percent = _verb_and_percent(head)
    try:
        return Rule(verb, "reply", percent, reply=parse_reply(value if equals else ""))
    except ValueError:
        raise ValueError(f"{text!r} is not VERB[@PERCENT]=CODE[ TEXT]") from None


def parse_delay_rule(text: str) -> Rule:
    """In seconds: `data=0.5` or `data@5=30`; `*=0.1-0.5` between two, `*=~0.2` exponential with that mean."""
    head, equals, value = text.partition("=")
    verb, percent = _verb_and_percent(head)
    found = _DELAY.fullmatch(value.strip())
    if not equals or not found or (found[1] and found[3]):
        raise ValueError(f"{text!r} is not VERB[@PERCENT]=SECONDS, =FROM-TO or =~MEAN")
    delay = Delay(float(found[2]), float(found[3] or 0), bool(found[1]))
    if delay.high_s and delay.high_s < delay.low_s:
        raise ValueError(f"{text!r}: the longer delay comes second")
    return Rule(verb, "delay", percent, delay=delay)


def parse_disconnect_rule(text: str) -> Rule:
    """`mail` or `.@1`."""
    verb, percent = _verb_and_percent(text)
    return Rule(verb, "disconnect", percent)
