"""What the operator may set about who people are: the [auth] table."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import msgspec

from angarium.model.units import Duration
from angarium.sasl.preparation import counted_as, identity_of

_DOMAIN: Final = re.compile(r"\.?[^\s@.]+(?:\.[^\s@.]+)*")


class CredentialSource(str):
    """Where credentials are known: "file:/path", "dovecot:/path/of/socket", "http://127.0.0.1:8080/path", "https://...",
    "hook": on_auth of the operator's hook file.

    kind  "" for the empty text: nowhere. path  of file and socket.
    """

    kind: Literal["", "file", "dovecot", "http", "hook"]
    path: str

    @classmethod
    def decode(cls, value: object) -> Self:
        """Raises ValueError for anything else, and for http:// to another machine: it would carry passwords."""
        if not isinstance(value, str):
            raise ValueError(f"expected a source of credentials, got {value!r}")
        self = cls(value)
        scheme, _, path = value.partition(":")
        if scheme in ("file", "dovecot") and path.startswith("/") and path.isprintable():
            self.kind, self.path = scheme, path  # type: ignore[assignment]
        elif scheme in ("http", "https") and is_good_url(value):
            self.kind, self.path = "http", ""
        elif value in ("", "hook"):
            self.kind, self.path = value, ""  # type: ignore[assignment]
        else:
            raise ValueError(
                f'"{value}": expected "file:/path", "dovecot:/path/of/socket", "hook", "https://host/path" '
                'or "http://127.0.0.1:port/path"'
            )
        return self


class QuotaOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one identity may send; 0: no limit. Each is given back steadily, the whole of it in its hour or day."""

    messages_per_hour: int = 0
    messages_per_day: int = 0
    recipients_per_hour: int = 0
    recipients_per_day: int = 0

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            if not 0 <= getattr(self, key) <= 100_000_000:
                raise ValueError(f"{key}: between 0 (no limit) and 100000000")


class AuthOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who people are, for all listeners.

    credentials      see CredentialSource; "" is nowhere, and no listener may offer AUTH then.
    timeout          for one answer of whoever knows the credentials; past it 454.
    threads          passwords hashed at once by one worker, for "file:".
    cache_time       a password that was right is right again for so long without being hashed; 0s: never.
    failure_delay    before a 535 is said.
    failures_per_address, failures_per_identity   in an hour, over all workers; past them nothing is tried.
    senders          identity -> reverse-paths it may use besides its own name: "a@x.example", "x.example",
                     ".x.example", "*"; the identity "*" stands for all.
    quota            identity -> QuotaOptions; "*" for those not named.
    """

    credentials: CredentialSource = CredentialSource.decode("")
    timeout: Duration = Duration(10)
    threads: int = 2
    cache_time: Duration = Duration(60)
    failure_delay: Duration = Duration(2)
    failures_per_address: int = 30
    failures_per_identity: int = 100
    senders: dict[str, list[str]] = {}
    quota: dict[str, QuotaOptions] = {}

    def __post_init__(self) -> None:
        _require("timeout", 0.1, self.timeout, 60)
        _require("threads", 1, self.threads, 64)
        _require("cache_time", 0, self.cache_time, 3600)
        _require("failure_delay", 0, self.failure_delay, 60)
        _require("failures_per_address", 1, self.failures_per_address, 1_000_000)
        _require("failures_per_identity", 1, self.failures_per_identity, 1_000_000)
        for table in ("senders", "quota"):
            for identity in getattr(self, table):
                if identity != "*" and not _is_identity(identity):
                    raise ValueError(f'{table}: "{identity}" is not an identity')
        if len({counted_as(identity) for identity in self.quota}) != len(self.quota):
            raise ValueError("quota: two identities differ in nothing but case; they are counted as one")
        for identity, rules in self.senders.items():
            for rule in rules:
                local, at, domain = rule.rpartition("@")
                if rule != "*" and not (_DOMAIN.fullmatch(domain) and bool(local) == bool(at)):
                    raise ValueError(
                        f'senders: "{identity}": "{rule}": expected "a@x.example", "x.example", ".x.example" or "*"'
                    )


def _is_identity(text: str) -> bool:
    try:
        return identity_of(text) == text
    except ValueError:
        return False


def is_good_url(text: str) -> bool:
    """Whether secrets may be sent there: https:// to anybody, http:// to this machine."""
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        return False
    if not host or port == 0 or url.username or url.fragment:
        return False
    if not text.isascii() or not text.isprintable() or " " in text:
        return False
    if url.scheme == "https":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require(key: str, least: float, value: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{key}: between {least:g} and {most:g}")
