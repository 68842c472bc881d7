"""What the operator may set about policy: the [policy] table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

import msgspec

from angarium.model.address import ListenAddress
from angarium.model.units import Duration, Octets

HOOKS: Final = ("on_connect", "on_auth", "on_mail", "on_rcpt", "knows_recipient", "on_message", "route", "on_outcome")

State = Literal["connect", "ehlo", "mail", "rcpt", "data", "end-of-message"]
STATES: Final[tuple[State, ...]] = ("connect", "ehlo", "mail", "rcpt", "data", "end-of-message")
_ACTION: Final = re.compile(r"(?:dunno|ok|defer|reject|discard)(?: .*)?|[45]\d\d .+", re.IGNORECASE)


class ServiceOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server of Postfix's policy delegation protocol.

    address      "127.0.0.1:10023", "unix:/run/spf".
    states       when it is asked.
    listeners    of these only, as [[listener]] spells their addresses; []: of all.
    ask_for      "strangers": only about clients that may not relay. "all": about everybody.
    timeout      for one answer, connecting included.
    idle_time    an unused connection is kept so long.
    connections  at once, of one worker; more questions wait.
    default      the action when there is no answer.
    """

    address: ListenAddress
    states: list[State] = msgspec.field(default_factory=lambda: ["rcpt"])
    listeners: list[ListenAddress] = []
    ask_for: Literal["strangers", "all"] = "strangers"
    timeout: Duration = Duration(10)
    idle_time: Duration = Duration(60)
    connections: int = 20
    default: str = "DEFER Policy service not available, try again later"

    def __post_init__(self) -> None:
        if not self.states:
            raise ValueError("states: none: when is it to be asked?")
        _require("timeout", 0.1, self.timeout, 120)
        _require("idle_time", 0, self.idle_time, 3600)
        _require("connections", 1, self.connections, 1000)
        if not self.address.is_unix and self.address.port == 0:
            raise ValueError("address: a port is needed")
        if not _ACTION.fullmatch(self.default) or not self.default.isascii() or not self.default.isprintable():
            raise ValueError('default: expected "dunno", "defer TEXT", "reject TEXT" or "450 4.7.1 TEXT"')


class HookTimeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Deadlines of single hooks, where policy.timeout will not do."""

    on_connect: Duration | None = None
    on_auth: Duration | None = None
    on_mail: Duration | None = None
    on_rcpt: Duration | None = None
    knows_recipient: Duration | None = None
    on_message: Duration | None = None
    route: Duration | None = None
    on_outcome: Duration | None = None

    def __post_init__(self) -> None:
        for hook in HOOKS:
            if (value := getattr(self, hook)) is not None:
                _require(hook, 0.01, value, 600)


class PolicyOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who decides besides the configuration.

    file        of hooks, absolute; "": none.
    timeout     for one call of a hook that waits.
    timeouts    of single hooks.
    on_timeout  "defer": 451 4.7.1; "accept": as if the hook had no objection.
    on_error    "defer": 451 4.3.0; "accept" likewise.
    body_size   of a message, shown to on_message.
    outcomes    that on_outcome may be behind; more are dropped and counted.
    service     servers of Postfix's policy delegation protocol, asked in this order, before hooks.
    """

    file: str = ""
    timeout: Duration = Duration(5)
    timeouts: HookTimeouts = HookTimeouts()
    on_timeout: Literal["defer", "accept"] = "defer"
    on_error: Literal["defer", "accept"] = "defer"
    body_size: Octets = Octets(64 << 10)
    outcomes: int = 10_000
    service: list[ServiceOptions] = []

    def __post_init__(self) -> None:
        if self.file and not (Path(self.file).is_absolute() and self.file.isprintable()):
            raise ValueError(f'file: "{self.file}" is not an absolute path')
        _require("timeout", 0.01, self.timeout, 600)
        _require("body_size", 0, self.body_size, 128 << 10)
        _require("outcomes", 1, self.outcomes, 1_000_000)

    def deadline_s(self, hook: str) -> float:
        own = getattr(self.timeouts, hook)
        return float(self.timeout if own is None else own)


def _require(key: str, least: float, value: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{key}: between {least:g} and {most:g}")
