"""Days of simulated traffic, a few seeds of them (`make day` has more)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from simulation.clock import run_simulated


@pytest.mark.timeout(400)       # a few seconds, but under sanitizers
@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_day_every_recipient_has_one_end_and_nothing_went_before_its_time(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-m", "simulation.day", "--seed", str(seed), "--directory", str(tmp_path)]
    ended = run_simulated([*command, "--messages", "1000"], tmp_path, 390)
    assert ended.returncode == 0, ended.stdout + ended.stderr
