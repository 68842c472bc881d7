"""[shaping] files: limits that somebody else has written. What the operator's own file says of a key holds before them.

Not `include`, where two files that set one key are refused: here the question which of them holds has an answer.
"""

from __future__ import annotations

from importlib.resources import files as resources
from pathlib import Path
from typing import Any, Final

from angarium.config.files import Tree, read_table, spell
from angarium.model.errors import ConfigError

# The file that comes with Angarium: large providers, with the source of each number.
SHIPPED: Final = "@shipped"


def add_shaping_files(tree: Tree) -> None:
    """Puts the tables of the files beneath those of the tree; of two files the first holds.

    Raises ConfigError: no such file, not TOML, or something in it besides [shaping.*].
    """
    shaping = tree.tables.get("shaping")
    names = shaping.get("files", []) if isinstance(shaping, dict) else []
    if not isinstance(names, list):
        return              # decoding says what is wrong with it
    for index, name in enumerate(names):
        where = ("shaping", "files", index)
        if not isinstance(name, str) or not name:
            raise tree.complain(where, "expected a file name")
        path = shipped() if name == SHIPPED else tree.file_of(("shaping", "files")).parent / name
        if not path.is_file():
            raise tree.complain(where, f"{path}: no such file")
        table, text = read_table(path)
        _check(table, path)
        tree.merge_beneath(table, path, text)


def shipped() -> Path:
    return Path(str(resources("angarium.config") / "shaping.toml"))


def _check(table: dict[str, Any], path: Path) -> None:
    for key, value in table.items():
        if key != "shaping" or not isinstance(value, dict):
            raise ConfigError(f"{path}: {spell((key,))}: a file of [shaping] files holds [shaping.*] only")
    if "files" in table.get("shaping", {}):
        raise ConfigError(f"{path}: shaping.files: such a file names no others")
