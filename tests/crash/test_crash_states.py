"""The spool over a disk that loses power, fails calls and lies: the short form of csrc/crash.

docs/durability.md explains it. The program is built here, once for all processes of the test run.
"""

from __future__ import annotations

import fcntl
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CRASH = ROOT / "csrc" / "crash"
HANG_S = 300


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-s", "-C", str(CRASH), *arguments], capture_output=True, text=True, check=False, timeout=HANG_S
    )


@pytest.fixture(scope="module")
def program() -> Path:
    directory = ROOT / "build" / "crash"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = make("build")
    assert built.returncode == 0, built.stdout + built.stderr
    return directory / "normal" / "crash"


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), "--short", *arguments], capture_output=True, text=True, check=False, timeout=HANG_S
    )


def test_no_power_cut_loses_or_halves_an_acknowledged_message(program: Path) -> None:
    done = run(program, "--states", "--no-compaction", "--seeds", "2")
    assert done.returncode == 0, done.stdout
    figures = re.search(r"^(\d+) states judged, (\d+) distinct, 0 failed$", done.stdout, re.MULTILINE)
    assert figures is not None, done.stdout
    assert int(figures[2]) >= 300


@pytest.mark.timeout(HANG_S)
@pytest.mark.parametrize("mode", ["--direct", "--buffered"])
def test_no_failing_call_and_no_kill_loses_an_acknowledged_message_and_service_resumes(
    program: Path, mode: str
) -> None:
    done = run(program, "--faults", mode)
    assert done.returncode == 0, done.stdout
    struck = [int(count) for count in re.findall(r"^(?:faults|kills) .* (\d+) struck", done.stdout, re.MULTILINE)]
    assert len(struck) == 2, done.stdout
    assert min(struck) >= 100, done.stdout
    assert len(re.findall(r"^small disk ", done.stdout, re.MULTILINE)) == 1


@pytest.mark.parametrize("lie", ["no-data-sync", "no-directory-sync", "early-return"])
def test_a_disk_that_lies_about_its_syncs_is_found_out(program: Path, lie: str) -> None:
    done = run(program, "--mutate", lie)
    assert done.returncode == 1, done.stdout
    wrong = r"^FAILED: .*(acknowledged and is lost|was durable|durably over|damaged)"
    assert re.search(wrong, done.stdout, re.MULTILINE), done.stdout


# What compaction leaves out, or recovery reads wrongly, and what is then found.
WRONG_COMPACTIONS = {
    "free-before-copy": "acknowledged and is lost",
    "no-outcome-behind-copy": "was durable and",
    "no-freed-again": "durably over",
    "freed-any-home": "acknowledged and is lost",
    "copy-into-home": "acknowledged and is lost|is found twice",
    "lazy-copies": "before it was durable",
}


@pytest.mark.parametrize("wrong", WRONG_COMPACTIONS)
def test_a_compaction_that_leaves_out_a_step_is_found_out(program: Path, wrong: str) -> None:
    said = []
    with subprocess.Popen(
        [str(program), "--short", "--mutate", wrong], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:  # a line a seed: the first that finds it is enough
            said.append(line)
            if re.match(f"FAILED: .*({WRONG_COMPACTIONS[wrong]})", line):
                running.kill()
                return
    pytest.fail("".join(said))


# What the spool's own code leaves out or mistakes, and what is found then: at a cut, or at a call that fails.
WRONG_SPOOLS = {
    "unread-index-is-empty": "durably over|was durable",
    "kept-not-synced": "is said to be kept and",
    "kept-not-rewritten": "is said to be kept and has other octets",
    "torn-not-kept": "the operator is told: .* torn end",
}


@pytest.mark.parametrize("wrong", WRONG_SPOOLS)
def test_a_spool_that_takes_what_it_cannot_read_for_nothing_or_keeps_no_octets_is_found_out(
    program: Path, wrong: str
) -> None:
    done = run(program, "--mutate", wrong)
    assert done.returncode == 1, done.stdout
    assert re.search(f"^FAILED: .*({WRONG_SPOOLS[wrong]})", done.stdout, re.MULTILINE), done.stdout


def test_compaction_really_moves_messages_between_the_cuts(program: Path) -> None:
    done = run(program, "--states", "--compaction", "--seeds", "2", "--turns", "80")
    assert done.returncode == 0, done.stdout
    figures = re.findall(
        r"^ +(\d+) segments emptied, .*; (\d+) messages moved, (\d+) with outcome, (\d+) in chunks, (\d+) given up; "
        r"(\d+) outcomes alone, (\d+) freed again$",
        done.stdout,
        re.MULTILINE,
    )
    assert len(figures) == 4, done.stdout
    totals = [sum(map(int, column)) for column in zip(*figures, strict=True)]
    assert min(totals) >= 4, done.stdout


def test_a_failing_state_is_found_again_by_its_name(program: Path) -> None:
    done = run(program, "--mutate", "early-return")
    again = re.search(r"again with: (.*--state .*)$", done.stdout, re.MULTILINE)
    assert again is not None, done.stdout
    repeated = run(program, "--mutate", "early-return", *again[1].split())
    assert repeated.returncode == 1, repeated.stdout
    assert "1 states judged" in repeated.stdout


def test_a_call_that_the_layer_does_not_know_stops_the_build(program: Path, tmp_path: Path) -> None:
    known = (CRASH / "calls.txt").read_text()
    shorter = tmp_path / "calls.txt"
    shorter.write_text(known.replace("wrapped fdatasync\n", ""))
    checked = make("check-calls", f"CALLS={shorter}", f"BUILD={tmp_path}")
    assert checked.returncode != 0
    assert "does not know: fdatasync" in checked.stdout
