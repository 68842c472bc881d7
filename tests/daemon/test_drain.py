"""The end of one worker's relay, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from angarium.admission.tallies import Tallies
from angarium.config.schema import Config, load
from angarium.inbound.listeners import BoundSocket
from angarium.inbound.quota import Counts
from angarium.process.supervisor import Seat
from angarium.queue.shares import Shares
from angarium.relay import Relay
from angarium.spool.directory import SpoolDirectory
from angarium.tls import report_store
from angarium.tls.report_counts import TlsCounts
from angarium.tls.report_outcome import ReportedPolicy, TlsOutcome
from angarium.tls.report_store import DAY_S, FILE_NAME, TlsReportStore

OUTCOME = TlsOutcome("y.example", ReportedPolicy("no-policy-found", "y.example"))


def config_of(directory: Path) -> Path:
    path = directory / "angarium.toml"
    path.write_text(f"""
[node]
hostname = "mx.test"
spool = "{directory}/spool"
workers = 1
[[listener]]
address = "127.0.0.1:0"
[tls_reports]
enabled = true
organization_name = "x"
contact = "x@x.example"
sender = "x@x.example"
[[route]]
domain = "*"
next_hop = "maildir:{directory}/mail"
""")
    return path


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """A file of SQLite, by somebody who writes and does not end."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield


async def opened(config: Config, sockets: Sequence[BoundSocket] = ()) -> Relay:
    control, _ = socket.socketpair()
    seat, counts = Seat(0, 1, control), Counts(worker_count=1)
    spool = SpoolDirectory.open(config.node.spool)
    loop, shares = asyncio.get_running_loop(), Shares(worker_count=1)
    return await Relay.open(seat, loop, config, shares, counts, tallies=Tallies(), spool=spool, sockets=sockets)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a file waits longer than the test."""
    monkeypatch.setattr(report_store, "_BUSY_S", 300.0)


def test_a_file_that_somebody_else_holds_keeps_no_shard_open(tmp_path: Path) -> None:
    config, _ = load(config_of(tmp_path))

    async def body() -> None:
        relay = await opened(config)
        outcomes = cast(TlsCounts, relay._tls_reporting._counts)
        outcomes.note(OUTCOME)
        await outcomes.flush()
        outcomes.note(OUTCOME)
        with held(tmp_path / f"spool/{FILE_NAME}"):
            await asyncio.wait_for(relay.drain(0.0), 60)
        relay.close()

    asyncio.run(body())


def test_listeners_are_closed_though_the_sender_of_reports_waits_for_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = load(config_of(tmp_path))
    SpoolDirectory.open(config.node.spool).close()
    path = tmp_path / f"spool/{FILE_NAME}"
    store = TlsReportStore(str(path))
    store.add(int(time.time() // DAY_S) - 2, [(OUTCOME, 1)])
    store.close()
    is_planning = threading.Event()
    plan = TlsReportStore.plan

    def told(*arguments: Any) -> None:
        is_planning.set()
        plan(*arguments)

    monkeypatch.setattr(TlsReportStore, "plan", told)

    async def body() -> None:
        own = socket.create_server(("127.0.0.1", 0))
        with held(path):
            relay = await opened(config, [(config.listener[0].address, own)])
            await asyncio.to_thread(is_planning.wait, 20)
            drain = asyncio.create_task(relay.drain(60.0))
            await until(lambda: own.fileno() == -1)
            assert not drain.done()
        await drain
        relay.close()

    asyncio.run(body())


def test_a_reload_under_way_opens_nothing_once_a_stop_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config_of(tmp_path)
    config, _ = load(path)
    path.write_text(path.read_text().replace("[tls_reports]", '[[listener]]\naddress = "127.0.0.2:0"\n[tls_reports]'))
    more, tree = load(path)

    async def body() -> None:
        first, second = (socket.create_server((host, 0)) for host in ("127.0.0.1", "127.0.0.2"))
        relay = await opened(config, [(config.listener[0].address, first)])
        may_go_on, apply_recipients = asyncio.Event(), relay._apply_recipients

        async def held_up(config: Config) -> None:      # as by a map that takes long to open
            await may_go_on.wait()
            await apply_recipients(config)

        monkeypatch.setattr(relay, "_apply_recipients", held_up)
        sockets = [(str(each.address), sock) for each, sock in zip(more.listener, (first.dup(), second), strict=True)]
        reload = asyncio.create_task(relay.apply(tree.tables, sockets, None))
        await asyncio.sleep(0)
        drain = asyncio.create_task(relay.drain(60.0))
        await until(lambda: first.fileno() == -1)
        may_go_on.set()
        await reload
        assert [sock.fileno() for _, sock in sockets] == [-1, -1], "nobody accepts there"
        await relay._tls_reporting.apply(more.tls_reports, relay._resolver, None)
        assert relay._tls_reporting._reporter is None, "nor sends anybody reports"
        await drain
        relay.close()

    asyncio.run(body())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
