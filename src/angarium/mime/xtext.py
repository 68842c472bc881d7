"""xtext, the spelling of DSN parameters (RFC 3461 §4), and utf-8-addr-xtext (RFC 6533 §3)."""

from __future__ import annotations

import re

_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")
_EMBEDDED_UNICODE = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


def decode_xtext(text: bytes) -> bytes:
    """What "+2B" stands for is put in its place; "+" in front of anything else stays."""
    return _HEXCHAR.sub(lambda match: bytes((int(match[1], 16),)), text)


def encode_xtext(text: bytes) -> bytes:
    """ASCII; "+", "=" and what is not printable become "+HEX"."""
    return b"".join(b"%c" % each if 33 <= each <= 126 and each not in b"+=" else b"+%02X" % each for each in text)


def encode_utf8_addr_xtext(address: str) -> str:
    """An address with its characters beyond ASCII, and those that would be read as markup, as \\x{HEX}."""
    return "".join(
        character if "!" <= character <= "~" and character not in "\\+=" else f"\\x{{{ord(character):02X}}}"
        for character in address
    )


def decode_utf8_addr_xtext(text: str) -> str:
    """The address; what is not the spelling of a character stays."""

    def character(match: re.Match[str]) -> str:
        code = int(match[1], 16)
        return match[0] if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF else chr(code)

    return _EMBEDDED_UNICODE.sub(character, text)
