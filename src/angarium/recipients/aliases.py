"""For whom a mailbox stands: aliases, whole domains, catch-alls. Pure: maps and own domains in, mailboxes out.

The order for one mailbox: its own aliases, with its tag and without; when a list knows it, itself; then the alias of
its whole domain, alias_of, catch_all; itself. Whoever an alias names is looked up in the same way. Two things end
that: a mailbox that is met again stands for itself, and the caps on depth and size.

Nothing here asks whether somebody may relay. That was decided on the mailbox that the client named; to whom its alias
leads is the operator's word. What the client named gets into a result only as a whole local part, never taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from angarium.recipients.mailbox import domain_text, items, local_key, parse_target, split, without_tag
from angarium.recipients.maps import MapTrouble, OpenMap
from angarium.recipients.own_domains import OwnDomain, OwnDomains, Standing

DISCARD = b"discard:"


class ExpansionTooLarge(MapTrouble):
    """More than max_depth or max_expansion: the maps are wrong, and mail waits until they are mended."""


class Aliases:
    """aliases  of [recipients]: for mailboxes of all domains."""

    def __init__(
        self, own: OwnDomains, aliases: Sequence[OpenMap], *, max_depth: int, max_expansion: int
    ) -> None:
        self._own = own
        self._aliases = tuple(aliases)
        self._max_depth = max_depth
        self._max_expansion = max_expansion

    def expand(self, mailbox: bytes) -> list[bytes]:
        """Who gets mail for a mailbox, each once, in order; [mailbox] when there is nothing to say; empty: nobody.

        Raises MapTrouble, ExpansionTooLarge.
        """
        found: dict[bytes, bytes] = {}      # key to mailbox as written
        self._expand(mailbox, found, set(), set(), 0)
        return list(found.values())

    def _expand(
        self, mailbox: bytes, found: dict[bytes, bytes], path: set[bytes], done: set[bytes], depth: int
    ) -> None:
        local, domain_octets = split(mailbox)
        domain = domain_text(domain_octets)
        own = self._own.find(domain)
        key = local_key(local, folds_case=own is None or own.folds_case)
        whole = key + b"@" + domain.encode("utf-8", "surrogateescape")
        targets = None
        if whole not in path:
            if whole in done:
                return
            done.add(whole)
            targets = self._targets(key, local, domain.encode("utf-8", "surrogateescape"), own)
        if targets is None:
            found.setdefault(whole, mailbox)
            if len(found) > self._max_expansion:
                raise ExpansionTooLarge(f"an alias stands for more than {self._max_expansion} mailboxes")
            return
        if depth >= self._max_depth:
            raise ExpansionTooLarge(f"aliases lead to aliases more than {self._max_depth} times")
        if len(targets) > self._max_expansion:
            raise ExpansionTooLarge(f"an alias stands for more than {self._max_expansion} mailboxes")
        path.add(whole)
        for target in targets:
            self._expand(target, found, path, done, depth + 1)
        path.discard(whole)

    def _targets(self, key: bytes, local: bytes, domain: bytes, own: OwnDomain | None) -> list[bytes] | None:
        """What the mailbox stands for; None: itself. key: of the local part; local: as written."""
        name, tag = without_tag(key, own.delimiters) if own is not None else (key, b"")
        for at, used in ((key, b""), (name, tag)) if tag else ((key, b""),):
            for map_ in own.aliases if own is not None else ():
                for each in (at + b"@" + domain, at):
                    if (value := map_.get(each)) is not None:
                        return self._parse(map_, each, value, domain, used, local)
            for map_ in self._aliases:
                each = at + b"@" + domain
                if (value := map_.get(each)) is not None:
                    return self._parse(map_, each, value, domain, used, local)
        if own is not None and own.standing(key, domain) is Standing.LISTED:
            return None
        for map_ in (*(own.aliases if own is not None else ()), *self._aliases):
            each = b"@" + domain
            if (value := map_.get(each)) is not None:
                return self._parse(map_, each, value, domain, b"", local)
        if own is not None and own.alias_of:
            return [local + b"@" + own.alias_of]
        if own is not None and own.catch_all is not None and own.standing(key, domain) is Standing.UNKNOWN:
            return [own.catch_all]
        return None

    def _parse(  # noqa: PLR0917
        self, map_: OpenMap, key: bytes, value: bytes, domain: bytes, tag: bytes, local: bytes
    ) -> list[bytes]:
        """The mailboxes of a value. Raises MapTrouble for what is none: half an alias would lose mail."""
        targets = []
        for item in items(value):
            if item == DISCARD:
                continue
            if item.startswith(b"@") and key.startswith(b"@"):
                target = parse_target(local + item)         # all of the domain, one by one
            elif b"@" not in item:
                target = parse_target(item + b"@" + domain)
            else:
                target = parse_target(item)
            if target is None:
                shown = item[:100].decode("utf-8", "replace")
                raise MapTrouble(f'{map_.source}: {key.decode("utf-8", "replace")}: "{shown}" is not a mailbox')
            targets.append(self._tagged(target, tag) if tag else target)
        if not targets and DISCARD not in items(value):
            raise MapTrouble(f"{map_.source}: {key.decode('utf-8', 'replace')}: stands for nobody")
        return targets

    def _tagged(self, target: bytes, tag: bytes) -> bytes:
        """The tag goes along where it means something: to domains of ours that have the same delimiter, and one
        only."""
        local, domain = split(target)
        own = self._own.find(domain_text(domain))
        if own is None or tag[0] not in own.delimiters or local.startswith(b'"') or without_tag(local,
        own.delimiters)[1]:
            return target
        return parse_target(local + tag + b"@" + domain) or target
