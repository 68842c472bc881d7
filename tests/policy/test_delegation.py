"""Questions and answers of the policy delegation protocol."""

from __future__ import annotations

import pytest

from angarium.policy.delegation import (
    Action,
    Drop,
    Dunno,
    Note,
    Prepend,
    Refuse,
    Reroute,
    Unsupported,
    action_text,
    parse_action,
    request,
)
from angarium.policy.header import AddField


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("DUNNO", Dunno()),
        ("dunno with a text", Dunno()),
        ("OK", Dunno(is_final=True)),
        ("250", Dunno(is_final=True)),
        ("REJECT", Refuse(b"554 5.7.1 Access denied\r\n")),
        ("reject 5.1.1 Nobody", Refuse(b"554 5.1.1 Nobody\r\n")),
        ("REJECT 4.1.1 Nobody", Refuse(b"554 5.7.1 Nobody\r\n")),
        ("550 5.7.23 SPF", Refuse(b"550 5.7.23 SPF\r\n")),
        ("450", Refuse(b"450 4.7.1 Access denied\r\n")),
        ("421 4.7.0 Bye", Refuse(b"421 4.7.0 Bye\r\n")),
        ("DEFER 4.2.0 Greylisted", Refuse(b"450 4.2.0 Greylisted\r\n")),
        ("DEFER_IF_PERMIT Greylisted", Refuse(b"450 4.7.1 Greylisted\r\n", "permit")),
        ("DEFER_IF_REJECT Soon", Refuse(b"450 4.7.1 Soon\r\n", "reject")),
        ("REJECT a\0b\x1b", Refuse(b"554 5.7.1 a?b?\r\n")),
        ("PREPEND X-Grey: delayed 5 s", Prepend(AddField("X-Grey", " delayed 5 s"))),
        ("REDIRECT trap@x.example", Reroute(b"trap@x.example")),
        ("BCC log@x.example", Reroute(b"log@x.example", is_copy=True)),
        ("DISCARD junk", Drop("junk")),
        ("WARN watch out", Note("warn", "watch out")),
        ("INFO fine", Note("info", "fine")),
    ],
)
def test_actions(text: str, action: Action) -> None:
    assert parse_action(text) == action


@pytest.mark.parametrize(
    "text",
    ["FILTER smtp:x", "HOLD", "nonsense", "REDIRECT nobody", "REDIRECT a@b c", "PREPEND X", "PREPEND X Y: z", "550x"],
)
def test_what_is_not_for_us_or_no_action_is_told(text: str) -> None:
    assert isinstance(parse_action(text), Unsupported)


def test_a_question_cannot_be_ended_early_by_a_value() -> None:
    octets = request({"helo_name": "x\n\naction=OK", "sender": "ü@x.example"})
    assert octets == "request=smtpd_access_policy\nhelo_name=xaction=OK\nsender=ü@x.example\n\n".encode()


def test_the_action_of_an_answer() -> None:
    assert action_text(b"action=DUNNO\n\n") == "DUNNO"
    assert action_text(b"other=1\naction= PREPEND A: b=c \n\n") == "PREPEND A: b=c"
    assert action_text(b"nothing\n\n") is None
