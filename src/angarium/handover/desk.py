"""The hand-over of one worker, put together: its socket, both sides of it, and its end.

Each worker listens on `worker-N.sock` in the spool's directory. Who hands over connects there when the first message
waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from angarium.handover.homes import Homes
from angarium.handover.outlet import HandOver
from angarium.handover.reception import Reception
from angarium.model.errors import RemoteProtocolError, SpoolError
from angarium.model.outcome import Trouble
from angarium.model.plan import Source
from angarium.queue.scheduler import Scheduler
from angarium.spool.directory import shard_name
from angarium.spool.foreign import ForeignShard

LOOK_S: Final = 0.01  # at the end, whether all is answered
BACKLOG: Final = 128


class HandOverDesk:
    """One per worker, where there are several. open() first; close_shards() after outbound is closed."""

    def __init__(
        self,
        scheduler: Scheduler,
        number: int,
        count: int,
        spool_fd: int,
        on_source_down: Callable[[Source, Trouble], None],
        *,
        configuration: str = "",
    ) -> None:
        """number: of this worker, of `count`. spool_fd: the spool's directory. on_source_down: see HandOver.

        configuration: see work_by().
        """
        self._scheduler = scheduler
        self._number = number
        self._count = count
        self._spool_fd = spool_fd
        self._server: asyncio.Server | None = None
        self.outgoing = HandOver(scheduler, number, self._connect, on_source_down)
        self.incoming = Reception(scheduler, self._open_shard)
        self.homes = Homes(scheduler, self.outgoing, number, count)
        scheduler.set_appointer(self.homes)
        self.work_by(configuration)

    def work_by(self, configuration: str) -> None:
        """What the configuration of deliveries is known by, before the scheduler is told of it, in the same turn of the
        loop: workers hand nothing to each other that one of them would deliver in another way."""
        self.outgoing.work_by(configuration)
        self.incoming.work_by(configuration)

    async def open(self) -> None:
        """Others may hand over to us from now on. Raises SpoolError."""
        loop = asyncio.get_running_loop()
        name = socket_name(self._number)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._spool_fd)
            os.fchmod(sock.fileno(), 0o600)  # of the name that bind() makes
            sock.bind(self._path(self._number))
            sock.listen(BACKLOG)
            link: Any = self.incoming.link
            self._server = await loop.create_unix_server(link, sock=sock)
        except OSError as error:
            sock.close()
            reason = error.strerror or str(error)
            text = f"{name} in the spool, by which workers hand messages over, cannot be made: {reason}"
            raise SpoolError(text) from error
        self._scheduler.shares.set_living(True)

    async def drain(self, deadline_s: float) -> None:
        """What is on the wire ends and is answered, the rest goes back; outbound has to end connections meanwhile."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        self._scheduler.shares.set_living(False)
        self.homes.close()
        self.outgoing.recall_all()
        self.incoming.send_all_back()
        try:
            while (self.outgoing.out_count or self.incoming.guest_count) and loop.time() < end:
                await asyncio.sleep(LOOK_S)
        finally:
            if self._server is not None:
                self._server.close()
                with contextlib.suppress(OSError):
                    os.unlink(socket_name(self._number), dir_fd=self._spool_fd)
            self.incoming.close()
            self.outgoing.close()
            await asyncio.sleep(0)  # the ends of connections are told in the next turn of the loop
            await asyncio.sleep(0)

    def close_shards(self) -> None:
        self.incoming.close_shards()

    def status(self) -> list[dict[str, Any]]:
        return self.outgoing.status()

    def _connect(self, worker: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self._path(worker))
        except OSError:
            sock.close()
            raise
        return sock

    def _path(self, worker: int) -> str:
        """Short enough for a socket's name, however long the spool's own path is."""
        return f"/proc/self/fd/{self._spool_fd}/{socket_name(worker)}"

    def _open_shard(self, number: int) -> ForeignShard:
        if number % self._count == self._number:
            raise RemoteProtocolError(f"shard {number} is our own")
        return ForeignShard(self._spool_fd, shard_name(number), number)


def socket_name(worker: int) -> str:
    """Of its socket in the spool's directory."""
    return f"worker-{worker}.sock"
