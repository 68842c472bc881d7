"""What listed peers say in XCLIENT and XFORWARD: the syntax of both, and what each attribute may be.

Both are Postfix's (XCLIENT_README, XFORWARD_README). A value is xtext (RFC 3461 §4), and once decoded it goes into
headers and the log, so nothing passes but what its kind of thing is made of: no space, no control octet, nothing that
means something in a header.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

import msgspec

from angarium.mime.xtext import decode_xtext
from angarium.sasl.preparation import identity_of

VALUE_OCTETS_MAX: Final = 255
XCLIENT_NAMES: Final = (
    "NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT", "REVERSE_NAME",
)  # fmt: skip
XFORWARD_NAMES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")
XCLIENT_LINE: Final = b"250-XCLIENT " + " ".join(XCLIENT_NAMES).encode() + b"\r\n"
XFORWARD_LINE: Final = b"250-XFORWARD " + " ".join(XFORWARD_NAMES).encode() + b"\r\n"

_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_HELO: Final = re.compile(r"[A-Za-z0-9_.:-]+|\[[A-Za-z0-9_.:-]+\]")
_WORD: Final = re.compile(r"[A-Za-z0-9]{1,64}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.:+-]+")
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadClaim(ValueError):
    """501; the text says why, in words that are ours."""


class Introduction(msgspec.Struct, frozen=True):
    """For whom a peer speaks, put together from all its XCLIENT commands so far.

    name, reverse_name   host names, verified and not; "" when there is none, or nobody could find out.
    address              None: unknown. has_address: it was said; otherwise the peer's own holds.
    helo, proto          of the last command only: the client says its own later.
    login                who it authenticated as towards the peer; "": nobody.
    """

    name: str = ""
    reverse_name: str = ""
    has_address: bool = False
    address: Address | None = None
    port: int = 0
    destination: Address | None = None
    destination_port: int = 0
    login: str = ""
    helo: str | None = None
    proto: str = ""


def introduction(before: Introduction | None, argument: bytes) -> Introduction:
    """What holds after XCLIENT with this argument. Raises BadClaim."""
    now = msgspec.structs.replace(before or Introduction(), helo=None, proto="")
    changes: dict[str, object] = {}
    for name, value in attributes(argument, XCLIENT_NAMES).items():
        match name:
            case "NAME":
                changes["name"] = "" if value is None else _matching(_HOST, name, value)
            case "REVERSE_NAME":
                changes["reverse_name"] = "" if value is None else _matching(_HOST, name, value)
            case "ADDR":
                changes |= {"has_address": True, "address": None if value is None else _address(name, value)}
            case "DESTADDR":
                changes["destination"] = None if value is None else _address(name, value)
            case "PORT":
                changes["port"] = 0 if value is None else _port(name, value)
            case "DESTPORT":
                changes["destination_port"] = 0 if value is None else _port(name, value)
            case "HELO":
                changes["helo"] = None if value is None else _matching(_HELO, name, value)
            case "LOGIN":
                changes["login"] = "" if value is None else _identity(value)
            case "PROTO":
                if value is None or value.upper() not in ("SMTP", "ESMTP"):
                    raise BadClaim("PROTO is SMTP or ESMTP")
                changes["proto"] = value.upper()
    return msgspec.structs.replace(now, **changes)


def log_fields(said: Introduction) -> dict[str, str | int]:
    """What is known, as fields of the log."""
    fields: dict[str, str | int] = {
        "client": logged(said.address) if said.has_address else "",
        "port": said.port,
        "name": said.name,
        "reverse_name": said.reverse_name,
        "helo": said.helo or "",
        "user": said.login,
        "destination": logged(said.destination) if said.destination is not None else "",
        "destination_port": said.destination_port,
    }
    return {key: value for key, value in fields.items() if value}


def logged(address: Address | None) -> str:
    """As everywhere in the log: RFC 5321 §4.1.3's form of an IPv6 address."""
    if address is None:
        return "unknown"
    return f"IPv6:{address}" if address.version == 6 else str(address)


# Names of the log's fields, by attribute.
_FIELDS: Final = {
    "NAME": b"origin_name",
    "ADDR": b"origin_client",
    "PORT": b"origin_port",
    "PROTO": b"origin_protocol",
    "HELO": b"origin_helo",
    "IDENT": b"origin_id",
    "SOURCE": b"origin_source",
}


def forwarded(before: dict[bytes, bytes] | None, argument: bytes) -> dict[bytes, bytes]:
    """What is known of the message to come after XFORWARD with this argument, as fields of the log. Raises BadClaim.

    Addresses and names need not be those of the Internet (XFORWARD_README), so they are tokens only.
    """
    now = dict(before or {})
    for name, value in attributes(argument, XFORWARD_NAMES).items():
        if value is None:
            now.pop(_FIELDS[name], None)
        else:
            now[_FIELDS[name]] = _forwarded(name, value).encode("ascii")
    return now


def _forwarded(name: str, value: str) -> str:
    match name:
        case "HELO":
            return _matching(_HELO, name, value)
        case "PROTO":
            return _matching(_WORD, name, value)
        case "PORT":
            return str(_port(name, value))
        case "SOURCE":
            if value.upper() not in ("LOCAL", "REMOTE"):
                raise BadClaim("SOURCE is LOCAL or REMOTE")
            return value.upper()
        case "ADDR" if value.upper().startswith("IPV6:"):
            return logged(_address(name, value))
        case _:
            return _matching(_TOKEN, name, value)


def attributes(argument: bytes, names: tuple[str, ...]) -> dict[str, str | None]:
    """1*( SP name "=" xtext ), names in any case; None for [UNAVAILABLE] and [TEMPUNAVAIL]. Raises BadClaim."""
    found: dict[str, str | None] = {}
    for item in argument.decode("ascii").split():
        name, equals, text = item.partition("=")
        name = name.upper()
        if name not in names:
            raise BadClaim("Attribute not known")
        if not equals or not text:
            raise BadClaim(f"{name} needs a value")
        if name in found:
            raise BadClaim(f"{name} given twice")
        if text.upper() in ("[UNAVAILABLE]", "[TEMPUNAVAIL]"):
            found[name] = None
            continue
        try:
            if not _XTEXT.fullmatch(text):
                raise ValueError
            value = decode_xtext(text.encode("ascii")).decode("utf-8")
        except ValueError:
            raise BadClaim(f"{name} is not xtext") from None
        if len(value.encode()) > VALUE_OCTETS_MAX:
            raise BadClaim(f"{name} is too long")
        found[name] = value
    if not found:
        raise BadClaim("No attributes")
    return found


def _matching(pattern: re.Pattern[str], name: str, value: str) -> str:
    if not pattern.fullmatch(value):
        raise BadClaim(f"Bad value of {name}")
    return value


def _port(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise BadClaim(f"Bad value of {name}")
    return int(value)


def _address(name: str, value: str) -> Address:
    is_six = value[:5].upper() == "IPV6:"
    kind: Callable[[str], Address] = ipaddress.IPv6Address if is_six else ipaddress.IPv4Address
    try:
        if "%" in value:
            raise ValueError
        return kind(value[5:] if is_six else value)
    except ValueError:
        raise BadClaim(f"Bad value of {name}") from None


def _identity(value: str) -> str:
    try:
        is_good = identity_of(value) == value
    except ValueError:
        is_good = False
    if not is_good:
        raise BadClaim("Bad value of LOGIN")
    return value
