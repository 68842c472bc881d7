"""docs/operations.md names every event that the code logs, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"

# journal.log("x", ...), journal.begin(b"x"), log_outcome(journal, b"x", ...), event = b"x"
_LOGGED = re.compile(r"""(?:\._?log\(\s*|\.begin\(b|log_outcome\([\w.]+, b|\bevent = b)"([a-z-]+)\"""")


def test_every_event_has_its_row() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.pyx")]
    logged = {event for source in sources for event in _LOGGED.findall(source.read_text())}
    assert {"received", "delivered", "expired", "deleted", "started", "spool"} <= logged
    table = PAGE.read_text().partition("| event | when | fields |\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == logged
