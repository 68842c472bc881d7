"""Says which class a failure belongs to: the first rule that holds, from a list made once.

Asked once for each attempt that failed, never for one that succeeded. What was said lately is remembered, since a
site that is down says the same to everybody.
"""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from angarium.bounces.classes import CLASSES, UNCLASSIFIED
from angarium.bounces.rules import OWN_RULES, Reply, Rule, read_rules, words_of
from angarium.metrics.counters import counter
from angarium.model.outcome import Trouble

# Some 300 octets each, the reply's text included.
REMEMBERED: Final = 4096
_PIECE: Final = 4
_KEYS_MAX: Final = 1000
TEXT_OCTETS_MAX: Final = 1024  # of a reply from a report; those of SMTP are cut there already (csrc/smtp/reply.h)

# Made before workers are forked, so that every process has the same columns.
attempts_total = {
    name: counter(
        "angarium_failed_attempts_total", "Attempts that failed or were deferred, for each class.", {"class": name}
    )
    for name in CLASSES
}


class Verdict(msgspec.Struct, frozen=True):
    """rule None: no rule held. line: of its file, 0 where that cannot be told."""

    name: str
    rule: Rule | None = None
    line: int = 0


class Classifier:
    """rules: asked in order. Holds at most REMEMBERED answers besides."""

    def __init__(self, rules: Sequence[Rule] | None = None) -> None:
        self.rules = list(read_rules(OWN_RULES) if rules is None else rules)
        self._known: OrderedDict[tuple[int, tuple[int, int, int], str, str, str], str] = OrderedDict()
        self._index = _Index(self.rules)

    def name_of(self, trouble: Trouble) -> str:
        """The class of an attempt's failure."""
        mx = mx_of(trouble.remote)
        key = (trouble.code, trouble.status, trouble.phase, mx, trouble.text)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        name = self.verdict(trouble.code, status_text(trouble.status), trouble.text, phase=trouble.phase, mx=mx).name
        self._known[key] = name
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return name

    def count(self, trouble: Trouble) -> str:
        """name_of(), counted."""
        name = self.name_of(trouble)
        attempts_total[name].add(1)
        return name

    def verdict(self, code: int, status: str, text: str, *, phase: str = "", mx: str = "") -> Verdict:
        """The class with the rule that says so. status: "5.1.1" or "". phase: one of PHASES or ""."""
        reply = Reply(code, status, phase, mx.lower().rstrip("."), words_of(text[:TEXT_OCTETS_MAX]))
        for number in self._index.candidates(reply):
            rule = self.rules[number]
            line = rule.holds(reply)
            if line is not None:
                return Verdict(rule.name, rule, line)
        return Verdict(UNCLASSIFIED)


@functools.cache
def shared_classifier() -> Classifier:
    """With the rules that come with the program: for a scheduler that nobody has given another."""
    return Classifier()


def mx_of(remote: str) -> str:
    """The host's name of "host[address]:port", in lower case; "" when it has none."""
    return remote.partition("[")[0].lower() if "[" in remote else ""


def status_text(status: tuple[int, int, int]) -> str:
    """ "" for (0, 0, 0)."""
    return "{}.{}.{}".format(*status) if status[0] else ""


class _Index:
    """Which rules are worth asking about a reply: by pieces of four characters that their words have and it has too.

    Of some seven hundred phrases a reply has a few; without this each would be looked for.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        used = Counter(piece for rule in rules for text in rule.texts for piece in _pieces(text))
        self._by_piece: dict[str, tuple[int, ...]] = {}
        self._rules = rules
        # Those that have other conditions than words, or words too short to have a piece.
        self._others: list[int] = []
        self._others_of: dict[tuple[int, str, str], list[int]] = {}
        for number, rule in enumerate(rules):
            if not rule.texts or rule.matches or any(len(text) < _PIECE for text in rule.texts):
                self._others.append(number)
                continue
            for text in rule.texts:
                rarest = min(_pieces(text), key=lambda piece: (used[piece], " " in piece))
                self._by_piece[rarest] = (*self._by_piece.get(rarest, ()), number)

    def candidates(self, reply: Reply) -> list[int]:
        """Numbers of rules, rising: all that hold are among them."""
        key = (reply.code, reply.status, reply.phase)
        others = self._others_of.get(key)
        if others is None:
            others = [number for number in self._others if self._rules[number].holds_for(*key)]
            if len(self._others_of) >= _KEYS_MAX:
                self._others_of.clear()
            self._others_of[key] = others
        found = set(others)
        for piece in _pieces(reply.words):
            if piece in self._by_piece:
                found.update(self._by_piece[piece])
        return sorted(found)


def _pieces(text: str) -> set[str]:
    return {text[at : at + _PIECE] for at in range(len(text) - _PIECE + 1)}
