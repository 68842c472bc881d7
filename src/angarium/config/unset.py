"""`key = "unset"` in a table of [shaping]: told apart from values before these are decoded."""

from __future__ import annotations

from typing import Any

from angarium.queue.shaping_options import UNSET, UNSET_KEYS, ShapingOptions

_LEVELS = ("provider", "site", "domain", "source", "tenant")


def without_unset(tables: dict[str, Any]) -> dict[str, Any]:
    """The same tables; those of [shaping] that unset a key say so in the way that Overrides decodes.

    In [shaping.default] such a key is left out: there is nothing wider than that.
    """
    shaping = tables.get("shaping")
    if not isinstance(shaping, dict):
        return tables
    changed = dict(shaping)
    if isinstance(default := changed.get("default"), dict):
        changed["default"] = {key: value for key, value in default.items() if not _is_unset(key, value)}
    for level in _LEVELS:
        if isinstance(named := changed.get(level), dict):
            changed[level] = {name: _moved(table) for name, table in named.items()}
    if isinstance(sources := changed.get("source"), dict):
        changed["source"] = {name: _with_pairs(table) for name, table in sources.items()}
    return {**tables, "shaping": changed}


def _with_pairs(source: Any) -> Any:
    """The tables within [shaping.source.NAME], too: [shaping.source.NAME.provider.PROVIDER], [... .site.SITE]."""
    if not isinstance(source, dict):
        return source
    changed = dict(source)
    for level in ("provider", "site"):
        if isinstance(named := changed.get(level), dict):
            changed[level] = {name: _moved(table) for name, table in named.items()}
    return changed


def _moved(table: Any) -> Any:
    if not isinstance(table, dict):
        return table
    unset = [key for key, value in table.items() if _is_unset(key, value)]
    if UNSET_KEYS in table:
        return {**table, UNSET_KEYS: 0}     # no key of anybody's: decoding refuses it
    if not unset:
        return table
    return {**{key: value for key, value in table.items() if key not in unset}, UNSET_KEYS: unset}


def _is_unset(key: str, value: Any) -> bool:
    return bool(value == UNSET) and key in ShapingOptions.__struct_fields__
