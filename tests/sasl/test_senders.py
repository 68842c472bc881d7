"""Which reverse-paths an identity may use."""

from __future__ import annotations

import pytest

from angarium.sasl.senders import Senders

TABLE = {
    "alice@example.net": ["sales@example.net", "lists.example", ".deep.example"],
    "robot": ["robot@example.org"],
    "root": ["*"],
}


@pytest.mark.parametrize(
    ("identity", "reverse_path", "may"),
    [
        ("alice@example.net", b"alice@example.net", True),
        ("alice@example.net", b"Alice@EXAMPLE.net", True),
        ("alice@example.net", b"sales@example.net", True),
        ("alice@example.net", b"bob@example.net", False),
        ("alice@example.net", b"", True),  # a report on a message that she read (RFC 8098 §3)
        ("alice@example.net", b"any@lists.example", True),
        ("alice@example.net", b"any@lists.example.", True),
        ("alice@example.net", b"any@sub.lists.example", False),
        ("alice@example.net", b"any@notlists.example", False),
        ("alice@example.net", b"any@a.b.deep.example", True),
        ("alice@example.net", b"any@deep.example", False),
        ("alice@example.net", b'"x@lists.example"@elsewhere.example', False),
        ("alice@example.net", b'"alice"@example.net', False),
        ("robot", b"robot@example.org", True),
        ("robot", b"robot", False),
        ("nobody", b"nobody@example.net", False),
        ("root", b"anything@at.all", True),
    ],
)
def test_reverse_path(identity: str, reverse_path: bytes, may: bool) -> None:
    assert Senders(identity, TABLE).may_use(reverse_path) is may


def test_an_entry_for_everybody_adds_to_each_own() -> None:
    senders = Senders("robot", {**TABLE, "*": ["shared.example"]})
    assert senders.may_use(b"x@shared.example")
    assert senders.may_use(b"robot@example.org")
