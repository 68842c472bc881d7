"""Variable envelope return paths: a reverse-path for each recipient, so that what comes back says whom it was sent to.

    bounces+00TR4Q850000371Y0QZK4M2AX+acme+u2=y.example@b.example.net
    base    id           MAC          tenant recipient

The MAC is keyed: nobody else can make such an address, and so nobody else can have a recipient counted as bounced.
Letters may lose their case on the way. A recipient or tenant for which a local-part of 64 octets (RFC 5321 §4.5.3.1.1)
has no room is left out: then the id alone says which message it was.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

import msgspec

_LOCAL_OCTETS_MAX: Final = 64
_ID: Final = 13
_MAC: Final = 12
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TOKEN: Final = re.compile(rf"[{_ALPHABET}]{{{_ID + _MAC}}}", re.IGNORECASE)
# What needs no quotes and no SMTPUTF8 (RFC 5321 §4.1.2).
_DOT_STRING: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9.-]+")
_TENANT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


def _id_text(id_: int) -> str:
    """As the log and the Received field have it (csrc/spool/format.h)."""
    return "".join(_ALPHABET[id_ >> shift & 31] for shift in range(60, -1, -5))


class Trace(msgspec.Struct, frozen=True):
    """What an address of ours says. tenant, recipient: "" when it does not; both in lower case."""

    id: str
    tenant: str
    recipient: str


class Verp:
    """address  "bounces@b.example.net". senders: domains whose mail gets traces, in lower case; (): all.
    secret  of bounces/secret.py."""

    def __init__(self, address: str, senders: Sequence[str], secret: bytes) -> None:
        self._base, _, self._domain = address.lower().rpartition("@")
        self._senders = frozenset(senders)
        self._secret = secret

    def path_for(self, id_: int, reverse_path: bytes, forward_path: bytes, tenant: bytes) -> bytes | None:
        """The reverse-path to say in MAIL; None: this mail goes with its own."""
        if not reverse_path:
            return None
        if self._senders and reverse_path.rpartition(b"@")[2].decode("ascii", "replace").lower() not in self._senders:
            return None
        id_text = _id_text(id_)
        tenant_text = tenant.decode("ascii", "replace")
        if not _TENANT.fullmatch(tenant_text):
            tenant_text = ""
        local, _, domain = forward_path.decode("ascii", "replace").rpartition("@")
        recipient = f"{local}={domain}" if _DOT_STRING.fullmatch(local) and _DOMAIN.fullmatch(domain) else ""
        room = _LOCAL_OCTETS_MAX - len(self._base) - 1 - _ID - _MAC
        if len(recipient) + 2 + len(tenant_text) > room:
            if len(recipient) + 2 <= room:
                tenant_text = ""
            else:
                recipient = ""
        if len(tenant_text) + 1 > room:
            tenant_text = ""
        rest = f"+{tenant_text}+{recipient}" if recipient else f"+{tenant_text}" if tenant_text else ""
        return f"{self._base}+{id_text}{self._mac(id_text, rest)}{rest}@{self._domain}".encode("ascii")

    def is_one(self, mailbox: bytes) -> bool:
        """Whether it looks like one of ours, with whatever MAC."""
        local, _, domain = mailbox.decode("ascii", "replace").lower().rpartition("@")
        return domain == self._domain and local.startswith(self._base + "+")

    def read(self, mailbox: bytes) -> Trace | None:
        """What an address says that we have made; None: we have not."""
        if not self.is_one(mailbox):
            return None
        local = mailbox.decode("ascii", "replace").rpartition("@")[0][len(self._base) + 1 :]
        token, plus, rest = local.partition("+")
        if not _TOKEN.fullmatch(token):
            return None
        id_text, mac = token[:_ID].upper(), token[_ID:].upper()
        if not hmac.compare_digest(mac, self._mac(id_text, plus + rest)):
            return None
        tenant, _, recipient = rest.lower().partition("+")
        user, _, domain = recipient.rpartition("=")
        return Trace(id_text, tenant, f"{user}@{domain}" if recipient else "")

    def _mac(self, id_text: str, rest: str) -> str:
        said = f"{id_text}{rest}".lower().encode("ascii")
        digest = hashlib.blake2b(said, key=self._secret, person=b"angarium-verp", digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 5 * _MAC, 5))
