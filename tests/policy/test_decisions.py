"""What may be decided, and what is refused where it is made."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from angarium.policy import Accept, AddField, Defer, Discard, Redirect, Reject
from angarium.policy.reply import cleaned_text
from angarium.spool.envelope import Attribute


@pytest.mark.parametrize(
    ("decision", "reply"),
    [
        (Reject(), b"550 5.7.1 Refused by policy\r\n"),
        (Reject("No such user", status="5.1.1"), b"550 5.1.1 No such user\r\n"),
        (Reject("Bye", code=521, status="5.3.2"), b"521 5.3.2 Bye\r\n"),
        (Reject(""), b"550 5.7.1\r\n"),
        (Defer("Wait", code=421), b"421 4.7.1 Wait\r\n"),
        (Reject("x" * 495), b"550 5.7.1 " + b"x" * 495 + b"\r\n"),
    ],
)
def test_replies_are_written_whole(decision: Reject, reply: bytes) -> None:
    assert decision.reply(550) == reply
    assert len(reply) <= 512


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reject("x", code=450),
        lambda: Reject("x", code=250),
        lambda: Reject("x", code=600),
        lambda: Reject("x", status="4.7.1"),
        lambda: Reject("x", status="5.7"),
        lambda: Reject("x", status="5.7.1\r\n"),
        lambda: Reject("two\r\nlines"),
        lambda: Reject("x\0"),
        lambda: Reject("grün"),
        lambda: Reject("x" * 500),
        lambda: Defer("x", code=550),
        lambda: Defer("x", status="5.7.1"),
        lambda: Discard("two\nlines"),
        lambda: Redirect([]),
        lambda: Redirect("a@x.example"),
        lambda: Redirect(["no mailbox"]),
        lambda: Redirect(["a@x.example>\r\nRCPT TO:<b@x.example"]),
        lambda: Accept(route="smtp//x"),
        lambda: Accept(route="smtp://x:25\n"),
        lambda: Accept(tls="encrypt"),
        lambda: Accept(route="mx", tls="perhaps"),  # type: ignore[arg-type]
        lambda: Accept(route="smtps://x", tls="none"),
        lambda: Accept(route="maildir:/m/{local}", tls="encrypt"),
        lambda: Accept(tenant=""),
        lambda: Accept(tenant="a\r\nb"),
        lambda: Accept(pool="x" * 200),
        lambda: Accept(priority=10),
        lambda: Accept(not_before=datetime(2030, 1, 1)),
        lambda: Accept(not_before=-1.0),
        lambda: Accept(not_before=float("nan")),
        lambda: Accept(fields=["X: 1"]),
        lambda: Accept(fields=[AddField("X", "1")] * 101),
    ],
)
def test_a_mistake_is_found_where_it_is_made(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]


def test_accept_becomes_envelope_attributes() -> None:
    new_year = datetime(2030, 1, 1, tzinfo=UTC)
    accept = Accept(route="smtp://Relay.Example", tenant="acme", priority=9, not_before=new_year)
    assert accept.attributes() == {
        Attribute.ROUTE: b"smtp://relay.example:25",
        Attribute.TENANT: b"acme",
        Attribute.PRIORITY: b"9",
        Attribute.HOLD_UNTIL: b"1893456000",
    }


def test_a_route_says_what_it_asks_of_tls() -> None:
    assert Accept(route="mx", tls="required").attributes() == {Attribute.ROUTE: b"mx tls=required"}
    assert Accept(route="smtp://X:25", tls="none").attributes() == {Attribute.ROUTE: b"smtp://x:25 tls=none"}


def test_foreign_texts_are_cleaned_and_cut() -> None:
    assert cleaned_text("see\r\n250 Ok\0 grün") == "see??250 Ok? gr?n"
    assert len(cleaned_text("x" * 1000)) == 496
