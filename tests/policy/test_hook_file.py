"""The hook file: what is taken, what is refused and how that is told."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from angarium.policy.hook_file import MODULE_NAME, HookFileError, defined_at, load_hooks, read_source

GOOD = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\ndef on_rcpt(rcpt): return A(1)\n"


def load(path: Path, text: str) -> dict[str, object]:
    path.write_text(text)
    return dict(load_hooks(read_source(str(path))))


def test_hooks_are_found_by_their_names(tmp_path: Path) -> None:
    hooks = load(tmp_path / "policy.py", GOOD + "def route(rcpt, more=1): ...\nasync def helper(): ...\n")
    assert sorted(hooks) == ["on_rcpt", "route"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def on_rcpt(rcpt:\n", ":1: '(' was never closed"),
        ("\nimport nowhere\ndef on_rcpt(rcpt): ...\n", ":2: ModuleNotFoundError: No module named 'nowhere'"),
        ("raise SystemExit(3)\n", ":1: SystemExit: 3"),
        ("def on_delivery(rcpt): ...\n", ':1: "on_delivery" is no hook: there are on_connect'),
        ("def on_rcpts(rcpt): ...\n", ':1: "on_rcpts" is no hook; did you mean "on_rcpt"?'),
        ("def on_rcpt(): ...\n", ":1: on_rcpt must take one argument"),
        ("def on_rcpt(a, b): ...\n", ":1: on_rcpt must take one argument"),
        ("async def on_rcpt(a): yield 1\n", ":1: on_rcpt yields: a hook returns its decision"),
        ("on_rcpt = 5\n", ": on_rcpt is not a function"),
        ("x = 1\n", ": defines no hook"),
        ("\0", ": source code string cannot contain null bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "policy.py"
    load(path, GOOD)
    former = sys.modules[MODULE_NAME]
    with pytest.raises(HookFileError) as refused:
        load(path, text)
    assert str(refused.value).startswith(f"{path}{complaint}")
    assert sys.modules[MODULE_NAME] is former


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HookFileError, match="No such file"):
        read_source(str(tmp_path / "policy.py"))
    (tmp_path / "policy.py").write_text(GOOD)
    (tmp_path / "policy.py").chmod(0o666)
    with pytest.raises(HookFileError, match="writable by everybody"):
        read_source(str(tmp_path / "policy.py"))
    (tmp_path / "policy.py").chmod(0o600)
    (tmp_path / "policy.py").write_bytes(b"# \xff\n")
    with pytest.raises(HookFileError, match="not UTF-8 at octet 2"):
        read_source(str(tmp_path / "policy.py"))


def test_modules_beside_it_are_run_with_it_and_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "tenants.py").write_text("from prices import PRICE\nNAMES = ['one', PRICE]\n")
    (tmp_path / "prices.py").write_text("PRICE = 5\n")
    text = "import tenants\ndef route(rcpt):\n    import late\n    return tenants.NAMES, late.X\n"
    (tmp_path / "late.py").write_text("X = 1\n")
    hooks = load(tmp_path / "policy.py", text)
    assert hooks["route"](None) == (["one", 5], 1)  # type: ignore[operator]
    # What was read holds, whatever becomes of the files; a new reading begins afresh, and what is gone is gone.
    (tmp_path / "prices.py").write_text("PRICE = 6\n")
    source = read_source(str(tmp_path / "policy.py"))
    (tmp_path / "prices.py").write_text("PRICE = 7\n")
    (tmp_path / "late.py").write_text("X = 2\n")
    assert load_hooks(source)["route"](None) == (["one", 6], 1)
    (tmp_path / "late.py").unlink()
    hooks = load(tmp_path / "policy.py", text)
    with pytest.raises(ModuleNotFoundError, match="late"):
        hooks["route"](None)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\ndef f(:\n", ":2: invalid syntax"),
        ("return 5\n", ":1: 'return' outside function"),
        ("\n\n1 / 0\n", ":3: ZeroDivisionError: division by zero"),
        ("import nowhere\n", ":1: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_an_error_in_a_module_beside_it_is_told_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "tenants.py").write_text("X = 1\n")
    load(tmp_path / "policy.py", "import tenants\n" + GOOD)
    former = sys.modules["tenants"]
    (tmp_path / "tenants.py").write_text(text)
    with pytest.raises(HookFileError) as refused:
        load(tmp_path / "policy.py", "import tenants\n" + GOOD)
    assert str(refused.value).startswith(f"{tmp_path}/tenants.py{complaint}")
    assert sys.modules["tenants"] is former


def test_a_module_beside_it_must_be_the_operators_and_have_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "tenants.py").write_text("X = 1\n")
    (tmp_path / "tenants.py").chmod(0o666)
    with pytest.raises(HookFileError, match=r"tenants\.py: writable by everybody"):
        load(tmp_path / "policy.py", "import tenants\n" + GOOD)
    for name, other in (("json", "a module of Python's"), ("msgspec", "msgspec")):
        (tmp_path / f"{name}.py").write_text("X = 1\n")
        with pytest.raises(HookFileError) as refused:
            load(tmp_path / "policy.py", f"\nimport {name}\n" + GOOD)
        told = str(refused.value)
        assert told.startswith(f"{tmp_path}/policy.py:2: import {name}: {tmp_path}/{name}.py has the name of ")
        assert other in told.partition("has the name of ")[2]


def test_a_hook_has_a_place_whatever_it_is_wrapped_in() -> None:
    class Called:
        def __call__(self, argument: object) -> None: ...

        def method(self, argument: object) -> None: ...

    def plain(argument: object) -> None: ...

    @functools.wraps(plain)
    def wrapped(argument: object) -> None: ...

    def line(function: object) -> str:
        return f"{__file__}:{function.__code__.co_firstlineno}"  # type: ignore[attr-defined]

    assert defined_at(plain, "x") == defined_at(wrapped, "x") == line(plain)
    assert defined_at(functools.partial(plain, 1), "x") == line(plain)
    assert defined_at(Called(), "x") == line(Called.__call__)
    assert defined_at(Called().method, "x") == line(Called.method)
    assert defined_at(print, "/etc/angarium/policy.py") == "/etc/angarium/policy.py"
