"""Variable envelope return paths: a reverse-path for each recipient, so that what comes back says whom it was sent to.

    bounces+00TR4Q850000371Y0QZK4M2AX+acme+u2=y.example@b.example.net
    base    id           MAC          tenant recipient

    bounces+00TR4Q8500003B7N2E5R1WMDC+~0C5Y8J2XN4T6QHVB1K3WZ7RGSP@b.example.net
    base    id           MAC           key in the suppression list

The MAC is keyed: nobody else can make such an address, and so nobody else can have a recipient counted as bounced.
Letters may lose their case on the way: a capital of a tenant is written "=a". A recipient or tenant for which a
local-part of 64 octets (RFC 5321 §4.5.3.1.1) has no room is left out: then the id alone says which message it was.

Where each tenant has a suppression list of its own, a tenant that was left out must not be read as none, or one
tenant's failures would be everybody's. So in its place, and the recipient's, stands the key of both in that list, as
long as the base has at most 10 octets; and that a message has no tenant is said by a MAC of another kind.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
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
_CAPITAL: Final = re.compile(r"=([a-z])")
_KEY_OCTETS: Final = 16
_KEY: Final = 26
# Neither tenants nor recipients in a trace begin with it.
_KEY_SIGN: Final = "~"
# What the MAC says besides: whether no tenant is one that was left out, perhaps.
_AS_SAID: Final = b"angarium-verp"
_NO_TENANT: Final = b"angarium-verp-no"


def _id_text(id_: int) -> str:
    """As the log and the Received field have it (csrc/spool/format.h)."""
    return _in_base_32(id_, _ID)


def _in_base_32(number: int, digits: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (digits - 1), -1, -5))


class Trace(msgspec.Struct, frozen=True):
    """What an address of ours says.

    tenant     None: it does not say whether there is one; "": there is none.
    recipient  in lower case; "": it does not say.
    key        of tenant and recipient in the suppression list, where it says neither; b"": none.
    """

    id: str
    tenant: str | None
    recipient: str
    key: bytes = b""


class Verp:
    """address  "bounces@b.example.net". senders: domains whose mail gets traces, in lower case; (): all.
    secret  of bounces/secret.py.
    key_of  gives the key of (tenant, forward-path) in the suppression list, 16 octets; only where each tenant has a
            list of its own."""

    def __init__(
        self,
        address: str,
        senders: Sequence[str],
        secret: bytes,
        key_of: Callable[[bytes, bytes], bytes] | None = None,
    ) -> None:
        self._base, _, self._domain = address.lower().rpartition("@")
        self._senders = frozenset(senders)
        self._secret = secret
        self._key_of = key_of

    def path_for(self, id_: int, reverse_path: bytes, forward_path: bytes, tenant: bytes) -> bytes | None:
        """The reverse-path to say in MAIL; None: this mail goes with its own."""
        if not reverse_path:
            return None
        if self._senders and reverse_path.rpartition(b"@")[2].decode("ascii", "replace").lower() not in self._senders:
            return None
        id_text = _id_text(id_)
        tenant_text = _tenant_text(tenant)
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
        kind = _AS_SAID
        if self._key_of is not None and not tenant:
            kind = _NO_TENANT
        elif self._key_of is not None and not tenant_text and room >= 2 + _KEY:
            number = int.from_bytes(self._key_of(tenant, forward_path), "big")
            rest = f"+{_KEY_SIGN}{_in_base_32(number, _KEY)}"
        return f"{self._base}+{id_text}{self._mac(id_text, rest, kind)}{rest}@{self._domain}".encode("ascii")

    def is_one(self, mailbox: bytes) -> bool:
        """Whether it looks like one of ours, with whatever MAC."""
        local, _, domain = mailbox.decode("ascii", "replace").lower().rpartition("@")
        return domain == self._domain and local.startswith(self._base + "+")

    def read(self, mailbox: bytes) -> Trace | None:
        """What an address says that we have made; None: we have not, whatever octets it has."""
        if not mailbox.isascii() or not self.is_one(mailbox):
            return None
        local = mailbox.decode("ascii").rpartition("@")[0][len(self._base) + 1 :]
        token, plus, rest = local.partition("+")
        if not _TOKEN.fullmatch(token):
            return None
        id_text, mac = token[:_ID].upper(), token[_ID:].upper()
        is_without_tenant = hmac.compare_digest(mac, self._mac(id_text, plus + rest, _NO_TENANT))
        if not is_without_tenant and not hmac.compare_digest(mac, self._mac(id_text, plus + rest, _AS_SAID)):
            return None
        tenant, _, recipient = rest.lower().partition("+")
        if tenant.startswith(_KEY_SIGN):
            return Trace(id_text, None, "", _key_in(tenant[len(_KEY_SIGN) :]))
        user, _, domain = recipient.rpartition("=")
        said = _CAPITAL.sub(lambda match: match[1].upper(), tenant)
        return Trace(id_text, "" if is_without_tenant else said or None, f"{user}@{domain}" if recipient else "")

    def _mac(self, id_text: str, rest: str, kind: bytes) -> str:
        said = f"{id_text}{rest}".lower().encode("ascii")
        digest = hashlib.blake2b(said, key=self._secret, person=kind, digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 5 * _MAC, 5))


def _tenant_text(tenant: bytes) -> str:
    """As a trace has it; "": it cannot."""
    text = tenant.decode("ascii", "replace")
    return re.sub("[A-Z]", lambda match: "=" + match[0].lower(), text) if _TENANT.fullmatch(text) else ""


def _key_in(text: str) -> bytes:
    number = 0
    for digit in text.upper():
        number = number << 5 | _ALPHABET.index(digit)
    return number.to_bytes(_KEY_OCTETS, "big")
