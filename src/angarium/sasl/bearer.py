"""OAUTHBEARER (RFC 7628) and Google's XOAUTH2: a bearer token, judged by whoever issued it."""

from __future__ import annotations

import re
from typing import Final

from angarium.sasl.mechanism import Mechanism, Refusal, first, identity_from, plain_name, respond, whose
from angarium.sasl.steps import Accepted, Channel, CheckToken, Refused

TOKEN_OCTETS: Final = 8192  # judged: JWTs with many claims reach 4 KiB
TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # b64token, RFC 6750 §2.1
_PAIR: Final = re.compile(rb"[A-Za-z]+=[\t\n\r -~]*")  # kvpair, RFC 7628 §3.1
# RFC 7628 §3.2.2; the client must answer it with one octet 0x01 before it may be told 535.
_OAUTHBEARER_ERROR: Final = b'{"status":"invalid_token"}'
_XOAUTH2_ERROR: Final = b'{"status":"401","schemes":"Bearer","scope":""}'


def oauthbearer(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    """gs2-header kvsep *kvpair kvsep (RFC 7628 §3.1)."""
    message = yield from first(initial)
    header, separator, rest = message.partition(b"\x01")
    flag, _, authorization = header.partition(b",")
    if not separator or flag not in (b"n", b"y") or not authorization.endswith(b","):
        raise Refusal("malformed")
    claimed = authorization[:-1]
    if claimed and not claimed.startswith(b"a="):
        raise Refusal("malformed")
    token = _token(_pairs(rest))
    identity = identity_from(plain_name(claimed[2:])) if claimed else ""
    return (yield from _judged(identity, token, _OAUTHBEARER_ERROR))


def xoauth2(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    """ "user=" identity 0x01 "auth=Bearer " token 0x01 0x01."""
    message = yield from first(initial)
    user, separator, rest = message.partition(b"\x01")
    if not separator or not user.startswith(b"user="):
        raise Refusal("malformed")
    token = _token(_pairs(rest))
    return (yield from _judged(identity_from(user[5:]), token, _XOAUTH2_ERROR))


def _judged(identity: str, token: str, error: bytes) -> Mechanism:
    found = yield from whose(CheckToken(identity, token))
    if found is not None and identity in ("", found):
        return Accepted(found)
    yield from respond(error)  # whatever the client says to it
    return Refused("bad-credentials", identity)


def _pairs(rest: bytes) -> dict[bytes, bytes]:
    """Each "key=value" ends with 0x01, and one more ends the message."""
    if not rest.endswith(b"\x01\x01"):
        raise Refusal("malformed")
    pairs: dict[bytes, bytes] = {}
    for pair in rest[:-2].split(b"\x01"):
        key, _, value = pair.partition(b"=")
        if not _PAIR.fullmatch(pair) or key.lower() in pairs:
            raise Refusal("malformed")
        pairs[key.lower()] = value
    return pairs


def _token(pairs: dict[bytes, bytes]) -> str:
    scheme, _, token = pairs.get(b"auth", b"").partition(b" ")
    text = token.decode("latin-1")
    if scheme.lower() != b"bearer" or len(token) > TOKEN_OCTETS or not TOKEN.fullmatch(text):
        raise Refusal("malformed")
    return text
