"""Who accepts for a worker that is silent, with workers that are sockets only."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from angarium.process.deputies import Deputies
from angarium.process.listening import Listening
from angarium.process.supervisor import Supervisor, Worker


class NoOwner:
    def log(self, event: str, **fields: Any) -> None:
        raise AssertionError(f"{event} {fields}")


def test_a_worker_that_dies_as_it_is_about_to_be_asked_holds_nobody_up() -> None:
    supervisor = Supervisor(NoOwner(), 1)  # type: ignore[arg-type]
    loop = supervisor._loop

    async def body() -> None:
        ours, theirs = socket.socketpair()
        worker = supervisor.workers[0] = Worker(0, -1, ours)
        worker.attach(supervisor, loop)
        worker.is_ready = True
        deputies = Deputies(supervisor, Listening(1, []))
        running = loop.create_task(deputies.run())
        await asyncio.sleep(0)
        assert supervisor._tasks, "somebody is about to ask"
        del supervisor.workers[0]
        worker.bury()
        theirs.close()
        deputies.stop()
        await running
        await asyncio.gather(*supervisor._tasks)

    try:
        loop.run_until_complete(asyncio.wait_for(body(), 20))
    finally:
        loop.close()
