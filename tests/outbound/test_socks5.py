"""The SOCKS5 client by itself: every answer at every cut."""

from __future__ import annotations

import pytest

from angarium.outbound.socks5 import Socks5, Socks5Error

V4_REQUEST = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19"
V6_REQUEST = b"\x05\x01\x00\x04" + bytes.fromhex("20010db8000000000000000000000001") + b"\x00\x19"
BOUND_V4 = b"\x05\x00\x00\x01\xc0\x00\x02\x63\x12\x34"


def play(dialogue: Socks5, answers: bytes, step: int) -> bytes:
    """Feeds the answers, `step` octets at most at a time; gives all that was sent."""
    sent = dialogue.out()
    while dialogue.wanted:
        count = min(step, dialogue.wanted)
        dialogue.receive(answers[:count])
        answers = answers[count:]
        sent += dialogue.out()
    assert not answers, "what comes behind is the SMTP server's"
    return sent


@pytest.mark.parametrize("step", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("address", "user", "answers", "sent"),
    [
        ("192.0.2.1", "", b"\x05\x00" + BOUND_V4, b"\x05\x01\x00" + V4_REQUEST),
        ("2001:db8::1", "", b"\x05\x00" + BOUND_V4, b"\x05\x01\x00" + V6_REQUEST),
        # A server that wants no password gets none.
        ("192.0.2.1", "me", b"\x05\x00" + BOUND_V4, b"\x05\x02\x00\x02" + V4_REQUEST),
        ("192.0.2.1", "me", b"\x05\x02\x01\x00" + BOUND_V4, b"\x05\x02\x00\x02" + b"\x01\x02me\x02pw" + V4_REQUEST),
        # Bound to an IPv6 address, to a name, to the empty name.
        ("192.0.2.1", "", b"\x05\x00\x05\x00\x00\x04" + bytes(18), b"\x05\x01\x00" + V4_REQUEST),
        ("192.0.2.1", "", b"\x05\x00\x05\x00\x00\x03\x04host\x00\x19", b"\x05\x01\x00" + V4_REQUEST),
        ("192.0.2.1", "", b"\x05\x00\x05\x00\x00\x03\x00\x00\x19", b"\x05\x01\x00" + V4_REQUEST),
    ],
)
def test_what_is_asked_and_how_much_of_the_answer_is_read(
    *, address: str, user: str, answers: bytes, sent: bytes, step: int
) -> None:
    assert play(Socks5(address, 25, user, "pw" if user else ""), answers, step) == sent


@pytest.mark.parametrize(
    ("user", "answers", "text", "is_of_proxy"),
    [
        ("", b"\x05\xff", "wants user and password", True),
        ("me", b"\x05\xff", "takes none of our methods", True),
        ("", b"\x05\x02", "wants user and password", True),  # not offered
        ("", b"\x05\x01", "method 1", True),
        ("", b"HT", "does not speak SOCKS version 5", True),
        ("me", b"\x05\x02\x01\x01", "refuses user and password", True),
        ("", b"\x05\x00\x04\x00\x00\x01\x00", "version 4", True),
        ("", b"\x05\x00\x05\x05\x00\x01\x00", "connection refused", False),
        ("", b"\x05\x00\x05\x02\x00\x01\x00", "not allowed by ruleset", False),
        ("", b"\x05\x00\x05\x08\x00\x01\x00", "address type not supported", True),
        ("", b"\x05\x00\x05\x63\x00\x01\x00", "reply 99", False),
        ("", b"\x05\x00\x05\x00\x00\x02\x00", "address type 2", True),
        ("", b"\x05\x00\x05\x00", "closed the connection", True),
    ],
)
def test_refusals_say_whether_they_are_about_us(user: str, answers: bytes, text: str, *, is_of_proxy: bool) -> None:
    with pytest.raises(Socks5Error, match=text) as refused:
        play(Socks5("192.0.2.1", 25, user, "pw" if user else ""), answers, 1)
    assert refused.value.is_of_proxy == is_of_proxy
