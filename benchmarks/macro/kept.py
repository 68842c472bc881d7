"""The results file of run.py: what is kept of each row, over runs of few rows and of all.

A row is kept with the run that it is of: commit, machine, command, when, how many rounds. Rows that a run does not have
stay as they were kept before, so that one file shows all of them, and of what each is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from rows import KEYS
from table import Measure

SCHEMA = 2


class Origin(TypedDict):
    """The run that a row is of. machine: as machine.describe() says it, the commit with it."""

    started_utc: str
    command: str
    rounds: int
    machine: dict[str, Any]


class Results(TypedDict):
    """What the file has. measures: in the order of the table; runs: by row; rows: where each is from."""

    schema: int
    contenders: dict[str, dict[str, str]]
    rows: dict[str, Origin]
    measures: list[Measure]
    runs: dict[str, Any]


def row_of(measure_key: str) -> str:
    """A row's measures are called ROW or ROW-WHAT."""
    return measure_key.partition("-")[0]


def nothing() -> Results:
    return Results(schema=SCHEMA, contenders={}, rows={}, measures=[], runs={})


def read(file: Path) -> Results:
    """What was kept; nothing where there is no file. Raises ValueError when it is not ours."""
    if not file.exists():
        return nothing()
    try:
        found = json.loads(file.read_text())
        if found["schema"] == 1:                # one run for all rows
            origin = Origin(
                started_utc=found["started_utc"],
                command=found["command"],
                rounds=found["rounds"],
                machine=found["machine"],
            )
            rows = {row_of(each["key"]): origin for each in found["measures"]}
            found = {**found, "schema": SCHEMA, "rows": rows}
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']}")
        return Results(
            schema=SCHEMA, contenders=found["contenders"], rows=found["rows"], measures=found["measures"],
            runs=found["runs"],
        )
    except (KeyError, TypeError, ValueError) as problem:
        words = f"{file}: not results of this benchmark ({problem!r}): move it away, or name another with --output"
        raise ValueError(words) from None


def merged(
    before: Results, keys: Iterable[str], origin: Origin, *, measures: Iterable[Measure], runs: Mapping[str, Any],
    contenders: Mapping[str, dict[str, str]],
) -> Results:
    """The rows `keys` of a run in place of those kept before; rows that are no more are dropped."""
    new = set(keys)
    kept = [each for each in before["measures"] if row_of(each["key"]) not in new and row_of(each["key"]) in KEYS]
    kept += [each for each in measures if row_of(each["key"]) in new]
    kept.sort(key=lambda each: KEYS.index(row_of(each["key"])))     # stable: a row's measures stay as they were
    rows = {**before["rows"], **dict.fromkeys(new, origin)}
    all_runs = {**before["runs"], **{key: run for key, run in runs.items() if key in new}}
    return Results(
        schema=SCHEMA,
        contenders={**before["contenders"], **contenders},
        rows={key: rows[key] for key in KEYS if key in rows},
        measures=kept,
        runs={key: all_runs[key] for key in KEYS if key in all_runs},
    )


def write(file: Path, results: Results) -> None:
    """At once: whoever reads meanwhile has the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(json.dumps(results, indent=1) + "\n")
    beside.replace(file)
