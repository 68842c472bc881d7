"""Text of others on an operator's terminal: in a line, or in JSON. Not for the journal, which has JSON's own escapes.

A peer's words may hold what a terminal obeys: ESC, and as UTF-8 CSI (U+009B), ends of lines (U+0085, U+2028), and
marks that turn the direction of text, so that it shows another address than there is.
"""

from __future__ import annotations

import json


def printable(text: object) -> str:
    """One line: what is not printable is spelled as Python spells it, "\\x1b", "\\n", "\\udc80"."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in line)


def json_line(value: object) -> str:
    """JSON that can be written as UTF-8: readable, unless there is something in it that is not printable."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)
