"""Text of others in a line for an operator's terminal. Not for the journal, which has JSON's own escapes."""

from __future__ import annotations


def printable(text: object) -> str:
    """One line: what is not printable is spelled as Python spells it, "\\x1b", "\\n", "\\udc80"."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in line)
