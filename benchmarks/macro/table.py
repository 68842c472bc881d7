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
    of_tools our median as a part of theirs.
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
    of_tools: float | None
    bar: str
    judged: float | None
    is_met: bool | None


# Of what smtp-source and smtp-sink do without an MTA. A row at that says something about the tools, not about MTAs.
TOOLS_LIMIT = 0.9


def is_at_limit(measure: Measure) -> bool:
    """Whether the tools could hardly have shown more."""
    return measure["of_tools"] is not None and measure["of_tools"] >= TOOLS_LIMIT


def measure(
    key: str,
    title: str,
    bar: Bar | None,
    *,
    unit: str,
    better: str,
    angarium: Sequence[float],
    postfix: Sequence[float] = (),
    tools: Sequence[float] = (),
) -> Measure:
    """One line, judged if there is a bar."""
    ratio = None
    if angarium and postfix and statistics.median(postfix):
        ratio = statistics.median(angarium) / statistics.median(postfix)
    judged = ratio if bar is not None else None
    if bar is not None and bar.is_absolute:
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
        of_tools=round(statistics.median(angarium) / statistics.median(tools), 4) if angarium and tools else None,
        bar="" if bar is None else bar.text,
        judged=None if judged is None else round(judged, 4),
        is_met=None if judged is None or bar is None else bar.is_met(judged),
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
        if m["is_met"] is False and is_at_limit(m):
            verdict += f": {m['of_tools']:.0%} of what the tools do alone"
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
