"""docs/configuration.md cannot rot: its examples load, its refusals are the real ones, its tables have every
key and every default. Examples in the other pages and in examples/ load too.

Code fences: "toml" is a whole configuration, "toml fragment" one that needs a listener, "toml refused" one
whose message is the "text" block behind it.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from angarium.config.schema import Config, load
from angarium.model.errors import ConfigError
from angarium.model.units import decode_unit
from angarium.queue.options import RetryOptions
from angarium.queue.shaping_options import Overrides, ShapingOptions

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
LISTENER = '\n[[listener]]\naddress = "127.0.0.1:2525"\n'

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SECTION = re.compile(r"^## \[*(\w+)[^\n]*\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return _FENCE.findall(page.read_text()) if page.exists() else []


PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"]
EXAMPLES = [
    pytest.param(kind, text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, (kind, text) in enumerate(blocks(page))
    if kind in ("toml", "toml fragment")
]
REFUSALS = [
    (text, message)
    for (kind, text), (_, message) in zip(blocks(PAGE), blocks(PAGE)[1:], strict=False)
    if kind == "toml refused"
]
ROWS = {
    f"{section}.{key}": (kind.strip(), default.strip())
    for section, text in _SECTION.findall(PAGE.read_text())
    for key, kind, default in _ROW.findall(text)
}


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_an_example_loads(kind: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "angarium.toml"
    path.write_text(text + (LISTENER if kind == "toml fragment" else ""))
    load(path)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_an_example_file_loads(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("@VAR@", str(tmp_path)))
    load(copy)


@pytest.mark.parametrize(("text", "message"), REFUSALS)
def test_a_refusal_reads_as_documented(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "angarium.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    told = str(refused.value).replace(str(path), "/etc/angarium/angarium.toml")
    assert f"angarium: {told}\n" == message


def test_the_page_has_examples_and_refusals() -> None:
    assert len([each for each in EXAMPLES if str(each.id).startswith(PAGE.name)]) >= 8
    assert len(REFUSALS) >= 3


def leaves(kind: Any, section: str = "", prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Key as the page writes it, "listener.address", "queue.retry.first": (type, default or NODEFAULT)."""
    found: dict[str, tuple[Any, Any]] = {}
    for field in msgspec.structs.fields(kind):
        # Tables of [shaping] have the keys of [shaping.default], which have their rows.
        if issubclass(kind, Overrides) and field.name in (*ShapingOptions.__struct_fields__, "unset"):
            continue
        of = next((each for each in get_args(field.type) if is_struct(each)), field.type)  # a table or none
        is_one_value = of is RetryOptions and section == "shaping"      # its keys have rows in [queue.default]
        if not is_struct(of) or is_one_value:
            found[f"{section}.{prefix}{field.name}"] = (field.type, default_of(field))
        elif not section:
            found |= leaves(of, field.name)
        else:
            # [shaping.default] and its like are headings of the page, not part of a key.
            found |= leaves(of, section, prefix if field.name == "default" else f"{prefix}{field.name}.")
    return found


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def test_every_key_has_its_row_and_no_row_is_without_a_key() -> None:
    assert set(ROWS) == set(leaves(Config))


@pytest.mark.parametrize("key", sorted(leaves(Config)))
def test_the_default_is_as_documented(key: str) -> None:
    kind, default = leaves(Config)[key]
    written = ROWS[key][1] if key in ROWS else "no row"
    if default is msgspec.NODEFAULT:
        assert written == "required"
    elif default is None:
        assert written == "none"
    else:
        value = tomllib.loads(f"value = {written.strip('`')}")["value"]
        assert msgspec.convert(value, kind, dec_hook=decode_unit) == default


def test_keys_that_need_a_restart_are_all_named() -> None:
    from angarium.daemon import _fixed_keys

    keys = {key for key, _, _ in _fixed_keys(Config(), Config())}
    section = PAGE.read_text().partition("## What needs a restart\n")[2].partition("\n## ")[0]
    assert keys == set(re.findall(r"`((?:node|admin)\.\w+)`", section))
