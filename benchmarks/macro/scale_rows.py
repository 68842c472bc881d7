"""The rows of outbound scale for the table: what each scenario found, held against its bar. Angarium alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faulty_receivers
import limits
import many_connections
import many_domains
import refusing_site
import table
from rows import Bar

ROUNDS = 3      # of each scenario, at the most
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
    found = many_domains.measure(directory, count, min(rounds, ROUNDS), 20_000 // divisor, 5)
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
            *(run["median_ms"] for run in found["beside"]["cold"]), better="lower",
        ),
        _measure(
            "domains-beside-p99", "the same, slowest hundredth: of its wait beside as much mail to known ones",
            Bar("2x", at_most=many_domains.BESIDE_BAR, is_absolute=True), "x", found["beside"]["p99_ratio"],
            better="lower",
        ),
    ], found


def refusing(directory: Path, rounds: int, divisor: int) -> Found:
    """Ten sites beside one that refuses everything."""
    # Neighbours in time differ by more than what is looked for: the median of three rounds is anywhere from 0 to 10 %.
    found = refusing_site.measure(directory, 3 * min(rounds, ROUNDS), refusing_site.MESSAGES // divisor)
    bar = Bar("under 5 %", at_most=5.0, is_absolute=True)
    title = "messages/s that a site which refuses everything costs the others"
    return [_measure("refusing", title, bar, "%", found["loss"] * 100, better="lower")], found


def rates(directory: Path, rounds: int, divisor: int) -> Found:
    """Message rates of sites and sources over two workers, counted by the sinks."""
    found = limits.measure(directory, max(limits.SECONDS // divisor, 2))
    title = "rates of sites and sources over two workers"
    return [
        _measure(
            "limits", f"{title}: off at the most", Bar("2 %", at_most=limits.BAR * 100, is_absolute=True), "%",
            found["worst_off"] * 100, better="lower",
        ),
        _measure(
            "limits-second", f"{title}: of the rate in any one second",
            Bar("112 %", at_most=limits.SECOND_BAR * 100, is_absolute=True), "%", found["most_in_one_second"] * 100,
            better="lower",
        ),
    ], found


def faulty(directory: Path, rounds: int, divisor: int) -> Found:
    """Receivers that refuse with odds, hang up in the middle, are slow, or keep to limits of their own."""
    found = faulty_receivers.measure(directory, faulty_receivers.MESSAGES // divisor)
    none = Bar("none", at_most=0, is_absolute=True)
    wrong = found["lost"] + found["twice"] + found["unknown"]
    return [
        _measure(
            "faulty-rate", "a strict provider beside faulty receivers: of the rate that it allows",
            _at_least("90 %", faulty_receivers.RATE_BAR * 100), "%", found["strict_of_allowed"] * 100,
        ),
        _measure(
            "faulty-refusals", "the same: what it refused as too much", none, "refusals", found["strict_refusals"],
            better="lower",
        ),
        _measure("faulty-wrong", "messages that did not arrive once", none, "messages", wrong, better="lower"),
    ], found


SCENARIOS: dict[str, Callable[[Path, int, int], Found]] = {
    "connections": connections, "domains": domains, "refusing": refusing, "limits": rates,
    "faulty": faulty,
}


def _at_least(text: str, value: float) -> Bar:
    return Bar(text, at_least=value, is_absolute=True)


def _measure(key: str, title: str, bar: Bar | None, unit: str, *values: float, better: str = "higher") -> table.Measure:
    return table.measure(key, title, bar, unit=unit, better=better, angarium=values)
