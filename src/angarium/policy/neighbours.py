"""Modules that lie beside the hook file, for Python's import system: from texts read with it, never from disk.

There is one set of them in a process. A new run of the hook file begins with none imported; one that fails gives the
former set back as it was.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Final

Texts = Mapping[str, tuple[str, str]]
"""By name: path and text."""
State = tuple[Texts, dict[str, types.ModuleType]]


class NeighbourLoader(importlib.abc.InspectLoader):
    """One module, from its text."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text

    def get_source(self, fullname: str) -> str:
        return self._text

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self._text, self._path)

    def is_package(self, fullname: str) -> bool:
        return False


class Neighbours(importlib.abc.MetaPathFinder):
    """Asked before all other finders, for the names that it has."""

    def __init__(self) -> None:
        self._texts: Texts = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or fullname not in self._texts:
            return None
        file, text = self._texts[fullname]
        spec = importlib.machinery.ModuleSpec(fullname, NeighbourLoader(file, text), origin=file)
        spec.has_location = True
        return spec

    def replace(self, texts: Texts) -> State:
        """From now on these, none of them imported yet; what was before, for restore()."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        before = self._texts
        modules = {name: sys.modules.pop(name) for name in before if name in sys.modules}
        self._texts = texts
        return before, modules

    def restore(self, state: State) -> None:
        for name in self._texts:
            sys.modules.pop(name, None)
        self._texts, modules = state
        sys.modules.update(modules)


neighbours: Final = Neighbours()
