"""TLS and AUTH towards next hops for those who ask them something besides handing mail over: as for mail."""

from __future__ import annotations

import asyncio

from angarium.events.journal import Journal
from angarium.model.errors import TlsMaterialError
from angarium.model.plan import Site, TlsWish
from angarium.outbound.tls_contexts import Material, TlsContexts
from angarium.outbound.tls_policy import Level, policy_of, with_login
from angarium.queue.shaping import Shaping
from angarium.sasl.logins import Logins
from angarium.tls.terms import TlsTerms


class SideTls:
    """Of one worker, on its loop. Contexts are its own: sessions of mail are not resumed for anything else."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal, logins: Logins | None = None) -> None:
        self._logins = Logins() if logins is None else logins
        self._contexts = TlsContexts(loop, journal)
        self.shaping = Shaping()

    async def terms(self, site: Site) -> TlsTerms:
        """Raises TlsMaterialError: the policy needs what cannot be loaded; LoginTrouble."""
        limits = self.shaping.limits(site, "").options
        name = site.login or limits.login
        login = await self._logins.credentials(name) if name else None
        policy = policy_of(site, TlsWish.NONE, limits)
        policy = with_login(policy, None if login is None else login.options)
        context = None
        if policy.wants_tls:
            material = Material(limits.tls_ca, limits.tls_certificate)
            try:
                context = await self._contexts.get(material, "strict" if policy.floor == Level.VERIFIED else "any")
            except TlsMaterialError:
                if not policy.may_go_clear:
                    raise
        return TlsTerms(policy.name, context, not policy.may_go_clear, policy.floor == Level.VERIFIED, login)
