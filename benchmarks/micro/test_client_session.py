"""The client session alone: the replies to a body and to the next MAIL, RCPT and DATA, as under load.

What it does not show: system calls, the loop, the queue. Run with `pytest benchmarks/micro -n 0`.
"""

from __future__ import annotations

from typing import Any

from angarium.smtp.client_session import ClientSession

REPLIES = (
    b"250 2.0.0 Ok: queued as 3F2A81\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
    b"354 End data with <CR><LF>.<CR><LF>\r\n"
)
MESSAGE = b"Subject: benchmark\r\n\r\n" + (b"x" * 78 + b"\r\n") * 51


def in_mid_load() -> tuple[ClientSession, int]:
    session = ClientSession(b"relay.example.org")
    session.receive(b"220 mx.test ESMTP\r\n250-mx.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n")
    slot = session.start(b"a@x.example", [b"b@y.example"], message_octets=4096)
    session.receive(REPLIES.partition(b"\r\n")[2])
    return session, slot


def test_one_message_in_one_round_trip(benchmark: Any) -> None:
    session, slot = in_mid_load()

    def message() -> None:
        nonlocal slot
        session.send_body(slot, MESSAGE)
        slot = session.start(b"a@x.example", [b"b@y.example"], message_octets=4096)
        session.take_output()
        events = session.receive(REPLIES)
        assert len(events) == 2

    benchmark(message)


def test_replies_alone(benchmark: Any) -> None:
    session, slot = in_mid_load()

    def prepare() -> tuple[tuple[bytes], dict[str, Any]]:
        nonlocal slot
        session.send_body(slot, b"")
        slot = session.start(b"a@x.example", [b"b@y.example"])
        session.take_output()
        return (REPLIES,), {}

    benchmark.pedantic(session.receive, setup=prepare, rounds=2000)


def test_group_of_a_hundred_recipients(benchmark: Any) -> None:
    session = ClientSession(b"relay.example.org")
    session.receive(b"220 mx.test ESMTP\r\n250-mx.test\r\n250-PIPELINING\r\n250 SIZE\r\n")
    session.take_output()
    replies = b"250 2.1.0 Ok\r\n" + b"250 2.1.5 Ok\r\n" * 100 + b"354 go\r\n"
    recipients = [b"recipient-%d@y.example" % number for number in range(100)]

    def group() -> None:
        slot = session.start(b"a@x.example", recipients)
        session.receive(replies)
        session.send_body(slot, MESSAGE)
        session.receive(b"250 2.0.0 Ok\r\n")
        session.take_output()

    benchmark(group)
