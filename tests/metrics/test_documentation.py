"""docs/operations.md names every counter and gauge of the daemon, with the kind and the help of the code."""

from __future__ import annotations

import re
from pathlib import Path

import angarium.daemon  # noqa: F401  imports all that counts, as `angarium serve` does
from angarium.metrics import counters
from angarium.process.desk import WARMUP_FIGURES

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
_ROW = re.compile(r"^\| `(angarium_\w+)` \| (counter|gauge) \| (.*) \|$", re.MULTILINE)


def test_every_figure_is_in_the_page_and_none_that_does_not_exist() -> None:
    documented = {name: (kind, help_) for name, kind, help_ in _ROW.findall(PAGE.read_text())}
    of_code = {
        figure.name: (figure.kind, figure.help)
        for figure in counters.registry()
        if figure.name.startswith("angarium_")  # other tests of this process declare some of their own
    }
    assert documented == of_code


def test_figures_named_in_the_pages_exist() -> None:
    known = {figure.name for figure in counters.registry()} | {"angarium_build_info", "angarium_workers"}
    known |= WARMUP_FIGURES.keys()
    for page in PAGE.parent.glob("*.md"):
        named = set(re.findall(r"`(angarium_[a-z_]+)(?:\{\w+\})?`", page.read_text()))
        assert named <= known, page.name
