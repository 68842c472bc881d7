"""MTA-STS records and policies as texts (RFC 8461 §3): read, or refused with the reason. No DNS and no HTTPS here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from angarium.model.plan import StsRule
from angarium.resolver.domain_name import is_host_name, to_a_labels

Mode = Literal["enforce", "testing", "none"]

_MODES: Final[dict[str, Mode]] = {"enforce": "enforce", "testing": "testing", "none": "none"}
_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII)
# "max_age": §3.2: at most a year, and a plain number.
_MAX_AGE: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
MAX_AGE_S: Final = 31_557_600
# Chosen: a policy with more has not been seen, and each is compared with each host of each plan.
_PATTERNS_MAXIMUM: Final = 100


class StsPolicy(msgspec.Struct, frozen=True):
    """patterns: "mx.example.net" or "*.example.net", A-labels in lower case; empty only with mode "none"."""

    mode: Mode
    patterns: tuple[str, ...]
    max_age_s: int

    @property
    def rule(self) -> StsRule | None:
        return None if self.mode == "none" else StsRule(self.mode, self.patterns)


def id_of_records(texts: Sequence[str]) -> str | None:
    """The id of the policy that TXT records of _mta-sts.DOMAIN announce; None: there is none (§3.1: or several)."""
    records = [text for text in texts if re.match(r"v=STSv1[ \t]*;", text)]
    if len(records) != 1:
        return None
    for field in records[0].split(";")[1:]:
        key, equals, value = field.strip(" \t").partition("=")
        if key == "id" and equals and _ID.fullmatch(value):
            return value
    return None


def parse_policy(octets: bytes) -> StsPolicy:
    """The content of https://mta-sts.DOMAIN/.well-known/mta-sts.txt. Raises ValueError that says what is wrong.

    Of a key that comes twice the first counts, but for mx (§3.2); unknown keys are passed over.
    """
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    values: dict[str, str] = {}
    patterns: list[str] = []
    for number, line in enumerate(re.split(r"\r?\n", text)):
        key, colon, value = line.partition(":")
        value = value.strip(" \t")
        if not colon:
            if line.strip(" \t"):
                raise ValueError(f"line {number + 1} is no \"key: value\"")
        elif key == "mx":
            patterns.append(_pattern(value))
        else:
            values.setdefault(key, value)
    if values.get("version") != "STSv1":
        raise ValueError("version is not STSv1")
    mode = _MODES.get(values.get("mode", ""))
    if mode is None:
        raise ValueError("mode is none of enforce, testing, none")
    if not _MAX_AGE.fullmatch(values.get("max_age", "")):
        raise ValueError("max_age is no number of seconds")
    if mode != "none" and not patterns:
        raise ValueError("it names no mx")
    if len(patterns) > _PATTERNS_MAXIMUM:
        raise ValueError(f"more than {_PATTERNS_MAXIMUM} mx")
    return StsPolicy(mode, tuple(dict.fromkeys(patterns)), min(int(values["max_age"]), MAX_AGE_S))


def _pattern(text: str) -> str:
    star = "*." if text.startswith("*.") else ""
    try:
        name = to_a_labels(text.removeprefix("*.").encode())
    except ValueError:
        name = ""
    if not is_host_name(name):
        raise ValueError("an mx is neither a name nor \"*.name\"")
    return star + name
