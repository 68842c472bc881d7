"""[[egress]]: by which pool mail leaves.

The first that says so: the message (a hook gave it a pool), the first [[egress]] that matches, [pool.default]. What a
rule asks of the message goes into the key of its domain queue (route_key.py), so that it is asked once when the
message comes; the pool is chosen when the domain gets its plan.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence

from angarium.model.plan import RoutingTrouble, Site, Source
from angarium.resolver.domain_name import to_a_labels
from angarium.routing.egress_pool import EgressPool, egress_pool
from angarium.routing.options import EgressOptions, PoolOptions, SourceOptions, domain_key
from angarium.routing.route_key import RouteKey, SenderPatterns, egress_part, sender_key
from angarium.routing.source_health import SourceHealth
from angarium.routing.warmup import Warmups


class EgressPools:
    """All pools and the rules that choose one. A changed configuration is a new object.

    pools      by name; "default" is always there.
    is_simple  there is one source and nothing to choose by: a domain without more in its key needs no question.
    asks_messages  some rule looks at sender, tenant or campaign.
    """

    def __init__(
        self,
        pools: Mapping[str, EgressPool],
        rules: Sequence[EgressOptions] = (),
        warmups: Warmups | None = None,
    ) -> None:
        # For the queue: None when nothing is warmed up, so that nobody is asked.
        self.ration_for = None if warmups is None or warmups.is_empty else warmups.ration
        self.pools = dict(pools)
        self.default = self.pools["default"]
        self.only = self.default.only
        # What a rule asks, to its place among the rules and its pool: of the same twice the first counts. A look-up
        # costs a dictionary access for each label of the domain and each pattern that the message matches, however many
        # rules there are.
        self._rules: dict[tuple[str, str, str, str], tuple[int, str]] = {}
        for index, rule in enumerate(rules):
            sender = rule.sender if rule.sender == "*" else sender_key(rule.sender)
            asked = (domain_key(rule.domain), sender, rule.tenant, rule.campaign)
            self._rules.setdefault(asked, (index, rule.pool))
        senders = {sender for _, sender, _, _ in self._rules} - {"*"}
        self._senders = SenderPatterns(senders)
        self._asks_senders = bool(senders)
        self._tenants = frozenset(rule.tenant.encode() for rule in rules if rule.tenant != "*")
        self._campaigns = frozenset(rule.campaign.encode() for rule in rules if rule.campaign != "*")
        self.asks_messages = bool(senders or self._tenants or self._campaigns)
        self.is_simple = self.only is not None and not self._rules and self.ration_for is None

    def choose(self, chance: float | None = None) -> Source:
        """Of the default pool."""
        return self.default.choose(chance)

    def part_of(
        self, reverse_path: bytes, pool: bytes | None, tenant: bytes | None, campaign: bytes | None
    ) -> bytes | None:
        """What the key of a message's domain queues says of egress; None: nothing.

        pool, tenant, campaign  its attributes.
        """
        if pool is not None:
            return egress_part(pool=pool)
        return egress_part(
            tenant=tenant if tenant in self._tenants else None,
            campaign=campaign if campaign in self._campaigns else None,
            senders=self._senders.matching(reverse_path) if self._asks_senders else (),
        )

    def pool_for(self, key: bytes, site: Site, provider: str = "") -> EgressPool:
        """The pool of a domain queue, as far as it can reach the site; provider: whose mail it is.

        Raises RoutingTrouble (temporary, 4.3.5) when the message names one that does not exist: it waits rather than
        leave from an address it was not meant for.
        """
        return self._pool(RouteKey.parse(key)).for_site(site, provider)

    def said_by(self, key: bytes) -> tuple[int | None, bool]:
        """For people: which [[egress]] chooses the pool of a key, by its place (None: none), and whether the message
        itself names it."""
        parts = RouteKey.parse(key)
        return (None, True) if parts.pool else (self._rule(parts)[0], False)

    def _pool(self, key: RouteKey) -> EgressPool:
        if key.pool:
            pool = self.pools.get(key.pool)
            if pool is None:
                close = difflib.get_close_matches(key.pool, self.pools, n=1)
                hint = f'; did the hook mean "{close[0]}"?' if close else ""
                raise RoutingTrouble(False, (4, 3, 5), f"The message's own pool: there is no [pool.{key.pool}]{hint}")
            return pool
        return self._rule(key)[1]

    def _rule(self, key: RouteKey) -> tuple[int | None, EgressPool]:
        """The first that matches."""
        if not self._rules:
            return None, self.default
        asked = itertools.product(
            _spellings(key.domain),
            ("*", *key.egress_senders),
            ("*", key.tenant) if key.tenant else ("*",),
            ("*", key.campaign) if key.campaign else ("*",),
        )
        found = min((self._rules[each] for each in asked if each in self._rules), default=None)
        return (None, self.default) if found is None else (found[0], self.pools[found[1]])


def egress_pools(
    sources: Mapping[str, SourceOptions],
    pools: Mapping[str, PoolOptions],
    rules: Sequence[EgressOptions],
    hostname: str,
    *,
    health: SourceHealth | None = None,
    warmups: Warmups | None = None,
) -> EgressPools:
    """As the configuration says. Raises ConfigError when a pool names a source that is not there."""
    options = {"default": PoolOptions(), **pools}
    made = {
        name: egress_pool(sources, pool, hostname, name=name, health=health, warmups=warmups)
        for name, pool in options.items()
    }
    return EgressPools(made, rules, warmups)


def _spellings(domain: bytes) -> Iterator[str]:
    """The patterns that a domain of a forward-path matches."""
    yield "*"
    if domain.startswith(b"["):
        yield domain.decode("ascii", "replace").lower()
        return
    try:
        name = to_a_labels(domain)
    except ValueError:
        return
    yield name
    dot = name.find(".")
    while dot != -1:
        yield name[dot:]
        dot = name.find(".", dot + 1)
