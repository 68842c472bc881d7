"""The operator's hook file and the modules beside it that it imports: read once by the supervisor, run by every worker,
so that all work by the same text however long ago it was read and whatever has become of the files since.

`import tenants` in /etc/angarium/policy.py means /etc/angarium/tenants.py if there is one. What is imported is found by
looking at the text (also inside functions); how Python then gets it is neighbours.py's.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib.util
import inspect
import linecache
import os
import stat
import sys
import traceback
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from angarium.model.errors import ConfigError
from angarium.policy.neighbours import NeighbourLoader, neighbours
from angarium.policy.options import HOOKS

MODULE_NAME: Final = "angarium_policy"
SOURCE_OCTETS: Final = 1 << 20
MODULES_MAXIMUM: Final = 100

Hook = Callable[[Any], Any]


class HookModule(msgspec.Struct, frozen=True):
    """A module beside the hook file."""

    name: str
    path: str
    text: str


class HookSource(msgspec.Struct, frozen=True):
    """The text of a hook file, and of the modules beside it that it imports, directly or through each other.

    needs  hooks that it has to define, each with who says so: ("knows_recipient", "domain.x.recipients").
    """

    path: str
    text: str
    modules: tuple[HookModule, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        """Of all files: lines in these are the operator's own."""
        return frozenset((self.path, *(module.path for module in self.modules)))


class HookFileError(ConfigError):
    """The file cannot be used; the text says where and why: `/etc/angarium/policy.py:12: ...`."""


def read_source(path: str, needs: tuple[tuple[str, str], ...] = ()) -> HookSource:
    """Reads and compiles; runs nothing. needs: of HookSource. Raises HookFileError."""
    text = _read(path)
    modules: dict[str, HookModule] = {}
    wanted = _imported(path, text)
    while wanted:
        name, place = wanted.pop()
        beside = str(Path(path).with_name(f"{name}.py"))
        if name in modules or beside == path or not os.path.lexists(beside):
            continue
        if (other := _namesake(name, beside)) is not None:
            raise HookFileError(f"{place}: import {name}: {beside} has the name of {other}, rename it")
        if len(modules) == MODULES_MAXIMUM:
            raise HookFileError(f"{place}: imports more than {MODULES_MAXIMUM} modules")
        modules[name] = module = HookModule(name, beside, _read(beside))
        wanted += _imported(beside, module.text)
    return HookSource(path, text, tuple(modules.values()), needs)


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            octets = file.read(SOURCE_OCTETS + 1)
    except OSError as error:
        raise HookFileError(f"{path}: {error.strerror or error}") from None
    if mode & stat.S_IWOTH:
        raise HookFileError(f"{path}: writable by everybody, and so would be what the relay does")
    if len(octets) > SOURCE_OCTETS:
        raise HookFileError(f"{path}: over {SOURCE_OCTETS} octets")
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        raise HookFileError(f"{path}: not UTF-8 at octet {error.start}") from None


