"""Two workers in one process: an owner and the home of its site, over one spool directory and a socket between them."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from queue_harness import NextHop, Queue

from angarium.handover.homes import Homes
from angarium.handover.outlet import HandOver
from angarium.handover.reception import Reception
from angarium.handover.rendezvous import home_of
from angarium.model.errors import RemoteProtocolError
from angarium.model.plan import Site, Source
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.shares import Shares
from angarium.routing.egress_pool import EgressPool
from angarium.routing.source_health import SourceHealth
from angarium.spool.directory import shard_name
from angarium.spool.foreign import ForeignShard

OWNER, HOME = 0, 1
SOURCE = Source("default", "", "relay.example")


class FakeTransport:
    """What a link writes, and whether it has ended."""

    def __init__(self) -> None:
        self.written = b""
        self.has_ended = False

    def write(self, octets: bytes) -> None:
        self.written += octets

    def close(self) -> None:
        self.has_ended = True

    abort = close


def feed(link: Any, octets: bytes) -> None:
    """Octets into a link, as the loop would: no more than its buffer takes at once."""
    while octets and not link.is_closed:
        buffer = link.get_buffer(-1)
        count = min(len(buffer), len(octets))
        buffer[:count] = octets[:count]
        octets = octets[count:]
        link.buffer_updated(count)


def site_of_home(hop_site: Site) -> Site:
    """The same under a name whose home is HOME."""
    return next(sites_of_home(hop_site))


def sites_of_home(hop_site: Site) -> Iterator[Site]:
    """As many as are asked for."""
    names = (f"mx{number}.example" for number in itertools.count())
    return (Site(name, "smtp", hop_site.hosts) for name in names if home_of(name, 0b11) == HOME)


def queue_of(
    number: int,
    directory: pathlib.Path,
    site: Site,
    *,
    shaping: ShapingOptions,
    sources: Sequence[Source],
    shares: Shares,
) -> Queue:
    """With a memory of its own of which sources are down, as each worker has."""
    health = SourceHealth()
    pool = EgressPool(dict.fromkeys(sources, 1), health=health)
    return Queue(directory, site, shaping=shaping, pool=pool, shares=shares, number=number, health=health)


class Pair:
    """owner, home: their queues. outgoing: the owner's hand-over; incoming: the home's reception.

    connect  gives the owner's next connections; set it to play the home.
    first_room  of the hand-over; 32: the home is known to be quick.
    """

    def __init__(
        self, directory: pathlib.Path, site: Site, shaping: ShapingOptions, sources: Sequence[Source], first_room: int
    ) -> None:
        # Two tables: an owner and a home of one process could not each count as a worker of their own in one.
        of_owner, of_home = Shares(2), Shares(2)
        of_owner.attach(HOME)
        of_owner.set_living(True)
        of_owner.attach(OWNER)
        of_home.attach(HOME)
        self.owner = queue_of(OWNER, directory, site, shaping=shaping, sources=sources, shares=of_owner)
        self.home = queue_of(HOME, directory, site, shaping=shaping, sources=sources, shares=of_home)
        self._directory_fd = os.open(directory, os.O_RDONLY)
        self.incoming = Reception(self.home.scheduler, self._open_shard)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._path = str(directory / "home.sock")
        self._listening.bind(self._path)
        self._listening.listen()
        self.connect: Callable[[], socket.socket] = self.connect_home
        heard = self.owner.dispatcher.sources.heard
        self.outgoing = HandOver(
            self.owner.scheduler, OWNER, lambda worker: self.connect(), heard, first_room=first_room
        )
        self.homes = Homes(self.owner.scheduler, self.outgoing, OWNER, 2)
        self.owner.scheduler.set_appointer(self.homes)

    async def open(self) -> None:
        loop = self.home.scheduler.loop
        self._server = await loop.create_unix_server(self.incoming.link, sock=self._listening)

    def connect_home(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.connect(self._path)
        return sock

    async def close(self) -> None:
        self.homes.close()
        self._server.close()
        self.outgoing.recall_all()
        self.outgoing.close()
        self.incoming.close()
        await self.owner.close()
        await self.home.close()
        self.incoming.close_shards()
        os.close(self._directory_fd)

    def _open_shard(self, number: int) -> ForeignShard:
        if number % 2 == HOME:              # as HandOverDesk
            raise RemoteProtocolError("our own")
        return ForeignShard(self._directory_fd, shard_name(number), number)


@contextlib.asynccontextmanager
async def pair(
    directory: pathlib.Path,
    connections: int = 1,
    max_ready: int = 100000,
    sources: Sequence[Source] = (SOURCE,),
    first_room: int = 32,
) -> AsyncIterator[tuple[Pair, NextHop]]:
    hop = NextHop()
    shaping = ShapingOptions(connections=connections, max_ready=max_ready)
    both = Pair(directory, site_of_home(await hop.start()), shaping, sources, first_room)
    await both.open()
    try:
        yield both, hop
    finally:
        hop.release()
        await both.close()
        hop.stop()
