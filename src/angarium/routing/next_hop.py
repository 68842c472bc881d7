"""The text of a next hop, "smtp://relay.example:25", to its parts. Not which domain goes there: routes.py."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal, get_args

import msgspec

from angarium.model.plan import TlsName
from angarium.resolver.domain_name import to_a_labels

SMTP_PORT: Final = 25
SMTPS_PORT: Final = 465

_UNIX_PATH_OCTETS: Final = 107      # sun_path less its NUL, unix(7)
_PLACEHOLDER: Final = re.compile(r"\{[^{}]*\}")
_PORT: Final = re.compile(r"\d{1,5}", re.ASCII)


class NextHop(msgspec.Struct, frozen=True):
    """Where a route leads.

    text      in normal form, the name of its site: "mx", "smtp://[::1]:25", "maildir:/srv/mail/{local}".
    protocol  "mx" stands for SMTP to the domain's own mail exchangers.
    host      of smtp and lmtp: numeric address or A-labels in lower case.
    path      of lmtp+unix and maildir: absolute.
    tls       what the route asks for.
    login     who we are there: NAME of [login.NAME].
    """

    text: str
    protocol: Literal["mx", "smtp", "smtps", "lmtp", "lmtp+unix", "maildir"]
    host: str = ""
    port: int = 0
    path: str = ""
    is_numeric: bool = False
    tls: TlsName | Literal[""] = ""
    login: str = ""


def parse_next_hop(text: str) -> NextHop:
    """Raises ValueError that says what is wrong with the text."""
    if any(character < " " or character == "\x7f" for character in text):
        raise ValueError("control character")
    if text == "mx":
        return NextHop("mx", "mx")
    if text.startswith("smtp://"):
        return _tcp("smtp", text)
    if text.startswith("smtps://"):
        return _tcp("smtps", text)
    if text.startswith("lmtp://"):
        return _tcp("lmtp", text)
    if text.startswith("lmtp+unix:"):
        return _unix(text)
    if text.startswith("maildir:"):
        return _maildir(text)
    raise ValueError(
        f'"{text}" is none of "mx", "smtp://host:port", "smtps://host:port", "lmtp://host:port", '
        '"lmtp+unix:/path", "maildir:/path/{local}"'
    )


def parse_route(text: str) -> NextHop:
    """A next hop as a message carries it (the envelope attribute ROUTE): "smtp://host:25", or "smtp://host:25
    tls=encrypt" with what the way asks of TLS. Raises ValueError."""
    hop, separator, tls = text.rpartition(" tls=")
    if not separator or text.startswith(("lmtp+unix:", "maildir:")):    # whose paths may hold anything
        return parse_next_hop(text)
    return with_tls(parse_next_hop(hop), tls)


def with_tls(next_hop: NextHop, tls: str) -> NextHop:
    """The same next hop, asking this of TLS (model/plan.py, TlsName). Raises ValueError: it cannot."""
    if tls not in get_args(TlsName):
        raise ValueError(f'tls: "{tls}" is none of {", ".join(get_args(TlsName))}')
    if next_hop.protocol in ("lmtp+unix", "maildir"):
        raise ValueError(f"tls: {next_hop.protocol} leaves this machine by no network")
    if tls == "none" and next_hop.protocol == "smtps":
        raise ValueError('tls: "none", and the next hop begins with TLS')
    return msgspec.structs.replace(next_hop, tls=tls)


def _tcp(protocol: Literal["smtp", "smtps", "lmtp"], text: str) -> NextHop:
    rest = text.removeprefix(f"{protocol}://")
    if rest.startswith("["):
        host, bracket, behind = rest[1:].partition("]")
        if not bracket or (behind and not behind.startswith(":")):
            raise ValueError(f'"{text}": after "[" comes an address, "]" and perhaps ":port"')
        port_text = behind[1:] if behind else None
    else:
        host, colon, port_text_ = rest.partition(":")
        port_text = port_text_ if colon else None
        if port_text is not None and ":" in port_text:
            raise ValueError(f'"{text}": write an IPv6 address in brackets, "{protocol}://[{rest}]"')
    if port_text is None and protocol == "lmtp":
        raise ValueError(f'"{text}": a port is needed, LMTP has none of its own (RFC 2033 §5)')
    port = _port(text, port_text, SMTPS_PORT if protocol == "smtps" else SMTP_PORT)
    address = _numeric(host)
    if address is not None:
        shown = f"[{address}]" if ":" in address else address
        return NextHop(f"{protocol}://{shown}:{port}", protocol, address, port, is_numeric=True)
    if rest.startswith("["):
        raise ValueError(f'"{text}": "{host}" is not an address')
    try:
        name = to_a_labels(host.encode())
    except ValueError:
        raise ValueError(f'"{text}": "{host}" is neither an address nor a host name') from None
    return NextHop(f"{protocol}://{name}:{port}", protocol, name, port)


def _port(text: str, port_text: str | None, usual: int) -> int:
    if port_text is None:
        return usual
    if not _PORT.fullmatch(port_text) or not 1 <= int(port_text) <= 65535:
        raise ValueError(f'"{text}": "{port_text}" is not a port')
    return int(port_text)


def _numeric(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _unix(text: str) -> NextHop:
    path = text.removeprefix("lmtp+unix:")
    if not path.startswith("/"):
        raise ValueError(f'"{text}": a unix socket needs an absolute path')
    if len(path.encode()) > _UNIX_PATH_OCTETS:
        raise ValueError(f'"{text}": a unix socket\'s path has at most {_UNIX_PATH_OCTETS} octets')
    return NextHop(text, "lmtp+unix", path=path)


def _maildir(text: str) -> NextHop:
    path = text.removeprefix("maildir:")
    if not path.startswith("/"):
        raise ValueError(f'"{text}": a Maildir needs an absolute path')
    if ".." in path.split("/"):
        raise ValueError(f'"{text}": ".." in the path')
    for placeholder in _PLACEHOLDER.findall(path):
        if placeholder not in ("{local}", "{domain}"):
            raise ValueError(f'"{text}": {placeholder} is neither {{local}} nor {{domain}}')
    if "{" in (rest := _PLACEHOLDER.sub("", path)) or "}" in rest:
        raise ValueError(f'"{text}": a brace without its other half')
    return NextHop(text, "maildir", path=path)
