"""Whole server sessions, fuzzed: the corpus as it is, and some thousand mutations that are new in each run.

Under `make debug` the same runs with sanitizers. For longer: `python -m fuzz.session_target --seconds 600` with
tests/ in PYTHONPATH.
"""

from __future__ import annotations

import random

import pytest
from fuzz import session_target


@pytest.mark.parametrize("path", sorted(session_target.CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus_breaks_no_invariant(path) -> None:
    for seed in range(len(session_target.SETTINGS) * 11):
        session_target.check(path.read_bytes(), seed)


@pytest.mark.parametrize("run", range(4))
def test_mutations_of_the_corpus_break_no_invariant(run: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance, seeds = random.Random(seed), session_target.corpus()
    for count in range(300):
        octets, choice = session_target.mutated(chance, seeds), chance.randrange(1 << 32)
        try:
            session_target.check(octets, choice)
        except AssertionError:
            pytest.fail(f"seed {seed}, mutation {count}: check({octets!r}, {choice})")


def test_the_target_can_fail() -> None:
    """A judge that lets everything pass would find nothing."""
    dialogue = session_target._played(session_target.SETTINGS[0], b"EHLO c.example\r\n", [], {}, 0)
    dialogue.messages.append(b"never\nsent\r\n")
    with pytest.raises(AssertionError):
        session_target._judge(dialogue)