def _imported(path: str, text: str) -> list[tuple[str, str]]:
    """Top names of absolute imports, wherever they stand, each with FILE:LINE. Raises HookFileError."""
    found = []
    for node in ast.walk(_parsed(path, text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names = [node.module]
        else:
            continue
        found += [(name.partition(".")[0], f"{path}:{node.lineno}") for name in names]
    return found


def _namesake(name: str, beside: str) -> str | None:
    """Whose name a module beside the hook file has, so that it would be taken for the other one, or be it to others."""
    if name in sys.stdlib_module_names:
        return "a module of Python's"
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or isinstance(spec.loader, NeighbourLoader):
        return None
    if spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(beside):
        return None         # found by way of the working directory
    return f"{spec.origin or 'a package that is installed'}"


def load_hooks(source: HookSource) -> dict[str, Hook]:
    """Runs the text as a new module, and those that it imports; its hooks by name. Raises HookFileError, and leaves the
    former modules in place."""
    code = _compiled(source.path, source.text)
    former_neighbours = neighbours.replace({each.name: (each.path, each.text) for each in source.modules})
    module = types.ModuleType(MODULE_NAME)
    module.__file__ = source.path
    former = sys.modules.get(MODULE_NAME)
    # Dataclasses and get_type_hints() look for the module while it is being run.
    sys.modules[MODULE_NAME] = module
    # Tracebacks show the lines that run, not those that stand in the files by now.
    for path, text in ((source.path, source.text), *((each.path, each.text) for each in source.modules)):
        linecache.cache[path] = (len(text), None, text.splitlines(True), path)
    try:
        exec(code, module.__dict__)
        return _with_all_needed(_hooks_of(module, source.path), source)
    except BaseException as error:
        neighbours.restore(former_neighbours)
        if former is not None:
            sys.modules[MODULE_NAME] = former
        else:
            del sys.modules[MODULE_NAME]
        if isinstance(error, HookFileError) or not isinstance(error, Exception | SystemExit):
            raise
        raise HookFileError(f"{place_of(error, source.paths, source.path)}: {describe(error)}") from None


def place_of(error: BaseException, paths: Collection[str], otherwise: str) -> str:
    """`FILE:LINE` where an error came up: the innermost line of the operator's files. `otherwise` when it was in none:
    then it is we who found out, and no line of ours helps him."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename in paths]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else otherwise


def hook_of(frame: types.FrameType | None) -> str:
    """The hook that was called in a stack: the outermost function of the hook file that is named like one, else (a
    decorator, a task) the outermost one; or ""."""
    outermost = named = ""
    while frame is not None:
        if frame.f_globals.get("__name__") == MODULE_NAME and (name := frame.f_code.co_name) != "<module>":
            outermost = name
            named = name if name in HOOKS else named
        frame = frame.f_back
    return named or outermost


def line_of(frame: types.FrameType | None) -> str:
    """`FILE:LINE` of the innermost line of the operator's files in a stack, or ""."""
    while frame is not None:
        facts = frame.f_globals
        if facts.get("__name__") == MODULE_NAME or isinstance(facts.get("__loader__"), NeighbourLoader):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def defined_at(hook: Hook, path: str) -> str:
    """`FILE:LINE` of a hook's definition, behind decorators and functools.partial(); `path` of what has none."""
    function: Any = hook
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__code__"):
        function = getattr(function, "__func__", getattr(type(function), "__call__", None))  # noqa: B004
    code = getattr(function, "__code__", None)
    return path if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def describe(error: BaseException) -> str:
    """Type and text in one line, of a length that a log bears."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def _parsed(path: str, text: str) -> ast.Module:
    with _telling(path):
        tree = ast.parse(text, path)
        compile(tree, path, "exec", dont_inherit=True)      # "return" outside of a function and the like
        return tree


def _compiled(path: str, text: str) -> types.CodeType:
    with _telling(path):
        return compile(text, path, "exec", dont_inherit=True)


@contextlib.contextmanager
def _telling(path: str) -> Iterator[None]:
    """What is no Python is told with its line."""
    try:
        yield
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise HookFileError(f"{path}{line}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise HookFileError(f"{path}: {error}") from None


def _hooks_of(module: types.ModuleType, path: str) -> dict[str, Hook]:
    hooks: dict[str, Hook] = {}
    for name, value in vars(module).items():
        if name in HOOKS:
            _check_callable(name, value, path)
            hooks[name] = cast(Hook, value)
        elif name.startswith("on_") and inspect.isfunction(value) and value.__module__ == MODULE_NAME:
            close = difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.8)
            hint = f'; did you mean "{close[0]}"?' if close else f": there are {', '.join(HOOKS)}"
            raise HookFileError(f'{path}:{value.__code__.co_firstlineno}: "{name}" is no hook{hint}')
    if not hooks:
        raise HookFileError(f"{path}: defines no hook: there are {', '.join(HOOKS)}")
    return hooks


def _with_all_needed(hooks: dict[str, Hook], source: HookSource) -> dict[str, Hook]:
    for name, who in source.needs:
        if name not in hooks:
            raise HookFileError(f"{source.path}: defines no {name}, which {who} needs")
    return hooks


def _check_callable(name: str, value: object, path: str) -> None:
    line = getattr(getattr(value, "__code__", None), "co_firstlineno", 0)
    if not callable(value):
        raise HookFileError(f"{path}: {name} is not a function")
    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        raise HookFileError(f"{path}:{line}: {name} yields: a hook returns its decision")
    try:
        inspect.signature(value).bind(object())
    except TypeError:
        raise HookFileError(f"{path}:{line}: {name} must take one argument") from None
    except ValueError:
        pass  # something built in: called and seen
