"""Turning plain TOML values into typed Structs, and msgspec's complaints into ones with the operator's key
paths.

Nothing here knows which Structs there are. msgspec writes `$.source[...].address` for a key of a table with
free names; which of the names it was is found by trying them one at a time.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from angarium.config.files import KeyPath, Tree
from angarium.model.units import decode_unit

T = TypeVar("T")

_WITH_PATH: Final = re.compile(r"(?P<text>.*) - at `(?:key` in `)?\$(?P<path>[^`]*)`", re.DOTALL)
_PATH_PART: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[(\.\.\.)\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_TYPES: Final = re.compile(r"Expected `(.*)`, got `(.*)`")
_OWN_KEY: Final = re.compile(r"([a-z_][a-z0-9_]*(?:\.[a-z0-9_-]+|\[\d+\])*): (.+)", re.DOTALL)
_TOML_NAMES: Final = {
    "object": "table",
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "null": "nothing",
}


def decode_tables(tree: Tree, kind: type[T], tables: dict[str, Any] | None = None) -> T:
    """The whole tree as `kind`, or these tables, which were made of it.

    Raises ConfigError with file, key path and reason.
    """
    if tables is None:
        tables = tree.tables
    try:
        return _convert(tables, kind)
    except msgspec.ValidationError as error:
        path, text = _locate(tables, kind, str(error))
        raise tree.complain(path, text) from None


def _convert(tables: dict[str, Any], kind: type[T]) -> T:
    return msgspec.convert(tables, kind, dec_hook=decode_unit)


def _locate(tables: dict[str, Any], kind: type[Any], complaint: str) -> tuple[KeyPath, str]:
    """Key path and reason of a complaint, free names filled in."""
    parts, text = _split(complaint)
    while ... in parts:
        depth = parts.index(...)
        free = tables
        for part in parts[:depth]:
            free = free[part]
        for name in free:
            alone = _with_only(tables, parts[:depth], name)
            try:
                _convert(alone, kind)
            except msgspec.ValidationError as error:
                new_parts, new_text = _split(str(error))
                # Free names that were found before are free in every complaint.
                if all(new in (old, ...) for new, old in zip(new_parts, parts[: depth + 1], strict=False)):
                    parts, text, tables = [*parts[:depth], name, *new_parts[depth + 1 :]], new_text, alone
                    break
        else:
            parts = parts[:depth]
    return tuple(part for part in parts if part is not ...), text


def _with_only(tables: dict[str, Any], path: list[Any], name: str) -> dict[str, Any]:
    """A copy of the tree in which the table at `path` holds nothing but `name`."""

    def rebuilt(value: Any, depth: int) -> Any:
        if depth == len(path):
            return {name: value[name]}
        if isinstance(value, list):
            return [
                rebuilt(item, depth + 1) if index == path[depth] else item for index, item in enumerate(value)
            ]
        return {**value, path[depth]: rebuilt(value[path[depth]], depth + 1)}

    return rebuilt(tables, 0)  # type: ignore[no-any-return]


def _split(complaint: str) -> tuple[list[Any], str]:
    """msgspec's complaint as path parts (str, int, or ... for a free name) and a reason in TOML's words."""
    parts: list[Any] = []
    if match := _WITH_PATH.fullmatch(complaint):
        complaint = match["text"]
        parts = [_part(*groups) for groups in _PATH_PART.findall(match["path"])]
    if match := _UNKNOWN.fullmatch(complaint):
        return [*parts, match[1]], "unknown key"
    if match := _MISSING.fullmatch(complaint):
        return [*parts, match[1]], "missing"
    if match := _TYPES.fullmatch(complaint):
        return parts, f"expected {_named(match[1])}, got {_named(match[2])}"
    # A Struct's __post_init__ opens its reason with the key it is about.
    if match := _OWN_KEY.fullmatch(complaint):
        return [*parts, *key_path(match[1])], match[2]
    return parts, complaint


def key_path(text: str) -> KeyPath:
    """"certificates[0].key" as a path."""
    return tuple(_part(*groups) for groups in _PATH_PART.findall("." + text))


def _part(name: str, index: str, free: str) -> Any:
    return ... if free else int(index) if index else name


def _named(kinds: str) -> str:
    return " or ".join(_TOML_NAMES.get(kind, kind) for kind in kinds.split(" | "))
