"""Which reverse-paths an identity may use: [auth.senders], compiled for one identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Senders:
    """An identity may always use the null reverse-path and, when it is a mailbox, itself; the table adds to that.

    table  identity -> rules: "a@x.example" (any case), "x.example", ".x.example" (all below it), "*"; the entry "*"
           holds for every identity.
    """

    def __init__(self, identity: str, table: Mapping[str, Sequence[str]]) -> None:
        rules = {rule.lower().encode() for rule in (*table.get("*", ()), *table.get(identity, ()))}
        if "@" in identity:
            rules.add(identity.lower().encode())
        self._may_all = b"*" in rules
        self._mailboxes = frozenset(rule for rule in rules if b"@" in rule)
        self._domains = frozenset(rule for rule in rules if b"@" not in rule)

    def may_use(self, reverse_path: bytes) -> bool:
        """reverse_path  as MAIL said it, without brackets; b"" is the null one."""
        if self._may_all or not reverse_path:
            return True
        lower = reverse_path.lower()
        if lower in self._mailboxes:
            return True
        # The session has parsed it: an "@" inside a quoted local-part stands before the last one.
        domain = lower.rpartition(b"@")[2].removesuffix(b".")
        if domain in self._domains:
            return True
        labels = domain.split(b".")
        return any(b"." + b".".join(labels[cut:]) in self._domains for cut in range(1, len(labels)))
