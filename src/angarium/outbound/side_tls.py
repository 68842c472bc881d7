"""TLS towards next hops for those who ask them something besides handing mail over: the policy is the one of mail."""

from __future__ import annotations

import asyncio

from angarium.events.journal import Journal
from angarium.model.errors import TlsMaterialError
from angarium.model.plan import Site, TlsWish
from angarium.outbound.tls_contexts import Material, TlsContexts
from angarium.outbound.tls_policy import Level, policy_of
from angarium.queue.shaping import Shaping
from angarium.tls.terms import TlsTerms


class SideTls:
    """Of one worker, on its loop. Contexts are its own: sessions of mail are not resumed for anything else."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._contexts = TlsContexts(loop, journal)
        self.shaping = Shaping()

    async def terms(self, site: Site) -> TlsTerms:
        """Raises TlsMaterialError: the policy needs what cannot be loaded."""
        limits = self.shaping.limits(site, "").options
        policy = policy_of(site, TlsWish.NONE, limits.tls)
        context = None
        if policy.wants_tls:
            material = Material(limits.tls_ca, limits.tls_certificate)
            try:
                context = await self._contexts.get(material, "strict" if policy.floor == Level.VERIFIED else "any")
            except TlsMaterialError:
                if not policy.may_go_clear:
                    raise
        return TlsTerms(policy.name, context, not policy.may_go_clear, policy.floor == Level.VERIFIED)
