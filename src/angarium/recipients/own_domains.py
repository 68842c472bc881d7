"""[domain.*] compiled: which domains are ours, and what is known of a local part there without asking anybody."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from angarium.recipients.mailbox import domain_text, parse_target, without_tag
from angarium.recipients.map_watch import MapWatch
from angarium.recipients.maps import MapSource, OpenMap
from angarium.recipients.options import CALL_AHEAD, HOOK, DomainOptions, domain_name


class Standing(enum.Enum):
    """What is known of a mailbox."""

    LISTED = enum.auto()        # in a map
    ANY = enum.auto()           # nothing says who is known: everybody is
    UNKNOWN = enum.auto()
    ASK = enum.auto()           # in no map; the next hop knows
    ASK_HOOK = enum.auto()      # likewise; the operator's hook knows


class OwnDomain:
    """One domain that is ours."""

    def __init__(self, name: str, options: DomainOptions, maps: MapWatch) -> None:
        self.name = name
        self.options = options
        self.folds_case = not options.case_sensitive
        self.delimiters = options.sub_address.encode()
        self.alias_of = domain_text(options.alias_of.encode()).encode() if options.alias_of else b""
        self.catch_all = parse_target(options.catch_all.encode())

        def map_of(text: str) -> OpenMap:
            return maps.map_of(MapSource.parse(text), folds_case=self.folds_case)

        self.aliases = tuple(map_of(text) for text in options.aliases)
        self.lists = tuple(map_of(text) for text in options.recipients if text not in (CALL_AHEAD, HOOK))
        self._otherwise = (
            Standing.ASK if options.asks_ahead
            else Standing.ASK_HOOK if options.asks_hook
            else Standing.UNKNOWN if options.recipients
            else Standing.ANY
        )

    def keys(self, local: bytes, domain: bytes) -> list[bytes]:
        """Under which keys the mailbox may be in our own maps, the closest first. local: from local_key()."""
        name, tag = without_tag(local, self.delimiters)
        keys = [local + b"@" + domain, local]
        return [*keys, name + b"@" + domain, name] if tag else keys

    def standing(self, local: bytes, domain: bytes) -> Standing:
        """Raises MapTrouble: when no map knows it, and one could not be asked."""
        keys = [*self.keys(local, domain), b"@" + domain]
        for list_ in self.lists:
            if any(list_.get(key) is not None for key in keys):
                return Standing.LISTED
        return self._otherwise


class OwnDomains:
    """All of them. A look-up costs a dictionary access per label at most."""

    def __init__(self, domains: Mapping[str, DomainOptions], maps: MapWatch) -> None:
        self._domains: dict[str, OwnDomain] = {}
        for name, each in domains.items():
            self._domains.setdefault(domain_name(name), OwnDomain(domain_name(name), each, maps))
        self._has_subdomains = any(name.startswith(".") for name in self._domains)

    def find(self, domain: str) -> OwnDomain | None:
        """domain: from domain_text()."""
        found = self._domains.get(domain)
        if found is None and self._has_subdomains and not domain.startswith("["):
            dot = domain.find(".")
            while found is None and dot != -1:
                found = self._domains.get(domain[dot:])
                dot = domain.find(".", dot + 1)
        return found

    def __len__(self) -> int:
        return len(self._domains)

    def maps(self) -> list[OpenMap]:
        return [each for domain in self._domains.values() for each in (*domain.aliases, *domain.lists)]

