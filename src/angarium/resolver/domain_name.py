"""Domain names as the DNS wants them: A-labels in lower case. Not address literals, not mailboxes."""

from __future__ import annotations

import re

import idna

# Letters, digits, hyphens (RFC 1123 §2.1) and the underscore that some real mail hosts carry. At most 63
# octets a label (RFC 1035 §2.3.4). A last label of digits only would be an address written wrong (RFC 3696
# §2).
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_A_LABELS = re.compile(rf"(?:{_LABEL}\.)*(?!\d+\Z){_LABEL}")

# RFC 1035 §2.3.4 allows 255 octets on the wire: 253 as text, which has neither the first length nor the root.
_TEXT_OCTETS = 253


def is_host_name(name: str) -> bool:
    """Whether a lower-case name without final dot can be a host's: no address, no escapes, no odd octets."""
    return len(name) <= _TEXT_OCTETS and _A_LABELS.fullmatch(name) is not None


def to_a_labels(domain: bytes) -> str:
    """The domain in lower case, U-labels turned into A-labels (RFC 5891 §4, mapped by UTS #46), no final dot.

    domain  octets as in a mailbox, ASCII or UTF-8 (RFC 6531), at most 255.
    Raises ValueError when it is no domain name.
    """
    if domain.isascii():
        name = domain.decode("ascii").lower().removesuffix(".")
    else:
        # IDNAError and UnicodeDecodeError are both ValueErrors.
        name = idna.encode(domain.decode("utf-8"), uts46=True).decode("ascii").lower().removesuffix(".")
    if not is_host_name(name):
        raise ValueError("not a domain name")
    return name
