"""uvicorn inside the supervisor's loop: no signal handlers, no log lines, no sockets of its own."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Generator, Sequence

import uvicorn
from starlette.types import ASGIApp


class AdminServer(uvicorn.Server):
    """serve() runs until should_exit is set. Takes over the listening sockets."""

    def __init__(self, application: ASGIApp) -> None:
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())
        super().__init__(
            uvicorn.Config(
                application,
                loop="none",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=100,
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the supervisor's."""
        yield

    async def run_until_told(self, sockets: Sequence[socket.socket]) -> None:
        """Serves; set should_exit to end it."""
        await self.serve(sockets=list(sockets))
