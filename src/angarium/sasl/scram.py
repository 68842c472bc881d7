"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677), the server's half, and the keys a server keeps.

The password is never sent. Channel binding (-PLUS) is tls-exporter (RFC 9266) or tls-server-end-point (RFC 5929 §4).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Final, NamedTuple

from angarium.sasl.mechanism import (
    Mechanism,
    Refusal,
    first,
    identity_from,
    keys_of,
    must_be_own,
    plain_name,
    respond,
)
from angarium.sasl.steps import Accepted, Channel, FetchScramKeys, Refused, ScramKeys

# RFC 7677 §4 asks for 4096 at least. Only clients and `angarium auth` work for it; judged to cost a client under 50 ms,
# and whoever steals the file 24 times what the minimum would.
ITERATIONS: Final = 100_000
SALT_OCTETS: Final = 16
KEY_OCTETS: Final = 32
BINDINGS: Final = ("tls-exporter", "tls-server-end-point")

_NONCE_OCTETS: Final = 256
_NONCE: Final = re.compile(rb"[!-+\--~]+")  # printable, no comma
# gs2-header, then client-first-message-bare; "m=" is reserved and must be refused (RFC 5802 §5.1)
_FIRST: Final = re.compile(
    rb"(?P<header>(?P<flag>n|y|p=[A-Za-z0-9.-]+),(?:a=(?P<authorization>[^,]*))?,)"
    rb"(?P<bare>n=(?P<name>[^,]*),r=(?P<nonce>[^,]*)(?:,[A-Za-z]=[^,\0]+)*)",
    re.DOTALL,
)
_FINAL: Final = re.compile(
    rb"(?P<without_proof>c=(?P<binding>[^,]*),r=(?P<nonce>[^,]*)(?:,[A-Za-z]=[^,\0]+)*),p=(?P<proof>[^,]*)", re.DOTALL
)


class _ClientFirst(NamedTuple):
    header: bytes  # gs2-header
    flag: bytes
    bare: bytes
    nonce: bytes
    identity: str


def scram_sha_256(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    message = _parse_first((yield from first(initial)))
    if message.flag == b"y" and offers_plus:
        raise Refusal("downgrade")  # it was told that we cannot bind: somebody took -PLUS out of our list (RFC 5802 §6)
    if message.flag not in (b"n", b"y"):
        raise Refusal("binding-without-plus")
    return (yield from _scram(message, b""))


def scram_sha_256_plus(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    message = _parse_first((yield from first(initial)))
    if not message.flag.startswith(b"p="):
        raise Refusal("plus-without-binding")
    kind = message.flag[2:].decode()
    binding = channel.channel_binding(kind) if kind in BINDINGS else None
    if binding is None:
        raise Refusal("unsupported-binding")
    return (yield from _scram(message, binding))


def make_nonce() -> bytes:
    return base64.b64encode(secrets.token_bytes(18))


def make_keys(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> ScramKeys:
    """RFC 5802 §3. `password` is prepared. Takes `iterations` of HMAC, tens of milliseconds."""
    if salt is None:
        salt = secrets.token_bytes(SALT_OCTETS)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    return ScramKeys(salt, iterations, stored_key, _hmac(salted, b"Server Key"))


def imagined_keys(secret: bytes, identity: str) -> ScramKeys:
    """Keys for somebody who does not exist: the same salt at every try (RFC 5802 §9), and no password fits.

    secret  the server's own, the same as long as its credentials are.
    """
    salt = _hmac(secret, b"salt " + identity.encode())[:SALT_OCTETS]
    return ScramKeys(salt, ITERATIONS, secrets.token_bytes(KEY_OCTETS), secrets.token_bytes(KEY_OCTETS))


def _scram(message: _ClientFirst, binding: bytes) -> Mechanism:
    keys = yield from keys_of(FetchScramKeys(message.identity))
    nonce = message.nonce + make_nonce()
    server_first = b"r=%s,s=%s,i=%d" % (nonce, base64.b64encode(keys.salt), keys.iterations)
    final = _FINAL.fullmatch((yield from respond(server_first)))
    if final is None:
        raise Refusal("malformed")
    if not hmac.compare_digest(final["nonce"], nonce):
        raise Refusal("other-nonce")
    if not hmac.compare_digest(_decoded(final["binding"]), message.header + binding):
        raise Refusal("other-channel")
    proof = _decoded(final["proof"])
    if len(proof) != KEY_OCTETS:
        raise Refusal("malformed")
    auth_message = b",".join((message.bare, server_first, final["without_proof"]))
    signature = _hmac(keys.stored_key, auth_message)
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    if not hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key):
        return Refused("bad-credentials", message.identity)
    # What comes with success is a challenge in SMTP, answered with nothing (RFC 4954 §4).
    if (yield from respond(b"v=" + base64.b64encode(_hmac(keys.server_key, auth_message)))) != b"":
        raise Refusal("malformed")
    return Accepted(message.identity)


def _parse_first(octets: bytes) -> _ClientFirst:
    match = _FIRST.fullmatch(octets)
    if match is None or len(match["nonce"]) > _NONCE_OCTETS or not _NONCE.fullmatch(match["nonce"]):
        raise Refusal("malformed")
    identity = identity_from(plain_name(match["name"]))
    if match["authorization"] is not None:
        must_be_own(plain_name(match["authorization"]), identity)
    return _ClientFirst(match["header"], match["flag"], match["bare"], match["nonce"], identity)


def _decoded(text: bytes) -> bytes:
    try:
        octets = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise Refusal("malformed") from None
    if base64.b64encode(octets) != text:  # bits behind the last octet: the same octets spelt otherwise
        raise Refusal("malformed")
    return octets


def _hmac(key: bytes, octets: bytes) -> bytes:
    return hmac.digest(key, octets, "sha256")
