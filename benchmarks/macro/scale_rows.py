"""The rows of outbound scale for the table: what each scenario found, held against its bar. Angarium alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import many_connections
import many_domains
import refusing_site
import table
from rows import Bar

Found = tuple[list[table.Measure], dict[str, Any]]


def connections(directory: Path, rounds: int, divisor: int) -> Found:
    """10,000 connections out; a fifth of the sites with --quick."""
    found = many_connections.measure(directory, many_connections.SITES // divisor, many_connections.MESSAGES_EACH)
    title = f"{found['connections']:,} connections out, 200 ms a reply"
    part = found["messages_per_s"] / found["allowed_per_s"] * 100
    return [
        _measure("connections-rate", f"{title}: of what receivers allow", _at_least("90 %", 90), "%", part),
        _measure(
            "connections-memory", f"{title}: memory (PSS)", Bar("143 MiB", at_most=143, is_absolute=True), "MiB",
            found["pss_mib"], better="lower",
        ),
    ], found


def domains(directory: Path, rounds: int, divisor: int) -> Found:
    """100,000 domains, one worker. Needs root for port 25, and Debian's knot and unbound."""
    count = many_domains.DOMAINS // divisor
    found = many_domains.measure(directory, count, min(rounds, 3), 20_000 // divisor, 10)
    cold, own = found["cold"]["messages_per_s"], [run["domains_per_s"] for run in found["own_hosts"]]
    return [
        _measure("domains-cold", "never-seen domains, one worker", _at_least("1,500", 1500), "domains/s", cold),
        _measure("domains-own", "the same with own mail hosts, routes only", None, "domains/s", *own),
        _measure(
            "domains-cached", f"{count:,} domains by Zipf, cached: of one domain's rate", _at_least("80 %", 80), "%",
            found["cached_ratio"] * 100,
        ),
        _measure(
            "domains-beside", "known domains beside cold ones: median wait", None, "ms",
            found["beside"]["beside"]["median_ms"], better="lower",
        ),
    ], found


def refusing(directory: Path, rounds: int, divisor: int) -> Found:
    """Ten sites beside one that refuses everything."""
    found = refusing_site.measure(directory, min(rounds, 3), 22_000 // divisor)
    bar = Bar("under 5 %", at_most=5.0, is_absolute=True)
    title = "messages/s that a site which refuses everything costs the others"
    return [_measure("refusing", title, bar, "%", found["loss"] * 100, better="lower")], found


SCENARIOS: dict[str, Callable[[Path, int, int], Found]] = {
    "connections": connections, "domains": domains, "refusing": refusing,
}


def _at_least(text: str, value: float) -> Bar:
    return Bar(text, at_least=value, is_absolute=True)


def _measure(key: str, title: str, bar: Bar | None, unit: str, *values: float, better: str = "higher") -> table.Measure:
    return table.measure(key, title, bar, unit=unit, better=better, angarium=values)
