"""The operator's hook file: read once by the supervisor, run by every worker, so that all work by the same text however
long ago it was read and whatever has become of the file since.
"""

from __future__ import annotations

import difflib
import inspect
import linecache
import os
import stat
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from angarium.model.errors import ConfigError
from angarium.policy.options import HOOKS

MODULE_NAME: Final = "angarium_policy"
SOURCE_OCTETS: Final = 1 << 20

Hook = Callable[[Any], Any]


class HookSource(msgspec.Struct, frozen=True):
    """The text of a hook file."""

    path: str
    text: str


class HookFileError(ConfigError):
    """The file cannot be used; the text says where and why: `/etc/angarium/policy.py:12: ...`."""


def read_source(path: str) -> HookSource:
    """Reads and compiles; runs nothing. Raises HookFileError."""
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
        source = HookSource(path, octets.decode())
    except UnicodeDecodeError as error:
        raise HookFileError(f"{path}: not UTF-8 at octet {error.start}") from None
    _compiled(source)
    return source


def load_hooks(source: HookSource) -> dict[str, Hook]:
    """Runs the text as a new module; its hooks by name. Raises HookFileError, and leaves the former module in place."""
    code = _compiled(source)
    module = types.ModuleType(MODULE_NAME)
    module.__file__ = source.path
    former = sys.modules.get(MODULE_NAME)
    # Dataclasses and get_type_hints() look for the module while it is being run.
    sys.modules[MODULE_NAME] = module
    # Tracebacks show the lines that run, not those that stand in the file by now.
    linecache.cache[source.path] = (len(source.text), None, source.text.splitlines(True), source.path)
    try:
        exec(code, module.__dict__)
        return _hooks_of(module, source.path)
    except BaseException as error:
        if former is not None:
            sys.modules[MODULE_NAME] = former
        else:
            del sys.modules[MODULE_NAME]
        if isinstance(error, HookFileError) or not isinstance(error, Exception | SystemExit):
            raise
        raise HookFileError(f"{place_of(error, source.path)}: {describe(error)}") from None


def place_of(error: BaseException, path: str) -> str:
    """`FILE:LINE` where an error came up: the innermost line of the operator's file, or else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == path]
    frame = (own or frames)[-1:]
    return f"{frame[0].filename}:{frame[0].lineno}" if frame else path


def describe(error: BaseException) -> str:
    """Type and text in one line, of a length that a log bears."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def _compiled(source: HookSource) -> types.CodeType:
    try:
        return compile(source.text, source.path, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise HookFileError(f"{source.path}{line}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise HookFileError(f"{source.path}: {error}") from None


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
