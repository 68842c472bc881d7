"""Rows of `make bench` that are measured by themselves, and what was kept of the others."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MACRO = Path(__file__).resolve().parents[2] / "benchmarks" / "macro"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """run.py, imported as it is when it is run: its neighbours are top-level modules."""
    monkeypatch.syspath_prepend(str(MACRO))
    before = set(sys.modules)
    import run

    yield run
    for name in set(sys.modules) - before:      # their names are anybody's
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(MACRO)):
            del sys.modules[name]


class Bench:
    """What run.py's Bench has when its rows are over."""

    def __init__(self, bench: ModuleType, rows: dict[str, float], names: list[str]) -> None:
        self.names = names
        self.runs = {key: {"value": value} for key, value in rows.items()}
        self.measures = [
            bench.table.measure(
                f"{key}{end}", key, None, unit="%", better="higher", angarium=[value], postfix=[1.0] * (len(names) - 1)
            )
            for key, value in rows.items()
            for end in ("", "-more")
        ]

    def _new(self, name: str) -> Any:
        return argparse.Namespace(version=lambda: "1", settings=lambda: f"settings of {name}")


def keep(bench: ModuleType, folder: Path, rows: dict[str, float], commit: str, *words: str, names: str = "") -> Any:
    """As main() does behind the rows; what the file has then."""
    bench.RESULTS = folder
    file = folder / "relay.json"
    bench.keep(
        Bench(bench, rows, (names or "angarium postfix").split()), bench.parse(words), bench.kept.read(file),
        facts={"commit": commit, "cores": 2, "processor": "p", "system": "s", "filesystem": "ext4 (rw)"},
        started_utc="2025-01-01T00:00:00Z", arguments=words,
    )   # fmt: skip
    return json.loads(file.read_text()) if file.exists() else None


def test_a_row_that_is_measured_again_leaves_the_others_as_they_were(bench: ModuleType, tmp_path: Path) -> None:
    keep(bench, tmp_path, {"4k": 10.0, "domains": 1.0, "limits": 2.0}, "old")
    kept = keep(bench, tmp_path, {"domains": 5.0}, "new", "--rows", "domains", names="angarium")
    assert {key: row["machine"]["commit"] for key, row in kept["rows"].items()} == {
        "4k": "old", "domains": "new", "limits": "old",
    }  # fmt: skip
    assert [(each["key"], each["angarium"]) for each in kept["measures"]] == [
        ("4k", [10.0]), ("4k-more", [10.0]), ("domains", [5.0]), ("domains-more", [5.0]), ("limits", [2.0]),
        ("limits-more", [2.0]),
    ]  # fmt: skip
    assert kept["runs"]["domains"] == {"value": 5.0}
    assert kept["rows"]["domains"]["command"] == "python benchmarks/macro/run.py --rows domains"
    assert sorted(kept["contenders"]) == ["angarium", "postfix"]
    assert (tmp_path / "relay.svg").exists()


@pytest.mark.parametrize(
    ("words", "names", "rows"),
    [
        (("--quick",), "angarium postfix", []),
        (("--quick", "--rounds", "9"), "angarium postfix", []),         # a fifth of the work
        (("--rounds", "2"), "angarium postfix", []),
        (("--rounds", "3"), "angarium postfix", ["limits"]),            # which never has more
        (("--only", "angarium"), "angarium", ["idle", "limits"]),       # which Postfix never has
        ((), "angarium postfix", ["4k", "idle", "limits"]),
    ],
)
def test_what_was_run_in_part_is_not_kept(
    bench: ModuleType, tmp_path: Path, words: tuple[str, ...], names: str, rows: list[str]
) -> None:
    kept = keep(bench, tmp_path, {"4k": 10.0, "idle": 3.0, "limits": 2.0}, "new", *words, names=names)
    assert ([] if kept is None else list(kept["rows"])) == rows


def test_a_file_of_one_run_for_all_rows_is_read(bench: ModuleType, tmp_path: Path) -> None:
    kept = keep(bench, tmp_path, {"4k": 10.0, "limits": 2.0}, "old")
    origin = kept.pop("rows")["4k"]
    (tmp_path / "relay.json").write_text(json.dumps({**kept, **origin, "schema": 1}))
    kept = keep(bench, tmp_path, {"limits": 5.0}, "new")
    assert {key: row["machine"]["commit"] for key, row in kept["rows"].items()} == {"4k": "old", "limits": "new"}


def test_a_file_that_is_something_else_ends_the_run_before_anything_is_measured(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.RESULTS = tmp_path
    (tmp_path / "relay.json").write_text('{"schema": 7}')
    assert bench.main(["--only", "angarium"]) == 2
    assert "not begun" in capsys.readouterr().err
    assert (tmp_path / "relay.json").read_text() == '{"schema": 7}'
