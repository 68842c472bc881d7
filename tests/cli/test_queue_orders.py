"""What `angarium queue suspend` and its like say of the API's answer."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from angarium.cli import queue
from angarium.cli.admin_client import AdminClient, NoAnswer

HOLDS = {"name": "y", "action": "suspend", "where": {"domain": "y.example"}, "made_utc_s": 1.0}


def said(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *words: str) -> int:
    full = {"recipients": 0, "messages": 0, "unknown_domains": 0, "sample": [], "order": None, "cancelled": []}
    monkeypatch.setattr(
        AdminClient, "post", lambda self, path, body, timeout_s=0.0: full | {"incomplete": ""} | answer
    )
    parser = argparse.ArgumentParser()
    queue.add_parser(parser.add_subparsers())
    return queue.run(parser.parse_args(["queue", *words, "--admin", "127.0.0.1:8025"]))


def test_numbers_of_a_part_of_the_queue_are_told_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"recipients": 3, "messages": 2, "order": HOLDS, "incomplete": "worker 1: the worker died"}
    assert said(monkeypatch, answer, "suspend", "--domain", "y.example", "--name", "y") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "at least 3 recipients of 2 messages are suspended",
        'order "y" holds, and what comes later, until it is cancelled',
    ]
    assert captured.err == "not all of the queue was gone through: worker 1: the worker died\n"


def test_a_message_that_is_not_here_is_an_error_unless_an_order_holds_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NoAnswer, match="is not in the queue"):
        said(monkeypatch, {}, "delete", "02TR4P4JG0001")
    assert said(monkeypatch, {"order": HOLDS}, "delete", "02TR4P4JG0001", "--for", "1h") == 0
