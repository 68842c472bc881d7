"""Which queued mail is meant: the filters of orders and automation. All that are given must hold.

Here are only their names and what they may be; how they are asked of a recipient is matching.pyx.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from angarium.model.units import Duration, Octets
from angarium.queue.shaping_options import domain_pattern
from angarium.routing.route_key import sender_key
from angarium.spool.envelope import decode_id

_LABEL_CHARACTERS: Final = 16384   # a site has the names of all its hosts: 20 of 253


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Recipients for whom everything holds that is set; nothing set: all.

    id          of the message.
    domain      of the recipient: "example.com", ".example.com" (all below it), "@example.com" (both).
    site        as `angarium queue show` and the log name it, or one of its hosts.
    exact_site  its name is meant, and no site that it is one of the hosts of: what automation does is about that alone.
    provider    of [shaping.provider.NAME] that the site or the domain belongs to.
    source, pool  by which it would leave now.
    tenant, campaign  as a hook or a login gave them.
    without_tenant  whose message has no tenant: campaigns of the same name are its tenant's where it has one.
    sender      reverse-path: "user@example.com", "example.com", ".example.com", "<>".
    recipient   forward-path: likewise.
    older_than_s, younger_than_s       since the message came.
    larger_than_octets, smaller_than_octets  of the message.

    A site, provider, source or pool is known of a domain that was looked up since the start of the relay.
    """

    id: str = ""
    domain: str = ""
    site: str = ""
    exact_site: bool = False
    provider: str = ""
    source: str = ""
    pool: str = ""
    tenant: str = ""
    campaign: str = ""
    without_tenant: bool = False
    sender: str = ""
    recipient: str = ""
    older_than_s: float = 0.0
    younger_than_s: float = 0.0
    larger_than_octets: int = 0
    smaller_than_octets: int = 0

    def __post_init__(self) -> None:
        for key in TEXTS:
            text = getattr(self, key)
            if len(text) > _LABEL_CHARACTERS or not text.isprintable():
                raise ValueError(f"{key}: at most {_LABEL_CHARACTERS} printable characters")
        if self.id:
            try:
                decode_id(self.id)
            except ValueError:
                raise ValueError(f'id: "{self.id}" is not an id: 13 digits and letters as listed') from None
        if self.domain:
            try:
                domain_key(self.domain.removeprefix("@"))
            except ValueError as error:
                raise ValueError(f"domain: {error}") from None
        for key in ("sender", "recipient"):
            if getattr(self, key):
                try:
                    sender_key(getattr(self, key))
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
        if self.exact_site and not self.site:
            raise ValueError("exact_site: of a site")
        if self.tenant and self.without_tenant:
            raise ValueError("without_tenant: either this or a tenant")
        for key in (*AGES, *SIZES):
            if getattr(self, key) < 0:
                raise ValueError(f"{key}: 0 or more")

    @property
    def is_all(self) -> bool:
        return self == ALL

    def __str__(self) -> str:
        """For people: "domain example.com, older than 2d"; "all mail"."""
        parts = [f"{key} {getattr(self, key)}" for key in TEXTS if getattr(self, key)]
        parts += ["without a tenant"] if self.without_tenant else []
        parts += [f"{_words(key, '_s')} {Duration(getattr(self, key))}" for key in AGES if getattr(self, key)]
        parts += [f"{_words(key, '_octets')} {getattr(self, key)} octets" for key in SIZES if getattr(self, key)]
        return ", ".join(parts) or "all mail"


TEXTS: Final = ("id", "domain", "site", "provider", "source", "pool", "tenant", "campaign", "sender", "recipient")
AGES: Final = ("older_than_s", "younger_than_s")
SIZES: Final = ("larger_than_octets", "smaller_than_octets")
ALL: Final = Selection()


def may_meet(one: Selection, other: Selection) -> bool:
    """False: there can be no mail that both mean. True: there is some, or it cannot be told from the filters."""
    for key in ("provider", "source", "pool", "tenant", "campaign"):
        wanted, others = getattr(one, key), getattr(other, key)
        if wanted and others and wanted != others:
            return False
    if (one.without_tenant and other.tenant) or (other.without_tenant and one.tenant):
        return False
    if one.id and other.id and decode_id(one.id) != decode_id(other.id):
        return False
    if one.site and other.site and not _sites_meet(one, other):
        return False
    return not (one.domain and other.domain) or _domains_meet(one.domain, other.domain)


def is_site(where: Selection, name: str) -> bool:
    """Whether the site of a filter that has one is the one of that name."""
    wanted, name = where.site.lower(), name.lower()
    return wanted == name or (not where.exact_site and wanted in name.split(","))


def _sites_meet(one: Selection, other: Selection) -> bool:
    if is_site(one, other.site) or is_site(other, one.site):
        return True
    # Two hosts may be of one site.
    return not any(each.exact_site or "," in each.site for each in (one, other))


def _domains_meet(one: str, other: str) -> bool:
    (name, below), (other_name, other_below) = _name_and_below(one), _name_and_below(other)
    if name and (name == other_name or (other_below and name.endswith(other_below))):
        return True
    if other_name and below and other_name.endswith(below):
        return True
    return bool(below and other_below) and (below.endswith(other_below) or other_below.endswith(below))


def _name_and_below(pattern: str) -> tuple[str, str]:
    key = domain_key(pattern.removeprefix("@"))
    if pattern.startswith("@"):
        return key, "." + key
    return ("", key) if key.startswith(".") else (key, "")


def domain_key(text: str) -> str:
    """In normal form: "example.com", ".example.com", or an address literal. Raises ValueError."""
    return text.lower() if text.startswith("[") and text.endswith("]") else domain_pattern(text)


def selection(**fields: str | bool | Duration | Octets | None) -> Selection:
    """As a command's options have them: `older_than`, `larger_than` and so on without their units, None for none."""
    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    for keys, unit, kind in ((AGES, "_s", float), (SIZES, "_octets", int)):
        for key in keys:
            short = key.removesuffix(unit)
            if short in given:
                given[key] = kind(given.pop(short))  # what options are made of cannot be encoded
    return Selection(**given)


def _words(key: str, unit: str) -> str:
    return key.removesuffix(unit).replace("_", " ")
