"""A worker's certificates: loaded off the loop, and loaded anew when their files change.

Sessions under way keep what they began with. New files that cannot be used change nothing and are reported,
once per change; they are looked at again as soon as they change again.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final, Protocol

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.model.errors import TlsMaterialError
from angarium.tls.certificates import Stamp, load, stamp
from angarium.tls.context import ServerContext, TicketKeys
from angarium.tls.options import ServerTlsOptions

# An expiring certificate is renewed weeks ahead: a minute is soon enough, and costs a few stat(2).
LOOK_S: Final = 60.0

loads = counter("angarium_tls_certificates_loaded_total", "Sets of certificates loaded for a listener.")
refusals = counter(
    "angarium_tls_certificates_refused_total", "Sets of certificates that could not be loaded; those before stay."
)


class Holder(Protocol):
    """Who uses the certificates: a listener."""

    def replace_certificates(self, tls: ServerContext) -> None: ...


class CertificateWatch:
    """Lives on the loop; tickets may be None."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal, tickets: TicketKeys | None) -> None:
        self._loop = loop
        self._journal = journal
        self._tickets = tickets
        self._watched: dict[str, tuple[ServerTlsOptions, Stamp]] = {}
        self._holders: dict[str, Holder] = {}
        self._looking: asyncio.Task[None] | None = None
        self._timer = loop.call_later(LOOK_S, self._begin_look)

    async def load(self, listener: str, options: ServerTlsOptions | None) -> ServerContext | None:
        """The certificates of a listener; None when it has no TLS or its files cannot be used (reported).

        From now on they are watched, if hold() is called too.
        """
        self._watched.pop(listener, None)
        if options is None:
            return None
        # Stamp first: what changes while it is being read is read again.
        seen = await self._loop.run_in_executor(None, stamp, options)
        context = await self._load(listener, options)
        self._watched[listener] = (options, seen)
        return context

    def hold(self, listener: str, holder: Holder) -> None:
        """Who is told of new certificates of that listener."""
        self._holders[listener] = holder

    def forget(self, listener: str) -> None:
        self._watched.pop(listener, None)
        self._holders.pop(listener, None)

    def stop(self) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    async def look(self) -> None:
        """Loads what has changed on disk since the last look."""
        for listener, (options, seen) in list(self._watched.items()):
            now = await self._loop.run_in_executor(None, stamp, options)
            if now == seen:
                continue
            context = await self._load(listener, options)
            if self._watched.get(listener) != (options, seen):
                continue  # a reload came between, with files of its own
            self._watched[listener] = (options, now)
            holder = self._holders.get(listener)
            if context is not None and holder is not None:
                holder.replace_certificates(context)

    async def _load(self, listener: str, options: ServerTlsOptions) -> ServerContext | None:
        try:
            context = await self._loop.run_in_executor(None, load, options, self._tickets)
        except TlsMaterialError as error:
            refusals.add(1)
            self._journal.log("certificates-refused", listener=listener, reason=str(error))
            return None
        loads.add(1)
        count = len(options.certificates)
        first_end = datetime.fromtimestamp(min(context.expires_utc_s(index) for index in range(count)), UTC)
        self._journal.log("certificates-loaded", listener=listener, count=count, expires=f"{first_end:%Y-%m-%d}")
        return context

    def _begin_look(self) -> None:
        self._looking = self._loop.create_task(self.look())
        self._timer = self._loop.call_later(LOOK_S, self._begin_look)
