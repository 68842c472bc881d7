"""The end of one worker's relay, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import cast

import pytest

from angarium.admission.tallies import Tallies
from angarium.config.schema import load
from angarium.inbound.quota import Counts
from angarium.process.supervisor import Seat
from angarium.queue.shares import Shares
from angarium.relay import Relay
from angarium.spool.directory import SpoolDirectory
from angarium.tls import report_store
from angarium.tls.report_counts import TlsCounts
from angarium.tls.report_outcome import ReportedPolicy, TlsOutcome

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


def test_a_file_that_somebody_else_holds_keeps_no_shard_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_store, "_BUSY_S", 300.0)     # who waits for it waits longer than the test
    config, _ = load(config_of(tmp_path))

    async def body() -> None:
        loop = asyncio.get_running_loop()
        spool = SpoolDirectory.open(config.node.spool)
        seat = Seat(0, 1, None)  # type: ignore[arg-type]
        counts = Counts(worker_count=1)
        relay = await Relay.open(
            seat, loop, config, Shares(worker_count=1), counts, tallies=Tallies(), spool=spool, sockets=[]
        )
        outcomes = cast(TlsCounts, relay._tls_reporting._counts)
        outcomes.note(OUTCOME)
        await outcomes.flush()
        outcomes.note(OUTCOME)
        with contextlib.closing(sqlite3.connect(tmp_path / "spool/tls-reports.db", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            await asyncio.wait_for(relay.drain(0.0), 60)
        relay.close()
        spool.close()

    asyncio.run(body())
