"""The counters as Prometheus reads them: text format 0.0.4. Not a registry: that is metrics/counters."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Protocol

import msgspec

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Figure(Protocol):
    """What metrics.counters.Counter is."""

    @property
    def name(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def labels(self) -> dict[str, str]: ...
    def total(self) -> int: ...
    def of_row(self, row: int) -> int: ...


class Sample(msgspec.Struct, frozen=True):
    """A gauge of the whole daemon, whose labels are known only while it runs. Those of one name lie together."""

    name: str
    help: str
    labels: dict[str, str]
    value: int


def exposition(
    figures: Iterable[Figure], rows: Collection[int], version: str, samples: Iterable[Sample] = ()
) -> bytes:
    """All figures: counters summed over all processes that ever counted, gauges one line per living worker.

    rows  of the workers that run now; worker i counts in row i + 1.
    """
    lines = [
        "# HELP angarium_build_info Always 1; the version is in the label.",
        "# TYPE angarium_build_info gauge",
        f'angarium_build_info{{version="{_label(version)}"}} 1',
        "# HELP angarium_workers Workers that run now.",
        "# TYPE angarium_workers gauge",
        f"angarium_workers {len(rows)}",
    ]
    # Those of one name are declared together, so that they are told together, as the format wants it.
    told = ""
    for figure in figures:
        if figure.name != told:
            told = figure.name
            lines.append(f"# HELP {figure.name} {_help(figure.help)}")
            lines.append(f"# TYPE {figure.name} {figure.kind}")
        if figure.kind == "counter":
            lines.append(f"{figure.name}{_labels(figure.labels)} {figure.total()}")
        else:
            lines += [f'{figure.name}{{worker="{row - 1}"}} {figure.of_row(row)}' for row in rows]
    for sample in samples:
        if sample.name != told:
            told = sample.name
            lines.append(f"# HELP {sample.name} {_help(sample.help)}")
            lines.append(f"# TYPE {sample.name} gauge")
        lines.append(f"{sample.name}{_labels(sample.labels)} {sample.value}")
    return ("\n".join(lines) + "\n").encode()


def _labels(labels: dict[str, str]) -> str:
    inside = ",".join(f'{key}="{_label(value)}"' for key, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _label(text: str) -> str:
    return _help(text).replace('"', '\\"')
