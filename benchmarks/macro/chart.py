"""The chart for the README, drawn from a results file: no plotting library, plain SVG that follows light
and dark.

python benchmarks/macro/chart.py benchmarks/results/relay.json > benchmarks/results/relay.svg
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from kept import Origin, Results, read, row_of
from rows import ANGARIUM_ALONE
from table import Measure, number, ratio_text

WIDTH = 760
LABEL_X = 24
BAR_X = 24
BAR_WIDTH = 560
BAR_HEIGHT = 15
ROW_HEIGHT = 66
PANEL_GAP = 26
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .panel { font-weight: 600 }
.note { font-size: 11.5px; fill: #656d76 }
.us { fill: #c2410c } .them { fill: #8c959f } .spread { stroke: #1f2328; stroke-width: 1; opacity: .55 }
.ratio { font-weight: 600; text-anchor: end }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 } .us { fill: #fb923c }
  .them { fill: #6e7681 } .spread { stroke: #e6edf3 }
}
""".strip()


def _bar(values: Sequence[float], y: int, scale: float, kind: str, who: str) -> list[str]:
    """One bar of the median with a line from minimum to maximum, and its figure behind it."""
    median = statistics.median(values)
    length = max(median * scale, 1.5)
    low, high, middle = BAR_X + min(values) * scale, BAR_X + max(values) * scale, y + BAR_HEIGHT / 2
    text_x = max(BAR_X + length, high) + 7
    return [
        f'<rect class="{kind}" x="{BAR_X}" y="{y}" width="{length:.1f}" height="{BAR_HEIGHT}" rx="2"/>',
        f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}"/>',
        f'<text x="{text_x:.1f}" y="{y + 12}">{escape(who)} {number(median)}</text>',
    ]


def _panel(title: str, measures: Sequence[Measure], y: int) -> tuple[list[str], int]:
    """All measures of one unit on one scale; returns the shapes and the y below them."""
    shapes = [f'<text class="panel" x="{LABEL_X}" y="{y}">{escape(title)}</text>']
    most = max(max([*m["angarium"], *m["postfix"]]) for m in measures)
    scale = BAR_WIDTH / most
    y += 20
    for m in measures:
        shapes.append(f'<text x="{LABEL_X}" y="{y}">{escape(m["title"])}</text>')
        shapes.append(f'<text class="ratio" x="{WIDTH - 24}" y="{y}">{ratio_text(m["ratio"])}</text>')
        if m["angarium"]:
            shapes += _bar(m["angarium"], y + 6, scale, "us", "Angarium")
        if m["postfix"]:
            shapes += _bar(m["postfix"], y + 6 + BAR_HEIGHT + 3, scale, "them", "Postfix")
        y += ROW_HEIGHT
    return shapes, y + PANEL_GAP - 8


def _notes(results: Results, origins: Sequence[Origin]) -> list[str]:
    """What the bars are, and of which runs: more than one where rows were measured again."""
    rounds = sorted({origin["rounds"] for origin in origins}) or [0]
    versions = ", ".join(f"{name.capitalize()} {about['version']}" for name, about in results["contenders"].items())
    notes = [
        f"Both sync before 250. Median of {' to '.join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))} alternating "
        f"rounds; thin line: minimum to maximum. {versions}."
    ]
    for origin in origins:
        facts = origin["machine"]
        notes.append(
            f"{facts['cores']} cores, {facts['processor']}, {facts['system']}, "
            f"{facts['filesystem'].partition(' ')[0]}; "
            f"{origin['started_utc'][:10]}, commit {facts['commit'][:10]}"
        )
    return list(dict.fromkeys(notes))


def draw(results: Results) -> str:
    """The whole chart as SVG text."""
    measures: list[Measure] = [m for m in results["measures"] if m["angarium"] or m["postfix"]]
    # What Postfix cannot do, or was not asked to do, has no bars beside it.
    compared = [m for m in measures if not m["key"].startswith(ANGARIUM_ALONE)]
    panels = [
        (
            "Messages per second, end to end (longer is better)",
            [m for m in compared if m["unit"] == "messages/s"],
        ),
        ("CPU per message, microseconds (shorter is better)", [m for m in compared if m["unit"] == "us"]),
        ("Memory, MiB (shorter is better)", [m for m in compared if m["unit"] == "MiB"]),
    ]
    shapes = [
        f'<text class="title" x="{LABEL_X}" y="30">Angarium and Postfix: same work, same machine</text>'
    ]
    y = 62
    for title, chosen in panels:
        if chosen:
            more, y = _panel(title, chosen, y)
            shapes += more
    origins = [results["rows"][row_of(m["key"])] for m in compared]
    for note in _notes(results, origins):
        shapes.append(f'<text class="note" x="{LABEL_X}" y="{y}">{escape(note)}</text>')
        y += 17
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" '
        f'role="img" aria-label="Angarium and Postfix compared">\n<style>{STYLE}</style>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    print(draw(read(Path(sys.argv[1]))), end="")
