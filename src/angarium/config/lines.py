"""On which line of a TOML file each key stands: what tomllib does not tell. For texts that tomllib has accepted."""

from __future__ import annotations

import re
import tomllib
from typing import Final

from angarium.config.files import KeyPath

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY: Final = re.compile(r'[ \t]*(?:([A-Za-z0-9_-]+)|("(?:[^"\\\n]|\\.)*")|(\'[^\'\n]*\'))[ \t]*')
# What may hold brackets and newlines that are none, and one other character at a time.
_PIECE: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|.', re.DOTALL
)


def lines_of(text: str) -> dict[KeyPath, int]:
    """Path of every table and key to its line, from 1. Of inline tables only the key that they belong to."""
    text = text.replace("\r\n", "\n")       # as tomllib reads it: positions are those of the same text
    found: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}         # of arrays of tables
    table: KeyPath = ()
    at = _after(_BLANK, text, 0)
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        if text.startswith("[", at):
            is_array = text.startswith("[[", at)
            parts, at = _key(text, at + (2 if is_array else 1))
            at += 2 if is_array else 1
            table = ()
            for place, part in enumerate(parts):
                table += (part,)
                if is_array and place == len(parts) - 1:
                    counts[table] = counts.get(table, 0) + 1
                found.setdefault(table, line)
                if table in counts:
                    table += (counts[table] - 1,)
            found.setdefault(table, line)
        else:
            parts, at = _key(text, at)
            for length in range(1, len(parts) + 1):
                found.setdefault(table + parts[:length], line)
            at = _behind_value(text, at + 1)
        at = _after(_BLANK, text, at)
    return found


def _key(text: str, at: int) -> tuple[tuple[str, ...], int]:
    """A dotted key and the place behind it."""
    parts: list[str] = []
    while (match := _KEY.match(text, at)) is not None:
        bare, *_ = match.groups()
        parts.append(bare if bare is not None else next(iter(tomllib.loads(f"{match[0].strip()} = 0"))))
        at = match.end()
        if not text.startswith(".", at):
            break
        at += 1
    return tuple(parts), at


def _behind_value(text: str, at: int) -> int:
    """The end of the line on which a value ends."""
    depth = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:           # cannot be: "." matches anything
            break
        if piece[0] == "\n" and depth == 0:
            return at
        depth += (piece[0] in "[{") - (piece[0] in "]}")
        at = piece.end()
    return at


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
