"""From a domain to a Plan: a configured route, or the domain's mail exchangers. One per worker, on its loop.

Which egress source is taken is not said here (egress_pool.py), nor when mail is tried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec

from angarium.model.plan import Host, Plan, Published, RoutingTrouble, Site
from angarium.resolver.answer import Kind, Resolver
from angarium.resolver.cache import ExpiringCache
from angarium.resolver.domain_name import to_a_labels
from angarium.routing.mail_exchangers import site_by_mx, site_of_literal
from angarium.routing.next_hop import SMTP_PORT, NextHop, parse_route
from angarium.routing.options import RouteOptions
from angarium.routing.ourselves import Ourselves
from angarium.routing.route_key import RouteKey, SenderPatterns
from angarium.routing.routes import RouteTable
from angarium.tls.dane import find_tlsa
from angarium.tls.sts_policies import StsPolicies

_FOREVER: Final = float("inf")
_ALL: Final = Published(tlsa=True, sts=True)

# A plan made of records about to expire must outlive the moment it is made for.
_PLAN_MINIMUM_S: Final = 5.0

# Plans of domains that mail may come for again; a domain with mail in the queue keeps its own.
_PLANS_KEPT: Final = 10_000


class Router:
    """Routes and resolver together. A changed configuration is a new Router.

    port   of mail exchangers.
    with_tlsa  looks up TLSA records: the resolver says what is secure, and DANE is wanted.
    sts    MTA-STS policies of domains; None: they are not heeded.
    published  what of both is looked up for a domain (A-labels) at a site; None: all that those two allow.
    clock  monotonic seconds, the same as the resolver's.
    """

    def __init__(
        self,
        routes: Sequence[RouteOptions],
        resolver: Resolver,
        ourselves: Ourselves,
        *,
        port: int = SMTP_PORT,
        with_tlsa: bool = False,
        sts: StsPolicies | None = None,
        published: Callable[[Site, bytes], Published] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = RouteTable(routes)
        self._resolver = resolver
        self._ourselves = ourselves
        self._port = port
        self._with_tlsa = with_tlsa
        self._sts = sts
        self._published = published
        self._clock = clock
        self._fixed = {hop: _fixed_plan(hop) for hop in self._routes.next_hops}
        self._senders = SenderPatterns(self._routes.senders)
        # For the queue: None when no route looks at senders, so that nobody is asked for each message.
        self.route_of_sender = self._route_of_sender if self._routes.senders else None
        self._plans: ExpiringCache[bytes, Plan] = ExpiringCache(_PLANS_KEPT, clock)
        # Equal sites are one object: a hundred thousand domains at one provider share its hosts.
        self._sites: ExpiringCache[Site, Plan] = ExpiringCache(_PLANS_KEPT, clock)

    def plan_now(self, key: bytes) -> Plan | None:
        """The plan when it needs no DNS: the next hop is configured, or was looked up and still holds.

        key  as for plan(). None also where plan() would raise RoutingTrouble.
        """
        plan = self._plans.get(key)
        if plan is not None and self._heeds_policy(key, plan):
            return plan
        try:
            _, next_hop = self._next_hop(key)
        except RoutingTrouble:
            return None
        return self._fixed[next_hop] if next_hop in self._fixed else _fixed_plan(next_hop)

    async def plan(self, key: bytes) -> Plan:
        """Where mail for a domain goes.

        key  a domain of a forward-path: A-labels, U-labels (RFC 6531) or an address literal in brackets; and perhaps
             a route (route_key.py).
        Raises RoutingTrouble: permanent 5.1.2, 5.1.10, 5.4.4, 5.4.6; temporary 4.4.3, 4.3.5.
        """
        found = await self.plan_or_wait(key)
        if isinstance(found, asyncio.Task):
            await asyncio.wait([found])
            found = await self.plan_or_wait(key, found)
        assert isinstance(found, Plan)
        return found

    async def plan_or_wait(
        self, key: bytes, waited_for: asyncio.Task[Any] | None = None
    ) -> Plan | asyncio.Task[Any]:
        """As plan(); where a policy has to be fetched first, which needs no look-ups and may take long, the task that
        does it, which is not the caller's to cancel. waited_for: it is done: there is a plan whatever came of it."""
        plan = self.plan_now(key)
        if plan is not None:
            return plan
        name, next_hop = self._next_hop(key)
        if next_hop.protocol == "mx" and name.startswith("["):
            site = site_of_literal(name, self._ourselves, self._port)
            site = msgspec.structs.replace(site, tls=next_hop.tls, login=next_hop.login)
            plan = Plan(site, self._clock() + 60.0)
        elif next_hop.protocol == "mx":
            site, expires_mono_s = await site_by_mx(
                name, self._resolver, self._ourselves, self._port, wants_tlsa=self._wants_tlsa(name)
            )
            rule = None
            if self._sts is not None and self._looks_up(site, name).sts:
                found = await self._sts.look(name, waited_for)
                if isinstance(found, asyncio.Task):
                    return found
                rule, expires_mono_s = found.rule, min(expires_mono_s, found.look_again_mono_s)
            site = msgspec.structs.replace(site, tls=next_hop.tls, sts=rule, login=next_hop.login)
            plan = self._plan(site, expires_mono_s)
        else:
            plan = self._plan(*await self._site_of_smarthost(next_hop, name))
        self._plans.put(key, plan)
        return plan

    def _heeds_policy(self, key: bytes, plan: Plan) -> bool:
        """Whether a plan made before goes by the policy that is known now."""
        if self._sts is None or not _is_by_mx(plan.site):
            return True
        name = _normal(RouteKey.parse(key).domain)
        if not self._looks_up(plan.site, name).sts:
            return True
        known = self._sts.remembered(name)
        return known is None or known.rule == plan.site.sts

    def said_by(self, key: bytes) -> tuple[str, int | None, bool]:
        """For people: the next hop of a key as text, the place of its route among the routes (None: none of them), and
        whether the message itself says where to. Raises RoutingTrouble."""
        parts = RouteKey.parse(key)
        name, next_hop = self._next_hop(key)
        is_own = bool(parts.next_hop)
        return next_hop.text, None if is_own else self._routes.place(name, parts.senders), is_own

    def _next_hop(self, key: bytes) -> tuple[str, NextHop]:
        """The domain's name and its next hop. Raises RoutingTrouble."""
        parts = RouteKey.parse(key)
        name = _normal(parts.domain)
        if not parts.next_hop:
            return name, self._routes.match(name, parts.senders)
        try:
            return name, parse_route(parts.next_hop)
        except ValueError as error:
            raise RoutingTrouble(False, (4, 3, 5), f"The message's own route: {error}") from None

    def _route_of_sender(self, reverse_path: bytes) -> bytes | None:
        patterns = self._senders.matching(reverse_path)
        return b"<" + "\0".join(patterns).encode("utf-8", "surrogateescape") if patterns else None

    def _looks_up(self, site: Site, name: str) -> Published:
        return _ALL if self._published is None else self._published(site, name.encode())

    def _wants_tlsa(self, name: str) -> Callable[[Site], bool] | None:
        return (lambda site: self._looks_up(site, name).tlsa) if self._with_tlsa else None

    async def _site_of_smarthost(self, next_hop: NextHop, name: str) -> tuple[Site, float]:
        """A host that the operator named: not to find it is never the recipient's fault, so mail waits."""
        answer = await self._resolver.addresses(next_hop.host)
        if answer.kind is not Kind.FOUND:
            status = (4, 4, 3) if answer.kind.is_temporary else (4, 4, 4)
            raise RoutingTrouble(False, status, f"Next hop {next_hop.text}: {answer.detail}")
        host = Host(next_hop.host, answer.records, next_hop.port)
        site = _site_of(next_hop, host)
        if self._with_tlsa and next_hop.protocol in ("smtp", "smtps") and self._looks_up(site, name).tlsa:
            # RFC 7672 §2.2.1: an operator's word is as good as a secure MX record.
            tlsa, look_again_mono_s = await find_tlsa(host.name, host.port, answer, self._resolver)
            return _site_of(next_hop, msgspec.structs.replace(host, tlsa=tlsa)), look_again_mono_s
        return site, answer.look_again_mono_s

    def _plan(self, site: Site, expires_mono_s: float) -> Plan:
        known = self._sites.get(site)
        expires_mono_s = max(expires_mono_s, self._clock() + _PLAN_MINIMUM_S)
        plan = Plan(site if known is None else known.site, expires_mono_s)
        self._sites.put(plan.site, plan)
        return plan


