"""Why a recipient waits: each reason once, and which of two comes first."""

from __future__ import annotations

from typing import Any

import pytest

from angarium.outbound.reasons import of_queue, of_recipient, spoken
from angarium.queue.facts import Allowed, QueueFacts, RecipientFacts, Reply

REFUSED = Reply(0.0, "4.2.0 try later", 450, "4.2.0", "mx.example[192.0.2.1]:25")
NOW_S = 1_000_000.0


def queue(**changes: Any) -> QueueFacts:
    """One of ten connections is busy, five recipients are in line."""
    usual = {"waiting": 5, "busy": 1, "connections": 1, "connections_limit": 10, "window": 8.0}
    return QueueFacts("mx.example", "mail1", **{**usual, **changes})


def recipient(place: str, **changes: Any) -> RecipientFacts:
    return RecipientFacts("a@y.example", "y.example", b"y.example", place, "waiting", 0, **changes)


IN_LINE = Allowed(rate_wait_s=2.0)
FULL = Allowed(connections=3, connections_limit=3)
ROWS: list[tuple[dict[str, Any], str, str, float | None]] = [
    ({}, "5 are in line before 1 busy connections", "", None),
    ({"busy": 0, "dialling": 1}, "a connection to the site is being opened", "", None),
    ({"busy": 0}, "it is about to be tried", "", None),
    (
        {"home": 1, "handed": 3, "connections": 10},
        "worker 1 sends for its site, which may have fewer connections than there are workers, and has 3 before it",
        "connections",
        None,
    ),
    (
        {"home": 0, "source_used": FULL},
        "worker 0 sends for its site, which may have fewer connections than there are workers, and has 0 before it",
        "all_sites.connections",
        None,
    ),
    ({"connections": 10}, "all 10 connections that the site is allowed are in use", "connections", None),
    (
        {"connections": 1, "connections_limit": 1},
        "the one connection that the site is allowed is in use",
        "connections",
        None,
    ),
    (
        {"is_narrowed": True, "window": 1.0, "replies": [REFUSED]},
        "after trouble the site gets 1 of 10 connections for now (450 4.2.0 try later (mx.example[192.0.2.1]:25)), and"
        " they are in use",
        "connections",
        None,
    ),
    (
        {"busy": 0, "retry_dial_s": 9.7, "replies": [Reply(0.0, "connection failed: Connection refused")]},
        "the site could not be reached (connection failed: Connection refused); it is tried again in 10s",
        "",
        9.7,
    ),
    # As long as a connection works, a dial that failed only slows dialling.
    ({"retry_dial_s": 9.7}, "5 are in line before 1 busy connections", "", None),
    (
        {"paused_s": 3.0, "is_paced": True, "message_rate_wait_s": 3.0},
        "the message rate of the site is used up",
        "message_rate",
        3.0,
    ),
    (
        {"paused_s": 3.0, "is_paced": True, "message_rate_wait_s": 1.0, "tenant_rate_wait_s": 3.0},
        "the message rate of the tenant is used up",
        "tenant.message_rate",
        3.0,
    ),
    ({"paused_s": 60.0}, "the site is paused for 1m", "", 60.0),
    (
        {"is_in_line": True, "source_used": IN_LINE},
        "the rate of source mail1 is used up, and others stand in line before it",
        "all_sites.message_rate",
        2.0,
    ),
    (
        {"is_in_dial_line": True, "source_used": FULL},
        "all 3 connections of source mail1 are in use",
        "all_sites.connections",
        None,
    ),
    (
        {"is_in_dial_line": True, "source_used": Allowed(connection_rate_wait_s=1.0)},
        "the connection rate of source mail1 is used up",
        "all_sites.connection_rate",
        None,
    ),
    (
        {"busy": 0, "connection_rate_wait_s": 4.0},
        "the connection rate of the site is used up",
        "connection_rate",
        4.0,
    ),
    (
        {"today_limit": 100, "sent_today": 100, "is_in_line": True},
        "source mail1 is warmed up, and has sent its 100 messages of today",
        "warmup",
        86400 - NOW_S % 86400,
    ),
    (
        {"is_deferring": True, "replies": [REFUSED]},
        "all that waits for the site is being deferred: 450 4.2.0 try later (mx.example[192.0.2.1]:25)",
        "",
        None,
    ),
]


@pytest.mark.parametrize(("changes", "text", "limit", "after_s"), ROWS, ids=[row[1][:40] for row in ROWS])
def test_a_ready_queue_tells_why_it_waits(
    changes: dict[str, Any], text: str, limit: str, after_s: float | None
) -> None:
    reason = of_queue(queue(**changes), now_utc_s=NOW_S)
    assert (reason.text, reason.limit) == (text, limit)
    assert reason.until_utc_s == (None if after_s is None else pytest.approx(NOW_S + after_s))


def test_a_recipient_tells_where_it_is() -> None:
    deferred = recipient("deferred", last=REFUSED, next_attempt_utc_s=5.0)
    deferred.attempts = 2
    assert of_recipient(deferred, None).text == f"2 attempts have failed: {spoken(REFUSED)}"
    assert of_recipient(deferred, None).until_utc_s == 5.0
    assert "set a time" in of_recipient(recipient("held", next_attempt_utc_s=5.0), None).text
    assert "are being looked up" in of_recipient(recipient("unrouted", is_resolving=True), None).text
    assert "stands in line" in of_recipient(recipient("unrouted"), None).text
    assert "is suspended" in of_recipient(recipient("suspended"), None).text
    assert "has it in hand" in of_recipient(recipient("in hand"), None).text
    assert "handed to worker 1, which sends" in of_recipient(recipient("handed to worker 1"), None).text
    assert of_recipient(recipient("ready"), queue()) == of_queue(queue())
    full = queue(waiting=100, max_ready=100, behind=7, paused_s=60.0)
    behind = of_recipient(recipient("behind"), full, now_utc_s=NOW_S)
    assert behind.text == (
        "its ready queue is full (it is one of 7 behind the 100 in it), and the site is paused for 1m"
    )
    assert (behind.limit, behind.until_utc_s) == ("max_ready", NOW_S + 60.0)
    room = queue(waiting=99, max_ready=100, behind=1)
    assert "is about to be taken in" in of_recipient(recipient("behind"), room).text
    told = recipient("settled")
    told.outcome = "failed"
    assert of_recipient(told, None).text == "it has failed, and its report is not written yet"


def test_a_reply_is_spoken_in_one_line_and_its_status_once() -> None:
    assert spoken(REFUSED) == "450 4.2.0 try later (mx.example[192.0.2.1]:25)"
    assert spoken(Reply(0.0, "two\nlines", 451, "4.0.0")) == "451 4.0.0 two lines"
    assert spoken(Reply(0.0, "timed out", status="4.4.2")) == "timed out"
