"""docs/flow.md names places in the code; each must be there, and every file whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "flow.md").read_text()

_PLACE = re.compile(r"`([\w/]+\.(?:pyx|py|c))(?::(\w+))?`")


@pytest.mark.parametrize(("file", "function"), sorted(set(_PLACE.findall(TEXT))))
def test_a_place_named_in_the_page_exists(file: str, function: str) -> None:
    path = ROOT / ("csrc" if file.endswith(".c") else "src/angarium") / file
    assert path.is_file()
    if function:
        # A definition: the name behind def, cdef TYPE or a C return type, before its parameters.
        definition = rf"^\s*(?:async def|def|cp?def|static|int|void|bool)\b.*\b{function}\("
        assert re.search(definition, path.read_text(), re.MULTILINE), function
