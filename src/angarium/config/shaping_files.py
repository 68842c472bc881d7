"""[shaping] files and [automation] files: what somebody else has written. What the operator's own file says of a key
holds before them.

Not `include`, where two files that set one key are refused: here the question which of them holds has an answer.
"""

from __future__ import annotations

from importlib.resources import files as resources
from pathlib import Path
from typing import Any, Final

from angarium.config.files import KeyPath, Tree, read_table, spell
from angarium.model.errors import ConfigError

# The file that comes with Angarium: large providers, with the source of each number.
SHIPPED: Final = "@shipped"


def add_shaping_files(tree: Tree) -> None:
    """Puts the tables of the files of [shaping] and of [automation] beneath those of the tree; of two the first holds.

    Raises ConfigError: no such file, not TOML, or something in it besides these tables.
    """
    for key in ("shaping", "automation"):
        _add_files(tree, key)


def _add_files(tree: Tree, key: str) -> None:
    tables = tree.tables.get(key)
    names = tables.get("files", []) if isinstance(tables, dict) else []
    if not isinstance(names, list):
        return              # decoding says what is wrong with it
    for index, name in enumerate(names):
        where = (key, "files", index)
        if not isinstance(name, str) or not name:
            raise tree.complain(where, "expected a file name")
        path = shipped(key) if name == SHIPPED else tree.file_of((key, "files")).parent / name
        if not path.is_file():
            raise tree.complain(where, f"{path}: no such file")
        table, text = read_table(path)
        _check(table, path, key)
        tree.merge_beneath(table, path, text, _is_table)


def _is_table(path: KeyPath) -> bool:
    """[shaping.LEVEL.NAME], [automation.rule.NAME], [shaping.source.NAME.provider|site.OTHER]."""
    is_pair = path[:2] == ("shaping", "source") and len(path) <= 5 and path[3:4] in (("provider",), ("site",))
    return len(path) <= 3 or is_pair


def shipped(key: str = "shaping") -> Path:
    """The file that "@shipped" stands for."""
    return Path(str(resources("angarium.config") / f"{key}.toml"))


def _check(table: dict[str, Any], path: Path, wanted: str) -> None:
    for key, value in table.items():
        if key != wanted or not isinstance(value, dict):
            raise ConfigError(f"{path}: {spell((key,))}: a file of [{wanted}] files holds [{wanted}.*] only")
    if "files" in table.get(wanted, {}):
        raise ConfigError(f"{path}: {wanted}.files: such a file names no others")
