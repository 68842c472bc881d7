"""How identities and passwords are made comparable: SASLprep (RFC 4013), and what an identity may be at all.

SASLprep knows Unicode 3.2. Code points that were unassigned then are let through both when credentials are kept and
when they are compared (RFC 3454 §7 would refuse to keep them): people have such passwords, and refusing them helps
nobody.
"""

from __future__ import annotations

import stringprep
import unicodedata
from typing import Final

IDENTITY_OCTETS: Final = 255  # RFC 4616 §2
PASSWORD_OCTETS: Final = 1024  # judged: longer ones only make us hash

_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """RFC 4013 §2. Raises ValueError for prohibited characters (all controls are) and directions mixed."""
    if text.isascii():
        if not text.isprintable():
            raise ValueError("control character")
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    for character in prepared:
        # Controls newer than Unicode 3.2, too: what is kept goes into logs.
        if any(is_in(character) for is_in in _PROHIBITED) or unicodedata.category(character) in ("Cc", "Cf", "Cs"):
            raise ValueError("prohibited character")
    if any(map(stringprep.in_table_d1, prepared)):  # RFC 3454 §6
        ends_right = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends_right or any(map(stringprep.in_table_d2, prepared)):
            raise ValueError("left-to-right and right-to-left mixed")
    return prepared


def identity_of(text: str) -> str:
    """Prepared, 1 to 255 octets, no control characters. Raises ValueError."""
    prepared = saslprep(text)
    if not 1 <= len(prepared.encode()) <= IDENTITY_OCTETS:
        raise ValueError(f"an identity has 1 to {IDENTITY_OCTETS} octets")
    return prepared


def counted_as(identity: str) -> str:
    """Under which name failures and mail of an identity are counted: spellings that a source of credentials may take
    for one and the same are no way around what is left of them."""
    return identity.casefold()


def password_of(text: str) -> str:
    """Prepared, 1 to 1024 octets. Raises ValueError."""
    prepared = saslprep(text)
    if not 1 <= len(prepared.encode()) <= PASSWORD_OCTETS:
        raise ValueError(f"a password has 1 to {PASSWORD_OCTETS} octets")
    return prepared
