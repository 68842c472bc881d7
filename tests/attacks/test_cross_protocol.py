"""Browsers and web servers made to post to port 25: nothing behind what is HTTP is a command, however it arrives."""

from __future__ import annotations

import pytest
from smtp.server_dialogue import Dialogue

from angarium.smtp import server_events
from angarium.smtp.server_settings import ServerSettings

MAIL = (
    b"EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
    b"Subject: x\r\n\r\nspam\r\n.\r\nQUIT\r\n"
)
HEAD = b"Host: mx.test.example:25\r\nContent-Type: text/plain\r\nContent-Length: 130\r\n\r\n"
FIRST = [
    *(method + b" / HTTP/1.1\r\n" for method in (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH")),
    b"post / http/1.0\r\n",
    b"TRACE / HTTP/1.1\r\n",
    b"CONNECT mx.test.example:25 HTTP/1.1\r\n",
    b"POST /%0D%0AEHLO%20c.example HTTP/1.1\r\n",
    b"GET /\r\n",
    *(method + b" / HTTP/1.1\r\n" for method in (b"LINK", b"PROPFIND", b"REPORT", b"M-SEARCH", b"NOOP", b"x")),
    b"PRI * HTTP/2.0\r\n",
    b"PROPFIND /" + b"x" * 480 + b" HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client's hello, which may hold lines
    b"\x16\x03\x01\x02\x00\r\n",
]


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("way", ["at once", "by lines", "by octets"])
def test_nothing_behind_a_request_is_a_command(first: bytes, way: str) -> None:
    octets = first + HEAD + MAIL
    dialogue = Dialogue(ServerSettings("mx.test.example"))
    dialogue.greet()
    if way == "at once":
        dialogue.feed(octets)
    else:
        pieces = octets.splitlines(keepends=True) if way == "by lines" else [bytes([octet]) for octet in octets]
        for piece in pieces:
            dialogue.feed(piece)
    assert dialogue.session.is_closed
    assert {type(event) for event in dialogue.events} == {server_events.Refused, server_events.Close}
    assert dialogue.output.count(b"\r\n") == 2, "the greeting and one reply"
    assert not dialogue.messages


METHODS = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",         # RFC 9110, RFC 5789
    "PRI", "LINK", "UNLINK", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH",
    "ACL", "BIND", "CHECKIN", "MKCALENDAR", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "QUERY", "anything",
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_request_line_alone_ends_the_session_wherever_it_is_cut(method: str) -> None:
    """Nothing was sent behind it that would: a client that waits for its answer."""
    for version in ("HTTP/1.1", "HTTP/1.0", "HTTP/2"):
        line = f"{method} /x {version}\r\n".encode()
        for cut in range(len(line)):
            dialogue = Dialogue(ServerSettings("mx.test.example"))
            dialogue.greet()
            for piece in (line[:cut], line[cut:]):
                if piece:
                    dialogue.feed(piece)
            assert dialogue.session.is_closed, (line, cut)
            assert dialogue.output.endswith(b"\r\n502 5.5.1 This is an SMTP server, not HTTP\r\n"), (line, cut)
            assert dialogue.output.count(b"\r\n") == 2


@pytest.mark.parametrize("line", [b"NOOP HTTP/1.1 x", b"NOOP", b"HELP", b"VRFY HTTP", b"LINK / HTTP/1.", b"LINK /"])
def test_what_is_no_request_line_leaves_the_session_open(line: bytes) -> None:
    dialogue = Dialogue(ServerSettings("mx.test.example"))
    dialogue.greet()
    dialogue.feed(line + b"\r\n")
    assert not dialogue.session.is_closed


def test_a_request_behind_ehlo_ends_the_session_too() -> None:
    """Header injection: a web application that puts a user's line into a dialogue of its own."""
    dialogue = Dialogue(ServerSettings("mx.test.example"))
    dialogue.greet()
    dialogue.feed(b"EHLO c.example\r\n")
    dialogue.feed(b"POST / HTTP/1.1\r\n" + HEAD + MAIL)
    assert dialogue.session.is_closed
    assert not any(isinstance(event, server_events.Mail) for event in dialogue.events)
