"""Who gets a report: every combination that RFC 3461 §4.1 distinguishes."""

import pytest

from angarium.mime.notify import Notify, Outcome, is_report_due

N, S, F, D = Notify.NEVER, Notify.SUCCESS, Notify.FAILURE, Notify.DELAY

ROWS: list[tuple[Outcome, int, bool, str]] = [
    ("failed", 0, True, "not given: as FAILURE"),
    ("expired", 0, True, "expiry is a failure"),
    ("delivered", 0, False, "not given: success is not told"),
    ("relayed", 0, False, "nor is relaying"),
    ("delayed", 0, False, "nor delay, left to us"),
    ("failed", N, False, "NEVER"),
    ("expired", N, False, "NEVER"),
    ("delivered", N, False, "NEVER"),
    ("failed", F, True, "FAILURE"),
    ("expired", F, True, "FAILURE"),
    ("failed", S, False, "SUCCESS alone: failure is not told"),
    ("expired", D, False, "DELAY alone: failure is not told"),
    ("delivered", S, True, "SUCCESS"),
    ("relayed", S, True, "relaying ends what we can tell of success"),
    ("delivered", F | D, False, "SUCCESS not asked for"),
    ("delayed", D, True, "DELAY"),
    ("delayed", S | F, False, "DELAY not asked for"),
    ("failed", S | F | D, True, "all of them"),
]


@pytest.mark.parametrize(("outcome", "notify", "is_due", "reason"), ROWS)
def test_report_is_due_as_notify_says(outcome: Outcome, notify: int, is_due: bool, reason: str) -> None:
    assert is_report_due(outcome, notify, b"sender@example.com") is is_due


@pytest.mark.parametrize("outcome", ["failed", "expired", "delayed", "relayed", "delivered"])
@pytest.mark.parametrize("notify", [0, N, S, F, D, S | F | D])
def test_nobody_reports_to_a_null_reverse_path(outcome: Outcome, notify: int) -> None:
    assert not is_report_due(outcome, notify, b"")
