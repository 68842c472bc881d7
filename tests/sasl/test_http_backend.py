"""An HTTP endpoint that knows credentials: the documented question, its answers, and everything that is neither."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from inbound.intake_harness import run

from angarium.model.units import decode_unit
from angarium.sasl.backend import Peer
from angarium.sasl.http_backend import HttpBackend
from angarium.sasl.options import AuthOptions, CredentialSource
from angarium.sasl.steps import Accepted, Challenge, Refused, Unavailable


class NoTls:
    def channel_binding(self, kind: str) -> bytes | None:
        return None

    def peer_certificate_identity(self) -> str | None:
        return "alice@example.net"


class Open:
    def admit(self, identity: str) -> None:
        pass

    def give_back(self) -> None:
        pass


PEER = Peer(NoTls(), "192.0.2.1", True, False)
Answer = Callable[[dict[str, Any]], bytes]


def ok(content: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()


@contextlib.asynccontextmanager
async def endpoint(answer: Answer) -> AsyncIterator[tuple[HttpBackend, list[dict[str, Any]]]]:
    questions: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /auth?x=1 HTTP/1.1\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        questions.append(json.loads(await reader.readexactly(length)))
        writer.write(answer(questions[-1]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield HttpBackend(f"http://127.0.0.1:{port}/auth?x=1"), questions
    finally:
        server.close()


def ask(answer: Answer, mechanism: str, initial: bytes) -> tuple[Any, list[dict[str, Any]]]:
    async def main() -> None:
        async with endpoint(answer) as (backend, questions):
            outcome.append(await backend.begin(mechanism, PEER, Open()).respond(initial))
            outcome.append(questions)

    outcome: list[Any] = []
    run(main())
    return outcome[0], outcome[1]


def test_a_password_is_asked_about_as_documented() -> None:
    outcome, questions = ask(lambda _: ok('{"ok": true}'), "PLAIN", b"\0alice@example.net\0secret")
    assert outcome == Accepted("alice@example.net")
    assert questions == [
        {
            "mechanism": "password", "client": "192.0.2.1", "secure": True,
            "identity": "alice@example.net", "password": "secret",
        }
    ]  # fmt: skip


def test_the_answer_may_name_another_identity_for_a_password() -> None:
    outcome, _ = ask(lambda _: ok('{"ok": true, "identity": "alice"}'), "PLAIN", b"\0ALICE\0secret")
    assert outcome == Accepted("alice")


def test_no_is_no() -> None:
    outcome, _ = ask(lambda _: ok('{"ok": false, "identity": "alice"}'), "PLAIN", b"\0alice\0secret")
    assert outcome == Refused("bad-credentials", "alice")


def test_a_token_says_whose_it_is() -> None:
    """RFC 7628: without a name in the message the token alone decides; with one it must be the same."""
    whose: Answer = lambda _: ok('{"ok": true, "identity": "alice"}')  # noqa: E731
    outcome, questions = ask(whose, "OAUTHBEARER", b"n,,\x01auth=Bearer abc\x01\x01")
    assert outcome == Accepted("alice")
    assert (questions[0]["mechanism"], questions[0]["token"], questions[0]["identity"]) == ("token", "abc", "")
    outcome, _ = ask(whose, "XOAUTH2", b"user=bob\x01auth=Bearer abc\x01\x01")
    assert isinstance(outcome, Challenge), "the error; then 535"


def test_a_certificate_is_asked_about() -> None:
    outcome, questions = ask(lambda _: ok('{"ok": true}'), "EXTERNAL", b"")
    assert outcome == Accepted("alice@example.net")
    assert questions[0]["mechanism"] == "certificate"


@pytest.mark.parametrize(
    "answer",
    [
        ok("", "500 Internal Server Error"),
        ok('{"ok": true}', "403 Forbidden"),
        ok('{"ok": true}', "302 Found"),
        ok("yes"),
        ok("{}"),
        ok('{"ok": "true"}'),
        ok('{"ok": true, "identity": "a\\nb"}'),
        ok('{"ok": true, "identity": "' + "a" * 300 + '"}'),
        ok(" " * 20000 + '{"ok": true}'),
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"",
    ],
)
def test_anything_else_is_neither_yes_nor_no(answer: bytes) -> None:
    with pytest.raises(Unavailable):
        ask(lambda _: answer, "PLAIN", b"\0alice\0secret")


def test_nobody_listening_is_neither() -> None:
    async def main() -> None:
        with pytest.raises(Unavailable):
            await HttpBackend("http://127.0.0.1:1/").begin("PLAIN", PEER, Open()).respond(b"\0a\0b")

    run(main())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("file:/etc/credentials", "file"), ("dovecot:/run/auth", "dovecot"), ("https://a.example/x", "http"),
        ("http://127.0.0.1:80/x", "http"), ("http://[::1]:80/x", "http"), ("", ""),
    ],
)  # fmt: skip
def test_a_source_is_read(text: str, kind: str) -> None:
    assert CredentialSource.decode(text).kind == kind


@pytest.mark.parametrize(
    "text",
    ["file:x", "/etc/credentials", "http://192.0.2.1/x", "http://localhost/x", "https://", "https://u@h/", "ldap:x"],
)
def test_a_source_that_is_none_or_would_send_passwords_in_clear_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="expected"):
        msgspec.convert({"credentials": text}, AuthOptions, dec_hook=decode_unit)
