"""What hooks print becomes events, whole lines with their place, bounded; and nothing else gets into the log."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from inbound.intake_harness import run
from policy.test_service import Log

from angarium.inbound.policy import Policy
from angarium.policy.hook_file import HookFileError, HookSource, read_source
from angarium.policy.options import PolicyOptions
from angarium.policy.printed import LINES_PER_S, TEXT_OCTETS, dropped_total, printed_total


def printed(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    assert all(line["event"].startswith("printed") for line in lines)
    return lines


def source(folder: Path, text: str) -> HookSource:
    (folder / "policy.py").write_text(text)
    return read_source(str(folder / "policy.py"))


def told_by(folder: Path, hook: str, *, turns: int = 2) -> list[dict[str, Any]]:
    """What is logged when a hook file with this body of on_auth is run and the hook is called once."""
    text = f"import asyncio, logging, sys, threading, warnings\nasync def on_auth(who):\n    {hook}\n"

    async def main() -> None:
        policy = Policy(asyncio.get_running_loop(), Log(folder).journal)
        policy.apply(PolicyOptions(), source(folder, text))
        try:
            on_auth = policy.auth_hook()
            assert on_auth is not None
            answer = on_auth("alice")
            if asyncio.iscoroutine(answer):
                await answer
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            policy.close()

    before = sys.stdout, sys.stderr
    run(main())
    assert (sys.stdout, sys.stderr) == before
    return printed(folder)


@pytest.mark.parametrize(
    ("hook", "stream", "text"),
    [
        ("print('who', who, 3)", "stdout", "who alice 3"),
        ("print('who', who, file=sys.stderr, flush=True)", "stderr", "who alice"),
        ("sys.stdout.write('no end')", "stdout", "no end"),
        ("print('a', end=''); sys.stdout.flush(); print('b')", "stdout", "ab"),
        ("sys.stdout.buffer.write(b'\\xff octets\\n')", "stdout", "\ufffd octets"),
        ("log = logging.getLogger('mine'); log.propagate = False; log.warning('%s', who)", "stderr", "alice"),
        ("print('\\x1b[31m\\r\"}\\u202e\\ud800')", "stdout", '\x1b[31m\r"}\u202e\\ud800'),
    ],
)
def test_a_line_is_an_event_with_hook_and_place(tmp_path: Path, hook: str, stream: str, text: str) -> None:
    (event,) = told_by(tmp_path, hook)
    assert (event["hook"], event["at"]) == ("on_auth", f"{tmp_path}/policy.py:3")
    assert (event["stream"], event["text"]) == (stream, text)
    assert "\x1b" not in (tmp_path / "log").read_text()


def test_a_warning_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning):     # pytest's own take them away from stderr
        told_by(tmp_path, "warnings.warn('old')")
    hook = "warnings.showwarning('old', UserWarning, 'policy.py', 3, None, 'line')"
    # As Python does it outside of a test.
    show = "import importlib; importlib.reload(warnings); "
    events = told_by(tmp_path, show + hook)
    assert "UserWarning: old" in events[0]["text"] and events[0]["stream"] == "stderr"


def test_each_line_of_a_text_is_an_event_and_empty_ones_are_none(tmp_path: Path) -> None:
    events = told_by(tmp_path, "print('one\\n\\ntwo\\nthree', end='')")
    assert [event["text"] for event in events] == ["one", "two", "three"]


def test_a_long_line_is_cut_and_stays_below_what_a_pipe_takes_at_once(tmp_path: Path) -> None:
    hook = "print('x' * (1 << 20)); print('\\u20ac' * 1000); print('\\x01' * 1000); print('y' * 500)"
    events = told_by(tmp_path, hook)
    assert events[0]["text"] == "x" * TEXT_OCTETS + "..."
    assert events[1]["text"] == "\u20ac" * (TEXT_OCTETS // 3) + "..."
    assert events[3]["text"] == "y" * TEXT_OCTETS
    assert max(map(len, (tmp_path / "log").read_bytes().splitlines())) < 4096


def test_lines_past_the_limit_are_dropped_and_counted(tmp_path: Path) -> None:
    dropped, total = dropped_total.total(), printed_total.total()
    events = told_by(tmp_path, "[print(number) for number in range(1000)]")
    lost = 1000 - sum(event["event"] == "printed" for event in events)
    assert lost >= 1000 - 2 * LINES_PER_S  # a second may end meanwhile
    assert sum(event["lines"] for event in events if event["event"] == "printed-dropped") == lost
    assert dropped_total.total() - dropped == lost and printed_total.total() - total == 1000


def test_tasks_and_threads_of_a_hook_are_told_without_it(tmp_path: Path) -> None:
    events = told_by(
        tmp_path,
        "async def task(): print('task')\n"
        "    asyncio.get_running_loop().create_task(task()); await asyncio.to_thread(print, 'thread', who)\n"
        "    await asyncio.to_thread(lambda: print('line'))",
    )
    assert {(event["text"], event.get("hook"), event.get("at")) for event in events} == {
        ("task", None, f"{tmp_path}/policy.py:3"),
        ("thread alice", None, None),
        ("line", None, f"{tmp_path}/policy.py:5"),
    }


def test_what_a_file_prints_as_it_is_run_is_told_though_it_fails(tmp_path: Path) -> None:
    async def main() -> None:
        policy = Policy(asyncio.get_running_loop(), Log(tmp_path).journal)
        try:
            with pytest.raises(HookFileError):
                policy.apply(PolicyOptions(), source(tmp_path, "print('here')\n1 / 0\n"))
            assert [(each["text"], each["at"]) for each in printed(tmp_path)] == [("here", f"{tmp_path}/policy.py:1")]
        finally:
            policy.close()

    run(main())


def test_without_hooks_the_streams_stay(tmp_path: Path) -> None:
    async def main() -> None:
        before = sys.stdout, sys.stderr
        policy = Policy(asyncio.get_running_loop(), Log(tmp_path).journal)
        policy.apply(PolicyOptions(), None)
        assert (sys.stdout, sys.stderr) == before
        policy.close()

    run(main())


def test_a_module_beside_the_file_is_the_place(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def say(who):\n    print(who)\n")
    (event,) = told_by(tmp_path, "import beside; beside.say(who)")
    assert (event["hook"], event["at"]) == ("on_auth", f"{tmp_path}/beside.py:2")


def test_what_files_usually_ask_of_the_streams_is_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hook = (
        "sys.stdout.reconfigure(line_buffering=True); sys.stdout.isatty() or print(sys.stdout.encoding)"
        "\n    import subprocess; subprocess.run(['echo', 'child'], stdout=sys.stdout)"
    )
    (event,) = told_by(tmp_path, hook)
    assert event["text"] == "utf-8"
    assert capfd.readouterr() == ("", "child\n")
