"""Connecting to a site: its hosts in order of preference, their addresses, the egress source's own address.

One Dialer a worker; it remembers which hosts were broken a moment ago. It opens sockets and waits for the
hello; it does not decide when to dial (pool.pyx) nor what a failure means (trouble.py).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from angarium.model.plan import Host, Site, Source
from angarium.outbound import trouble
from angarium.outbound.connection import HelloFailed
from angarium.outbound.options import OutboundOptions

if TYPE_CHECKING:
    from angarium.outbound.connection import Connection

BROKEN_HOSTS_MAX = 10_000
SMTP_PORT = 25

HostKey = tuple[str, str, int]
Make = Callable[[str, HostKey, bool], "Connection"]


class SiteUnreachable(Exception):
    """No host of the site took a connection. `judgement` says why and for how long."""

    def __init__(self, judgement: trouble.Judgement) -> None:
        super().__init__(judgement.trouble.text)
        self.judgement = judgement


class Dialer:
    """Opens connections for all pools of a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: OutboundOptions) -> None:
        self.loop = loop
        self.options = options
        self.broken: dict[HostKey, float] = {}  # until when, monotonic seconds

    async def dial(self, site: Site, source: Source, make: Make) -> Connection:
        """A connection that is ready for transactions.

        Hosts by rising preference, equal ones in random order (RFC 5321 §5.1); hosts that failed a moment ago
        come last. `make(remote, host_key, watches_for_loop)` gives a fresh protocol object for each try.
        Raises SiteUnreachable when every try has failed.
        """
        if site.protocol == "lmtp+unix":
            return await self._dial_path(site.path, make)
        targets = self.targets(site, source)
        if not targets:
            raise SiteUnreachable(trouble.of_no_address(site.name, source.name))
        judgements: list[trouble.Judgement] = []
        for host, address in targets[: self.options.addresses_per_dial]:
            key = (host.name, address, host.port)
            remote = remote_name(host.name, address, host.port)
            # Only on port 25 do our own listeners greet the world; a filter on another port of this machine
            # may well bear our name.
            connection = make(remote, key, site.protocol == "smtp" and host.port == SMTP_PORT)
            judgement = await self._try_address(connection, source, address, host.port, remote)
            if judgement is None:
                self.broken.pop(key, None)
                return connection
            judgements.append(judgement)
            if judgement.scope == trouble.Scope.SITE:
                raise SiteUnreachable(judgement)
            self.remember_broken(key)
        raise SiteUnreachable(trouble.of_site(judgements))

    def targets(self, site: Site, source: Source) -> list[tuple[Host, str]]:
        """Host and address pairs in the order they are to be tried."""
        now_mono = time.monotonic()
        by_preference: dict[int, list[Host]] = {}
        for host in site.hosts:
            by_preference.setdefault(host.preference, []).append(host)
        found: list[tuple[Host, str]] = []
        for preference in sorted(by_preference):
            equals = by_preference[preference]
            random.shuffle(equals)
            found.extend((host, address) for host in equals for address in host.addresses)
        if source.address:
            is_ipv6 = ":" in source.address
            found = [(host, address) for host, address in found if (":" in address) == is_ipv6]
        return sorted(
            found, key=lambda each: self._is_broken((each[0].name, each[1], each[0].port), now_mono)
        )

    def remember_broken(self, key: HostKey) -> None:
        """This host comes last for the next minutes."""
        now_mono = time.monotonic()
        if len(self.broken) >= BROKEN_HOSTS_MAX:
            self.broken = {each: until for each, until in self.broken.items() if until > now_mono}
            if len(self.broken) >= BROKEN_HOSTS_MAX:
                return
        self.broken[key] = now_mono + self.options.broken_host_s

    def _is_broken(self, key: HostKey, now_mono: float) -> bool:
        return self.broken.get(key, 0.0) > now_mono

    async def _dial_path(self, path: str, make: Make) -> Connection:
        connection = make(path, (path, "", 0), False)
        try:
            async with asyncio.timeout(self.options.connect_timeout_s):
                await self.loop.create_unix_connection(lambda: connection, path)  # type: ignore[type-var]
        except OSError as error:
            connection.hello.cancel()
            connection.close_now()
            raise SiteUnreachable(trouble.of_connect(error, path)) from None
        judgement = await self._hello(connection)
        if judgement is not None:
            raise SiteUnreachable(trouble.of_site([judgement]))
        return connection

    async def _try_address(
        self, connection: Connection, source: Source, address: str, port: int, remote: str
    ) -> trouble.Judgement | None:
        local = (source.address, 0) if source.address else None
        try:
            async with asyncio.timeout(self.options.connect_timeout_s):
                await self.loop.create_connection(  # type: ignore[type-var]
                    lambda: connection,
                    address,
                    port,
                    local_addr=local,
                )
        except OSError as error:  # TimeoutError is one
            connection.hello.cancel()
            connection.close_now()
            return trouble.of_connect(error, remote)
        return await self._hello(connection)

    @staticmethod
    async def _hello(connection: Connection) -> trouble.Judgement | None:
        try:
            await connection.hello
        except HelloFailed as failed:
            return failed.judgement
        except asyncio.CancelledError:
            connection.close_now()
            raise
        return None


def remote_name(name: str, address: str, port: int) -> str:
    """The peer as logs and reports show it, "host[address]:port"."""
    return f"[{address}]:{port}" if name == address else f"{name}[{address}]:{port}"
