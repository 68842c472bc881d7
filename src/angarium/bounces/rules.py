"""Rule files: TOML, `[[rule]]` after `[[rule]]`, read once into what a classifier asks in order.

A rule names a class and the conditions that must all hold; of a list one must. It remembers file and line, so that
an operator can be told which one spoke. Nothing here is asked by mail that is delivered.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from angarium.bounces.classes import CLASSES, PHASES
from angarium.model.errors import AngariumError

_CODE: Final = re.compile(r"[245]([0-9]{2}|[0-9]x|xx)|none", re.ASCII)
_STATUS: Final = re.compile(r"[245*]\.([0-9]{1,3}|\*)\.([0-9]{1,3}|\*)", re.ASCII)
_HEAD: Final = re.compile(r"\s*\[\[\s*rule\s*\]\]", re.ASCII)
_LINE_STATUS: Final = re.compile(r"^[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)", re.MULTILINE | re.ASCII)
_SPACE: Final = re.compile(r"\s+")
FILE_OCTETS_MAX: Final = 4 << 20

OWN_RULES: Final = (Path(__file__).with_name("classes.toml"), Path(__file__).with_name("iana.toml"))
"""What comes with the program, asked in this order behind the operator's own files."""


class RuleError(AngariumError):
    """A rule file that cannot be used; the text has file, line and reason."""


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"class_": "class"}):
    """One [[rule]] as it is written."""

    class_: str
    code: str | int | list[str | int] = []
    status: str | list[str] = []
    phase: str | list[str] = []
    mx: str | list[str] = []
    text: str | list[str] = []
    match: str | list[str] = []


class Reply(msgspec.Struct, frozen=True):
    """What rules look at.

    code    0 when the peer said nothing.   status  "5.1.1"; "" when there is none.
    words   of the text: lower case, runs of white space as one space.   mx  name of the host, lower case; "" unknown.
    """

    code: int
    status: str
    phase: str
    mx: str
    words: str


class Rule(msgspec.Struct, frozen=True):
    """codes: written out, "" matches any. texts: must be in Reply.words. Empty conditions hold always."""

    name: str
    file: str
    line: int
    codes: frozenset[int]
    statuses: frozenset[tuple[str, str, str]]
    phases: frozenset[str]
    mx: re.Pattern[str] | None
    texts: tuple[str, ...]
    matches: tuple[re.Pattern[str], ...]
    lines: dict[str, int]

    def holds(self, reply: Reply) -> int | None:
        """The line of the file that says so, 0 where that cannot be told; None: it does not hold."""
        if not self.holds_for(reply.code, reply.status, reply.phase):
            return None
        if self.mx is not None and self.mx.fullmatch(reply.mx) is None:
            return None
        if not self.texts and not self.matches:
            return self.line
        words = reply.words
        for text in self.texts:
            if text in words:
                return self.lines.get(text, self.line)
        for pattern in self.matches:
            if pattern.search(words) is not None:
                return self.lines.get(pattern.pattern, self.line)
        return None

    def holds_for(self, code: int, status: str, phase: str) -> bool:
        """Whether it would but for words and host."""
        if (self.codes and code not in self.codes) or (self.phases and phase not in self.phases):
            return False
        return not self.statuses or self._has_status(status)

    def _has_status(self, status: str) -> bool:
        if not status:
            return False
        class_, subject, detail = status.split(".")
        return any(a in ("*", class_) and b in ("*", subject) and c in ("*", detail) for a, b, c in self.statuses)


def words_of(text: str) -> str:
    """A reply's text as rules see it: one line, without the enhanced status code that each of its lines begins with."""
    return folded(_LINE_STATUS.sub("", text))


def folded(text: str) -> str:
    """Lower case, runs of white space as one space."""
    return _SPACE.sub(" ", text).strip().lower()


def read_rules(files: Iterable[Path]) -> list[Rule]:
    """The rules of all files, in order. Raises RuleError."""
    return [rule for path in files for rule in read_file(path)]


