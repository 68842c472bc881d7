"""Reading TOML files and their includes into one tree that remembers where every key was written.

Nothing here knows what a key means. Tables of several files are merged, arrays of tables ([[listener]],
[[route]]) are put one behind the other in the order of reading (a file first, then what it includes), and a
key that two files set is refused: which of them would hold is a question nobody should have to answer at
night.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Final, NamedTuple

from angarium.model.errors import ConfigError

KeyPath = tuple[str | int, ...]
IsTable = Callable[[KeyPath], bool]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Place(NamedTuple):
    """Where a key was written: file, line (from 1) and the key as the file spells it."""

    file: Path
    line: int
    key: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.key}"


class Tree:
    """The merged tables and, for every key, the file it came from and its index there.

    tables  plain TOML values as tomllib makes them, without `include`.
    files   all files read, in order, as given or found.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.files: list[Path] = []
        self._origins: dict[KeyPath, tuple[Path, KeyPath]] = {}
        self._texts: dict[Path, str] = {}
        self._lines: dict[Path, dict[KeyPath, int]] = {}

    def complain(self, path: KeyPath, text: str) -> ConfigError:
        """An error about a key, as the file it stands in spells it: `a.toml: listener[0].address: text`."""
        for length in range(len(path), 0, -1):
            if (origin := self._origins.get(path[:length])) is not None:
                file, local = origin
                return ConfigError(f"{file}: {spell(local + path[length:])}: {text}")
        where = f"{spell(path)}: " if path else ""
        return ConfigError(f"{self.files[0]}: {where}{text}" if self.files else f"{where}{text}")

    def place(self, path: KeyPath) -> Place | None:
        """Where a key was set; None: nowhere.

        path  of a key that a file has: none inside its value.
        """
        from angarium.config.lines import lines_of  # only who asks pays for it

        if (origin := self._origins.get(path)) is None:
            return None
        file, local = origin
        if file not in self._lines:
            self._lines[file] = lines_of(self._texts.get(file, ""))
        lines = self._lines[file]
        # A key of an inline table has the line of the key that the table belongs to.
        line = next((lines[local[:n]] for n in range(len(local), 0, -1) if local[:n] in lines), 1)
        return Place(file, line, spell(local))

    def file_of(self, path: KeyPath) -> Path:
        """The file that set a key."""
        return self._origins[path][0]

    def merge(self, table: dict[str, Any], file: Path, text: str = "") -> None:
        """Adds what one file says. Raises ConfigError when a key is already set by another file."""
        self._texts[file] = text
        self._merge(self.tables, table, (), file)

    def merge_beneath(self, table: dict[str, Any], file: Path, text: str, is_table: IsTable) -> None:
        """Adds what one file says of keys that are not set yet.

        is_table  says which paths hold tables of keys: another (retry = { ... }) is one key's value, and is not mixed
                  with another file's.
        """
        self._texts[file] = text
        self.files.append(file)
        self._merge_beneath(self.tables, table, (), file, is_table)

    def _merge_beneath(
        self, into: dict[str, Any], table: dict[str, Any], path: KeyPath, file: Path, is_table: IsTable
    ) -> None:
        for key, value in table.items():
            here = (*path, key)
            known = into.get(key)
            if isinstance(value, dict) and isinstance(known, dict | None) and is_table(here):
                self._origins.setdefault(here, (file, here))
                self._merge_beneath(into.setdefault(key, {}), value, here, file, is_table)
            elif known is None:
                self._origins[here] = (file, here)
                into[key] = value

    def _merge(self, into: dict[str, Any], table: dict[str, Any], path: KeyPath, file: Path) -> None:
        for key, value in table.items():
            here = (*path, key)
            known = into.get(key)
            if isinstance(value, dict) and isinstance(known, dict | None):
                # Of a table that several files write to the first is named; its keys have their own origins.
                self._origins.setdefault(here, (file, here))
                self._merge(into.setdefault(key, {}), value, here, file)
            elif _is_array_of_tables(value) and (known is None or _is_array_of_tables(known)):
                self._origins.setdefault(here, (file, here))
                array = into.setdefault(key, [])
                for local_index, item in enumerate(value):
                    self._origins[(*here, len(array))] = (file, (*here, local_index))
                    array.append(item)
            elif known is not None:
                raise ConfigError(f"{file}: {spell(here)}: already set in {self._origins[here][0]}")
            else:
                self._origins[here] = (file, here)
                into[key] = value


def read_tree(path: Path) -> Tree:
    """Reads a file and everything it includes.

    Raises ConfigError: a file that cannot be read or is not TOML, an include that names no file or comes
    round again, a key set twice.
    """
    tree = Tree()
    _read_into(tree, path, ())
    return tree


def spell(path: KeyPath) -> str:
    """A key's path as an operator writes it: listener[0].address, source."ip 1".ehlo."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = (
                part
                if _BARE_KEY.fullmatch(part)
                else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            )
            text += f".{key}" if text else key
    return text


def _read_into(tree: Tree, path: Path, chain: tuple[Path, ...]) -> None:
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if real in chain:
        raise ConfigError(f"{chain[-1]}: include: {path} is already being read")
    table, text = read_table(path)
    patterns = table.pop("include", [])
    tree.files.append(path)
    tree.merge(table, path, text)
    if not isinstance(patterns, list):
        raise ConfigError(f"{path}: include: expected an array of file names")
    for index, pattern in enumerate(patterns):
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"{path}: include[{index}]: expected a file name")
        wanted = path.parent / pattern
        # A pattern may match nothing (an empty conf.d); a plain name that is not there is a mistake.
        try:
            names = sorted(glob(str(wanted))) if has_magic(pattern) else [str(wanted)]
            missing = next((name for name in names if not Path(name).is_file()), None)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: include[{index}]: {wanted}: {reason}") from None
        if missing is not None:
            raise ConfigError(f"{path}: include[{index}]: {missing}: no such file")
        for name in names:
            _read_into(tree, Path(name), (*chain, real))


def read_table(path: Path) -> tuple[dict[str, Any], str]:
    """One file, and its text. Raises ConfigError."""
    try:
        octets = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        text = octets.decode()
        return tomllib.loads(text), text
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at octet {error.start}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except ValueError as error:
        # TOMLDecodeError, or a number that Python refuses to read.
        raise ConfigError(f"{path}: {error}") from None


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, dict) for item in value)
