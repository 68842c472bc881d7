"""Extensions that a listener has switched off: settings without them, and what then must not be in a dialogue.

The invariants: EHLO does not offer what is off; no MAIL or RCPT with a parameter of it is accepted, and no event
carries its value; VRFY is never answered 252, and no chunk begins a message, where they are off.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from angarium.smtp import server_events
from angarium.smtp.server_events import ServerEvent


class Switch(NamedTuple):
    """off: its value in ServerSettings. default: what it is where nothing is said. needs: switches without which it
    cannot be on. keyword: offered by EHLO; parameters: of MAIL or RCPT."""

    off: Any
    default: Any
    needs: tuple[str, ...] = ()
    keyword: bytes = b""
    parameters: tuple[bytes, ...] = ()
    fields: tuple[str, ...] = ()


SWITCHES = {
    "size": Switch(False, True, (), b"SIZE", (b"SIZE",), ("announced_octets",)),
    "pipelining": Switch(False, True, (), b"PIPELINING"),
    "eightbitmime": Switch(False, True, (), b"8BITMIME", (b"BODY",), ("body_8bitmime", "body_binarymime")),
    "smtputf8": Switch(False, True, ("eightbitmime",), b"SMTPUTF8", (b"SMTPUTF8",), ("smtputf8",)),
    "chunking": Switch(False, True, (), b"CHUNKING"),
    "binarymime": Switch(
        False, False, ("chunking", "eightbitmime"), b"BINARYMIME", (b"BODY=BINARYMIME",), ("body_binarymime",)
    ),
    "dsn": Switch(
        False, True, (), b"DSN", (b"RET", b"ENVID", b"NOTIFY", b"ORCPT"), ("ret", "envid", "orcpt", "notify")
    ),
    "vrfy": Switch(False, True),
    "deliver_by_minimum_s": Switch(-1, -1, (), b"DELIVERBY", (b"BY",), ("by",)),
    "hold_max_s": Switch(0, 0, (), b"FUTURERELEASE", (b"HOLDFOR", b"HOLDUNTIL"), ("hold_for_s", "hold_until_utc_s")),
    "priority": Switch(False, False, (), b"MT-PRIORITY", (b"MT-PRIORITY",), ("priority",)),
    "no_soliciting": Switch(None, None, (), b"NO-SOLICITING", (b"SOLICIT",), ("solicit",)),
    "announces_limits": Switch(False, False, (), b"LIMITS"),
    "requiretls": Switch(False, False, (), b"REQUIRETLS", (b"REQUIRETLS",), ("requires_tls",)),
    "starttls": Switch(False, False, (), b"STARTTLS"),
}

_OFFERED = re.compile(rb"^250[- ]([A-Z0-9][A-Z0-9-]+)(?=[ \r])", re.MULTILINE)
_NOTHING = (0, b"", "", False, None)


def without(options: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The settings with these off, and what needs them."""
    off = set(names)
    if options.get("lmtp"):
        off.discard("pipelining")  # RFC 2033 §5
    made = {**options, **{name: SWITCHES[name].off for name in off}}
    for name in is_off(made):
        made[name] = SWITCHES[name].off
    return made


def is_off(options: dict[str, Any]) -> frozenset[str]:
    """What the settings do not offer, or cannot."""
    off: set[str] = set()
    for name, switch in SWITCHES.items():
        if options.get(name, switch.default) == switch.off or not off.isdisjoint(switch.needs):
            off.add(name)
    return frozenset(off)


def chosen(chance: random.Random) -> list[str]:
    """Each with the same chance; sometimes one alone."""
    names = list(SWITCHES)
    if chance.random() < 0.3:
        return [chance.choice(names)]
    return [name for name in names if chance.random() < 0.5]


def judge_off(off: frozenset[str], output: bytes, events: Iterable[ServerEvent]) -> None:
    """AssertionError when something that is off was offered, or has come to mean something."""
    offered = set(_OFFERED.findall(output))
    for name in off:
        assert SWITCHES[name].keyword not in offered, name
    fields = {field for name in off for field in SWITCHES[name].fields}
    for event in events:
        if isinstance(event, server_events.Mail | server_events.Rcpt):
            for field in fields & set(event.__struct_fields__):
                assert getattr(event, field) in _NOTHING, (field, event)
        assert not (isinstance(event, server_events.Data) and event.is_chunking and "chunking" in off)
        assert not (isinstance(event, server_events.StartTls) and "starttls" in off)


def judge_accepted(off: frozenset[str], line: bytes, code: int) -> None:
    """One command that was not refused, without its line end."""
    if line[:4].upper() == b"VRFY":
        assert "vrfy" not in off or code != 252, line
    if line[:4].upper() not in (b"MAIL", b"RCPT"):
        return
    words = line.upper().rpartition(b">")[2].split()  # of AUTH=<> what is behind it: less is seen, never something else
    unknown = {word for name in off for word in SWITCHES[name].parameters}
    for word in words:
        assert word not in unknown and word.partition(b"=")[0] not in unknown, (line, code)