def read_file(path: Path) -> list[Rule]:
    """Raises RuleError."""
    try:
        octets = path.read_bytes()
        if len(octets) > FILE_OCTETS_MAX:
            raise RuleError(f"{path}: {len(octets)} octets; at most {FILE_OCTETS_MAX} are read")
        text = octets.decode()
        tables = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise RuleError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    for key in tables:
        if key != "rule":
            raise RuleError(f"{path}: {key}: only [[rule]] may stand in a rule file")
    written = tables.get("rule", [])
    if not isinstance(written, list):
        raise RuleError(f"{path}: rule: write [[rule]], an array of tables")
    spans = _spans(text, len(written))
    return [_rule(each, path, *span) for each, span in zip(written, spans, strict=True)]


def _spans(text: str, count: int) -> list[tuple[int, list[str]]]:
    """For each rule the number of its first line and its lines."""
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    if len(heads) != count:  # a string over several lines has a line like a heading: better no line than a wrong one
        return [(0, [])] * count
    ends = [*heads[1:], len(lines)]
    return [(head + 1, lines[head:end]) for head, end in zip(heads, ends, strict=True)]


def _rule(table: Any, path: Path, line: int, lines: Sequence[str]) -> Rule:
    where = f"{path}:{line}" if line else f"{path}"
    try:
        written = msgspec.convert(table, _Written)
        if written.class_ not in CLASSES:
            raise ValueError(f'class: there is no class "{written.class_}"')
        texts = tuple(folded(each) for each in _list(written.text))
        if "" in texts:
            raise ValueError("text: empty, it would match everything")
        matches = tuple(_pattern(each) for each in _list(written.match))
        rule = Rule(
            written.class_,
            str(path),
            line,
            frozenset(code for each in _list(written.code) for code in _codes(str(each))),
            frozenset(_status(each) for each in _list(written.status)),
            frozenset(_phase(each) for each in _list(written.phase)),
            _mx(_list(written.mx)),
            texts,
            matches,
            _lines([*_list(written.text), *_list(written.match)], line, lines),
        )
    except (ValueError, msgspec.ValidationError) as error:
        raise RuleError(f"{where}: {error}") from None
    if not (rule.codes or rule.statuses or rule.phases or rule.mx or rule.texts or rule.matches):
        raise RuleError(f"{where}: a rule without a condition would match everything")
    return rule


def condition(
    *, code: Any = (), status: Any = (), phase: Any = (), mx: Any = (), text: Any = (), match: Any = ()
) -> Rule:
    """What a [[rule]] asks, for who has other uses for the answer than a class. Raises ValueError."""
    return Rule(
        "",
        "",
        0,
        frozenset(number for each in _list(code) for number in _codes(str(each))),
        frozenset(_status(each) for each in _list(status)),
        frozenset(_phase(each) for each in _list(phase)),
        _mx(list(_list(mx))),
        tuple(folded(each) for each in _list(text)),
        tuple(_pattern(each) for each in _list(match)),
        {},
    )


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _codes(text: str) -> list[int]:
    if _CODE.fullmatch(text) is None:
        raise ValueError(f'code: "{text}" is neither a reply code ("550", "55x", "5xx") nor "none"')
    if text == "none":
        return [0]
    width = text.count("x")
    first = int(text.replace("x", "0"))
    return list(range(first, first + 10**width))


def _status(text: str) -> tuple[str, str, str]:
    if _STATUS.fullmatch(text) is None:
        raise ValueError(f'status: "{text}" is no enhanced status code ("5.1.1", "*.7.*")')
    class_, subject, detail = text.split(".")
    return class_, subject, detail


def _phase(text: str) -> str:
    if text not in PHASES:
        raise ValueError(f'phase: "{text}" is none of {", ".join(PHASES)}')
    return text


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"match: {text!r}: {error}") from None


def _mx(patterns: list[str]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{fnmatch.translate(each.lower())})" for each in patterns))


def _lines(patterns: list[str], first: int, lines: Sequence[str]) -> dict[str, int]:
    """Pattern as the rule asks it -> line on which it stands, where that can be told."""
    found: dict[str, int] = {}
    if not first:
        return found
    for each in patterns:
        escaped = each.replace("\\", "\\\\").replace('"', '\\"')
        for number, line in enumerate(lines):
            if f"'{each}'" in line or f'"{escaped}"' in line:
                found[each] = found[folded(each)] = first + number
                break
    return found
