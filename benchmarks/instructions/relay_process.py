"""What is counted: one worker's relay in one process, from accepting a session to the next hop's 250.

Usage: relay_process.py DIRECTORY NEXT_HOP_PORT. No supervisor, no admin API. Listens on the unix socket
DIRECTORY/intake, keeps its spool in DIRECTORY/spool, writes its events to standard output, ends in good order
at SIGTERM.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from pathlib import Path

import uvloop

from angarium.admission.tallies import Tallies
from angarium.config import schema
from angarium.inbound.quota import Counts
from angarium.model.address import ListenAddress
from angarium.process.supervisor import Seat
from angarium.queue.shares import Shares
from angarium.relay import Relay
from angarium.spool.directory import SpoolDirectory

DRAIN_S = 5.0


async def serve(directory: Path, next_hop_port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    config = schema.of_tables(
        {
            "node": {"hostname": "relay.example", "spool": str(directory / "spool"), "workers": 1},
            "listener": [{"address": f"unix:{directory}/intake", "relay_from": ["127.0.0.0/8"]}],
            "route": [{"domain": "*", "next_hop": f"smtp://127.0.0.1:{next_hop_port}"}],
        }
    )
    address: ListenAddress = config.listener[0].address
    # Bound under another name and renamed when everything is open: the driver waits for the name.
    intake = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    intake.bind(f"{directory}/intake.new")
    intake.listen(16)
    spool = SpoolDirectory.open(config.node.spool)
    control, _ours = socket.socketpair()
    relay = await Relay.open(
        Seat(number=0, count=1, control=control),
        loop,
        config,
        Shares(worker_count=1),
        Counts(worker_count=1),
        tallies=Tallies(),
        spool=spool,
        sockets=[(address, intake)],
    )
    gc.freeze()
    Path(f"{directory}/intake.new").rename(f"{directory}/intake")
    await stop.wait()
    await relay.drain(DRAIN_S)
    relay.close()
    spool.close()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
