"""Everything [recipients], [domain.*] and [[bcc]] say, compiled: what becomes of one forward-path or reverse-path.

No sockets, no loop: whoever must be asked is named (Found.asks), and asked by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from angarium.mime.notify import Notify
from angarium.mime.xtext import encode_utf8_addr_xtext, encode_xtext
from angarium.recipients.aliases import Aliases
from angarium.recipients.mailbox import domain_text, items, local_key, parse_target, split, without_tag
from angarium.recipients.map_watch import MapWatch
from angarium.recipients.maps import MapSource, MapTrouble, OpenMap
from angarium.recipients.options import BccOptions, DomainOptions, RecipientsOptions
from angarium.recipients.own_domains import OwnDomains, Standing
from angarium.routing.route_key import SenderPatterns, sender_key

# RFC 3461 §4.2
ORCPT_OCTETS_MAXIMUM = 500


class Found(msgspec.Struct, frozen=True):
    """Who gets mail for a forward-path.

    mailboxes   in order, each once. Empty with is_unknown: refuse; empty without: take it and drop it.
    unknown     mailboxes that the forward-path stands for beside others and that do not exist.
    asks        the only mailbox is known to its next hop alone: ask there.
    asks_hook   likewise, to a hook of the operator's.
    otherwise   who gets it when the answer is no (catch_all); None: refuse.
    """

    mailboxes: tuple[bytes, ...]
    is_unknown: bool = False
    unknown: tuple[bytes, ...] = ()
    asks: bool = False
    asks_hook: bool = False
    otherwise: bytes | None = None


class Rewriting:
    def __init__(
        self,
        domains: Mapping[str, DomainOptions],
        options: RecipientsOptions,
        bcc: Sequence[BccOptions],
        maps: MapWatch,
    ) -> None:
        self.options = options
        self.own = OwnDomains(domains, maps)
        aliases = [maps.map_of(MapSource.parse(text)) for text in options.aliases]
        self._senders = [maps.map_of(MapSource.parse(text)) for text in options.senders]
        self._has_aliases = bool(aliases)
        self._aliases = Aliases(
            self.own, aliases, max_depth=options.max_depth, max_expansion=options.max_expansion
        )
        self.maps: tuple[OpenMap, ...] = (*self.own.maps(), *aliases, *self._senders)
        self._bcc = tuple((_patterns(each.sender), _patterns(each.recipient), each.to.encode()) for each in bcc)

    @property
    def looks_at_recipients(self) -> bool:
        return bool(self._bcc or self._has_aliases or len(self.own))

    @property
    def looks_at_senders(self) -> bool:
        return bool(self._senders)

    def find(self, forward_path: bytes) -> Found:
        """Raises MapTrouble."""
        mailboxes = self._aliases.expand(forward_path)
        if len(mailboxes) == 1:
            return self._find_one(mailboxes[0])
        known: list[bytes] = []
        unknown: list[bytes] = []
        for mailbox in mailboxes:
            (unknown if self.standing(mailbox) is Standing.UNKNOWN else known).append(mailbox)
        return Found(tuple(known), is_unknown=bool(unknown) and not known, unknown=tuple(unknown))

    def _find_one(self, mailbox: bytes) -> Found:
        standing = self.standing(mailbox)
        if standing is Standing.UNKNOWN:
            return Found((), is_unknown=True)
        if standing is Standing.ASK or standing is Standing.ASK_HOOK:
            own = self.own.find(domain_text(split(mailbox)[1]))
            is_hook = standing is Standing.ASK_HOOK
            otherwise = own.catch_all if own is not None else None
            return Found((mailbox,), asks=not is_hook, asks_hook=is_hook, otherwise=otherwise)
        return Found((mailbox,))

    def standing(self, mailbox: bytes) -> Standing:
        """Of a mailbox of ours; of others' ANY. Raises MapTrouble."""
        local, domain_octets = split(mailbox)
        domain = domain_text(domain_octets)
        own = self.own.find(domain)
        if own is None:
            return Standing.ANY
        key = local_key(local, folds_case=own.folds_case)
        return own.standing(key, domain.encode("utf-8", "surrogateescape"))

    def key(self, mailbox: bytes) -> bytes:
        """One spelling of a mailbox."""
        local, domain_octets = split(mailbox)
        domain = domain_text(domain_octets)
        own = self.own.find(domain)
        key = local_key(local, folds_case=own is None or own.folds_case)
        return key + b"@" + domain.encode("utf-8", "surrogateescape")

    def parts(self, mailbox: bytes) -> tuple[bytes, bytes, bytes, str]:
        """Local part as it is compared, its name and its tag, and the domain."""
        local, domain_octets = split(mailbox)
        domain = domain_text(domain_octets)
        own = self.own.find(domain)
        key = local_key(local, folds_case=own is None or own.folds_case)
        return key, *without_tag(key, own.delimiters if own is not None else b""), domain

    def rewrite_sender(self, reverse_path: bytes) -> bytes:
        """What stands in the place of a reverse-path; itself, when no map says otherwise. The null one stays.

        Raises MapTrouble.
        """
        if not reverse_path:
            return reverse_path
        local, domain_octets = split(reverse_path)
        text = domain_text(domain_octets)
        own = self.own.find(text)
        domain = text.encode("utf-8", "surrogateescape")
        key = local_key(local, folds_case=own is None or own.folds_case)
        name, tag = without_tag(key, own.delimiters) if own is not None else (key, b"")
        keys = [key + b"@" + domain, *([name + b"@" + domain] if tag else []), b"@" + domain]
        for each in keys:
            for map_ in self._senders:
                if (value := map_.get(each)) is not None:
                    return self._sender(map_, each, value, local)
        return reverse_path

    def _sender(self, map_: OpenMap, key: bytes, value: bytes, local: bytes) -> bytes:
        found = items(value)
        target = None
        if len(found) == 1:
            is_whole_domain = found[0].startswith(b"@") and key.startswith(b"@")
            target = parse_target(local + found[0] if is_whole_domain else found[0])
        if target is None:
            raise MapTrouble(f"{map_.source}: {key.decode('utf-8', 'replace')}: needs one mailbox")
        return target

    def copies(self, reverse_path: bytes, forward_path: bytes, *, is_first: bool) -> list[bytes]:
        """Who besides gets it because of this recipient; because of the sender only with the first one."""
        found: dict[bytes, None] = {}
        for sender, recipient, to in self._bcc:
            if recipient is None and not is_first:
                continue
            if (sender is None or sender.matching(reverse_path)) and (
                recipient is None or recipient.matching(forward_path)
            ):
                found[to] = None
        return list(found)


def _patterns(pattern: str) -> SenderPatterns | None:
    return None if pattern == "*" else SenderPatterns([sender_key(pattern)])


def original_recipient(forward_path: bytes) -> bytes:
    """ORCPT for a mailbox that the client gave none for (RFC 3461 §4.2, RFC 6533 §3); b"" when it would be too long."""
    if forward_path.isascii():
        orcpt = b"rfc822;" + encode_xtext(forward_path)
    else:
        orcpt = b"utf-8;" + encode_utf8_addr_xtext(forward_path.decode("utf-8", "replace")).encode()
    return orcpt if len(orcpt) <= ORCPT_OCTETS_MAXIMUM else b""


def notify_of_members(notify: int) -> int:
    """NOTIFY of those that one recipient with `notify` stands for, when they are several (RFC 3461 §5.2.7.3): that it
    was expanded is the success that the sender is told of, so theirs is not."""
    if not notify & Notify.SUCCESS:
        return notify
    return int(notify & ~Notify.SUCCESS) or int(Notify.NEVER)
