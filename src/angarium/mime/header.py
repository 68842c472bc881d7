"""Finding the header section of a message and a field in it. Reads only; nothing is put together here."""

from __future__ import annotations

import re

_FIELD_NAME_END = re.compile(rb"[ \t]*:")


def header_section(content: bytes) -> bytes:
    """The header section with the CRLF of its last field, without the empty line (RFC 5322 §2.1).

    content  a message, or its beginning: all of it when no empty line is in it.
    """
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    return content if end == -1 else content[: end + 2]


def field_value(header: bytes, name: bytes) -> bytes | None:
    """The body of the first field of that name, unfolded (RFC 5322 §2.2.3), without white space around it.

    name  in lower case. None when there is no such field.
    """
    lines = header.split(b"\r\n")
    for index, line in enumerate(lines):
        if line[: len(name)].lower() != name:
            continue
        colon = _FIELD_NAME_END.match(line, len(name))
        if colon is None:
            continue
        value = line[colon.end() :]
        for more in lines[index + 1 :]:
            if not more.startswith((b" ", b"\t")):
                break
            value += more
        return value.strip()
    return None
