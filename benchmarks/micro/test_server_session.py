"""The server session alone: one message of 4 KiB as most clients send it, without socket, policy or disk.

What it does not show: system calls, the loop, the spool. Run with `pytest benchmarks/micro -n 0`.
"""

from __future__ import annotations

from typing import Any

from angarium.smtp import server_events
from angarium.smtp.server_session import ServerSession
from angarium.smtp.server_settings import ServerSettings

SETTINGS = ServerSettings("mx.test.example")
ENVELOPE = b"MAIL FROM:<a@x.example> SIZE=4096 BODY=8BITMIME\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
LINES = (b"x" * 78 + b"\r\n") * 51
MESSAGE = b"Subject: benchmark\r\n\r\n" + LINES + b".\r\n"
GROUP = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRSET\r\n"
QUEUED = b"250 2.0.0 Ok: queued as 0000000000000\r\n"


def greeted() -> ServerSession:
    session = ServerSession(SETTINGS)
    session.greet()
    session.receive(b"EHLO client.example\r\n")
    session.next_event()
    session.take_output()
    return session


def answer_all(session: ServerSession) -> None:
    while (event := session.next_event()) is not None:
        if isinstance(event, server_events.Mail | server_events.Rcpt):
            session.accept()
        elif isinstance(event, server_events.Data):
            session.begin_data()
        elif isinstance(event, server_events.Message):
            session.take_body()
            session.finish(QUEUED)


def test_message_of_4_kib(benchmark: Any) -> None:
    session = greeted()

    def message() -> bytes:
        session.receive(ENVELOPE)
        answer_all(session)
        session.receive(MESSAGE)
        answer_all(session)
        return session.take_output()

    assert benchmark(message).endswith(QUEUED)


def test_group_of_three_commands(benchmark: Any) -> None:
    session = greeted()

    def group() -> bytes:
        session.receive(GROUP)
        answer_all(session)
        return session.take_output()

    assert benchmark(group).count(b"\r\n") == 3


def test_100_kib_of_message_data(benchmark: Any) -> None:
    session = greeted()
    message = LINES * 25 + b".\r\n"

    def data() -> bytes:
        session.receive(ENVELOPE)
        answer_all(session)
        session.receive(message)
        answer_all(session)
        return session.take_output()

    assert benchmark(data).endswith(QUEUED)
