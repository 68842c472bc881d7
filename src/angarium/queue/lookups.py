"""Domains that wait for their mail exchangers to be looked up, and whose turn it is.

As many look-ups are under way as there are slots; slow ones may keep one for many seconds. Tenants have turns, and so
have the campaigns of one, and mail of a raised priority besides; and no tenant takes all slots: it gets another one
only while it has fewer than twice as many as are free. One alone comes to two thirds, and who comes then finds some.

A look-up that waits for somebody who has bounds of his own (a policy that is fetched over HTTPS) gives its slot back
meanwhile: it is parked, and stands in line again behind that.
"""

from __future__ import annotations

import collections
from collections.abc import Hashable
from typing import Final

SLOTS: Final = 256
_SHARE: Final = 2       # judged: more would leave too few for a third one, less would slow one who is alone
_STALE_AT_ONCE: Final = 500


_BACK: Final = "back"   # the line of each tenant for those that were parked


class _Line:
    """The domains of one campaign."""

    def __init__(self) -> None:
        self.domains: collections.deque[Hashable] = collections.deque()
        self.members: set[Hashable] = set()


class _Tenant:
    def __init__(self) -> None:
        self.lines: dict[Hashable, _Line] = {}
        self.turns: collections.deque[Hashable] = collections.deque()  # keys of lines, none of them empty
        self.under_way = 0


class Lookups:
    """Who is looked up next. A domain may stand in several lines; it is looked up at its first turn."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._tenants: dict[bytes, _Tenant] = {}
        self._turns: collections.deque[bytes] = collections.deque()  # tenants with somebody in line
        self._waiting: set[Hashable] = set()
        self._asked: dict[Hashable, bytes] = {}
        self._parked: dict[Hashable, bytes] = {}
        self.is_cut_short = False       # next() gave None after much work, and may give somebody when called again

    def add(self, domain: Hashable, tenant: bytes, line: Hashable) -> bool:
        """The domain waits, for mail of this tenant in this line. False: it does so already, or is being looked up."""
        if domain in self._asked or domain in self._parked:
            return False
        of_tenant = self._tenants.get(tenant)
        if of_tenant is None:
            of_tenant = self._tenants[tenant] = _Tenant()
        found = of_tenant.lines.get(line)
        if found is None:
            found = of_tenant.lines[line] = _Line()
            if not of_tenant.turns:
                self._turns.append(tenant)
            of_tenant.turns.append(line)
        is_new = domain not in self._waiting
        if domain not in found.members:
            found.domains.append(domain)
            found.members.add(domain)
            is_new = True
        self._waiting.add(domain)       # it may stand there still from a look-up that was made for somebody else
        return is_new

    def next(self) -> Hashable | None:
        """The domain to be looked up now; None: nobody may be. ended() when it was."""
        free = self._slots - len(self._asked)
        # Who stands in the way has twice as many slots as are free, and there are not that many such tenants.
        blocked = stale = 0
        self.is_cut_short = False
        while free > 0 and blocked < len(self._turns):
            tenant = self._turns[0]
            of_tenant = self._tenants[tenant]
            self._turns.rotate(-1)
            if of_tenant.under_way >= _SHARE * free:
                blocked += 1
                continue
            domain = self._of(of_tenant)
            if not of_tenant.turns:
                self._turns.pop()
            if domain not in self._waiting:             # it was looked up for somebody else
                self._forget(tenant, of_tenant)
                stale += 1
                if stale == _STALE_AT_ONCE:
                    self.is_cut_short = True
                    return None
                continue
            self._waiting.discard(domain)
            self._asked[domain] = tenant
            of_tenant.under_way += 1
            return domain
        return None

    def ended(self, domain: Hashable) -> None:
        """The look-up is over, whatever came of it."""
        tenant = self._asked.pop(domain)
        of_tenant = self._tenants[tenant]
        of_tenant.under_way -= 1
        self._forget(tenant, of_tenant)

    def park(self, domain: Hashable) -> None:
        """The look-up goes on without a slot; in place of ended(). back() when it needs one again."""
        tenant = self._asked[domain]
        self.ended(domain)
        self._parked[domain] = tenant

    def back(self, domain: Hashable) -> None:
        """Of a domain that was parked: it is looked up at its tenant's next turn but those of others in his lines."""
        self.add(domain, self._parked.pop(domain), _BACK)

    def __len__(self) -> int:
        """Domains that wait."""
        return len(self._waiting)

    @staticmethod
    def _of(tenant: _Tenant) -> Hashable:
        key = tenant.turns.popleft()
        line = tenant.lines[key]
        domain = line.domains.popleft()
        line.members.discard(domain)
        if line.domains:
            tenant.turns.append(key)
        else:
            del tenant.lines[key]
        return domain

    def _forget(self, name: bytes, tenant: _Tenant) -> None:
        if not tenant.lines and tenant.under_way == 0:
            del self._tenants[name]
