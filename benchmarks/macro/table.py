"""The printed table and the judgement of each row, from the results as they are kept in JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypedDict

from rows import Bar


class Measure(TypedDict):
    """One line of the table. Values are one per round, in `unit`; the ratio is of the medians.

    better   "higher" or "lower".
    tools    the same work without an MTA, where it was measured: what the two tools allow at most.
    judged   what the bar is held against: the ratio, or our own median for absolute bars; None when a side
             is missing.
    """

    key: str
    title: str
    unit: str
    better: str
    angarium: list[float]
    postfix: list[float]
    tools: list[float]
    ratio: float | None
    bar: str
    judged: float | None
    is_met: bool | None


def measure(
    key: str,
    title: str,
    bar: Bar,
    *,
    unit: str,
    better: str,
    angarium: Sequence[float],
    postfix: Sequence[float] = (),
    tools: Sequence[float] = (),
) -> Measure:
    """One line, judged."""
    ratio = None
    if angarium and postfix and statistics.median(postfix):
        ratio = statistics.median(angarium) / statistics.median(postfix)
    judged = ratio
    if bar.is_absolute:
        judged = statistics.median(angarium) if angarium else None
    return Measure(
        key=key,
        title=title,
        unit=unit,
        better=better,
        angarium=[round(v, 4) for v in angarium],
        postfix=[round(v, 4) for v in postfix],
        tools=[round(v, 4) for v in tools],
        ratio=None if ratio is None else round(ratio, 4),
        bar=bar.text,
        judged=None if judged is None else round(judged, 4),
        is_met=None if judged is None else bar.is_met(judged),
    )


def ratio_text(ratio: float | None) -> str:
    """ "12.3x" for more, "1/14.2" for less, "-" for none."""
    if ratio is None:
        return "-"
    return f"{ratio:.1f}x" if ratio >= 1 else f"1/{1 / ratio:.1f}"


def number(value: float) -> str:
    """Three or four significant digits, thousands separated."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _side(values: Sequence[float]) -> str:
    if not values:
        return "-"
    text = number(statistics.median(values))
    if len(values) > 1:
        text += f"  ({number(min(values))} - {number(max(values))})"
    return text


def render(measures: Sequence[Measure]) -> str:
    """Plain text, one line per measure: median (minimum - maximum) of both sides, ratio, bar, verdict."""
    head = ("work", "unit", "Angarium", "Postfix", "no MTA", "ratio", "bar", "")
    lines = [head]
    for m in measures:
        verdict = {True: "met", False: "NOT MET", None: ""}[m["is_met"]]
        lines.append(
            (
                m["title"],
                m["unit"],
                _side(m["angarium"]),
                _side(m["postfix"]),
                _side(m["tools"]),
                ratio_text(m["ratio"]),
                m["bar"],
                verdict,
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rendered = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    rendered.insert(1, "-" * max(map(len, rendered)))
    return "\n".join(rendered)
