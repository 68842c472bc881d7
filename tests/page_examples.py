"""Examples of pages, as they stand there, with addresses, ports and paths of a test's own.

    example = of_page("dns.md")                         the first fenced block of "toml"
    relay = RelayProcess(tmp_path, retold(example.rest, changes), listener=retold(example.listener, changes))

An example that does not hold what is to be changed in it fails: else a page could come to say something else, untested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1] / "docs"
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NODE = re.compile(r"^\[node\]\n(?:(?!\[).*\n)*", re.MULTILINE)


class Example(NamedTuple):
    """A configuration in two pieces, as RelayProcess takes it: its first listener, and all others and all tables."""

    listener: str
    rest: str


def fenced(page: str, kind: str) -> list[str]:
    """All blocks of a kind, in their order."""
    return [text for of, text in _FENCE.findall((DOCS / page).read_text()) if of == kind]


def of_page(page: str, number: int = 0) -> Example:
    """The configuration `number` of the page, without its [node], which is the test's."""
    before, heading, behind = _NODE.sub("", fenced(page, "toml")[number]).partition("[[listener]]")
    assert heading, "it has a listener"
    lines = behind.splitlines(keepends=True)[1:]
    end = next((at for at, line in enumerate(lines) if line.startswith("[")), len(lines))
    return Example("".join(lines[:end]), "".join(lines[end:]) + before)


def retold(text: str, changes: Mapping[str, str]) -> str:
    """The text with each of the octets on the left, which must be in it, replaced by those on the right."""
    for theirs, ours in changes.items():
        assert theirs in text, f"{theirs!r} is not in the example any more"
        text = text.replace(theirs, ours)
    return text
