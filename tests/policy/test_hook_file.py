"""The hook file: what is taken, what is refused and how that is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from angarium.policy.hook_file import MODULE_NAME, HookFileError, load_hooks, read_source

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
        ("def on_recipient(rcpt): ...\n", ':1: "on_recipient" is no hook: there are on_connect'),
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