def _fixed_plan(next_hop: NextHop) -> Plan | None:
    """The plan of a next hop that needs no DNS, good for ever."""
    match next_hop.protocol:
        case "lmtp+unix" | "maildir" as protocol:
            return Plan(Site(next_hop.text, protocol, path=next_hop.path), _FOREVER)
        case "smtp" | "smtps" | "lmtp" if next_hop.is_numeric:
            host = Host(next_hop.host, (next_hop.host,), next_hop.port)
            return Plan(_site_of(next_hop, host), _FOREVER)
    return None


def _site_of(next_hop: NextHop, host: Host) -> Site:
    """A host that the operator named."""
    begins_with_tls = next_hop.protocol == "smtps"
    protocol: Literal["smtp", "lmtp"] = "lmtp" if next_hop.protocol == "lmtp" else "smtp"
    return Site(
        next_hop.text, protocol, (host,), tls=next_hop.tls, begins_with_tls=begins_with_tls, login=next_hop.login
    )


def _is_by_mx(site: Site) -> bool:
    return site.protocol == "smtp" and "://" not in site.name


def _normal(domain: bytes) -> str:
    """The domain as routes and DNS know it. Raises RoutingTrouble."""
    if domain.startswith(b"["):
        return domain.decode("ascii", "replace").lower()
    try:
        return to_a_labels(domain)
    except ValueError:
        raise RoutingTrouble(True, (5, 1, 2), "The domain of the address is not a domain name") from None
