"""Dovecot's protocol against a server of the tests' own that misbehaves; the real one is in tests/interop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from inbound.intake_harness import run

from angarium.sasl.backend import Peer
from angarium.sasl.dovecot import DovecotBackend
from angarium.sasl.steps import Accepted, Challenge, Refused, Unavailable

HELLO = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nMECH\tGSSAPI\nSPID\t1\nCUID\t2\nDONE\n"


class NoTls:
    def channel_binding(self, kind: str) -> bytes | None:
        return None

    def peer_certificate_identity(self) -> str | None:
        return None


class Open:
    def admit(self, identity: str) -> None:
        pass

    def give_back(self) -> None:
        pass


PEER = Peer(NoTls(), "192.0.2.1", True, False)
Answer = Callable[[list[str]], str]


@contextlib.asynccontextmanager
async def dovecot(folder: Path, answer: Answer, hello: str = HELLO) -> AsyncIterator[tuple[DovecotBackend, list[str]]]:
    said: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(hello.encode())
        while line := (await reader.readline()).decode():
            said.append(line)
            fields = line.rstrip("\n").split("\t")
            if fields[0] in ("AUTH", "CONT"):
                reply = answer(fields)
                if not reply:
                    break
                writer.write(reply.encode())
        writer.close()

    server = await asyncio.start_unix_server(serve, str(folder / "auth"))
    backend = DovecotBackend(str(folder / "auth"))
    try:
        yield backend, said
    finally:
        backend.close()
        server.close()


def test_a_request_is_one_line_with_what_dovecot_wants_to_know(tmp_path: Path) -> None:
    async def main() -> None:
        async with dovecot(tmp_path, lambda fields: f"OK\t{fields[1]}\tuser=alice\n") as (backend, said):
            assert await backend.begin("PLAIN", PEER, Open()).respond(b"\0alice\0x") == Accepted("alice")
            assert backend.mechanisms == {"PLAIN", "LOGIN"}
            assert said[0] == "VERSION\t1\t1\n"
            assert said[2] == "AUTH\t1\tPLAIN\tservice=smtp\trip=192.0.2.1\tsecured\tresp=AGFsaWNlAHg=\n"

    run(main())


def test_challenges_go_through(tmp_path: Path) -> None:
    def answer(fields: list[str]) -> str:
        number = fields[1]
        return f"CONT\t{number}\tUGFzc3dvcmQ6\n" if fields[0] == "AUTH" else f"FAIL\t{number}\tuser=alice\n"

    async def main() -> None:
        async with dovecot(tmp_path, answer) as (backend, said):
            conversation = backend.begin("LOGIN", PEER, Open())
            assert await conversation.respond(None) == Challenge(b"Password:")
            assert await conversation.respond(b"x") == Refused("bad-credentials", "alice")
            assert said[-1] == "CONT\t1\teA==\n"

    run(main())


@pytest.mark.parametrize(
    "reply",
    [
        "FAIL\t{0}\tuser=alice\ttemp\n", "OK\t{0}\n", "OK\t{0}\tuser=\n", "OK\t{0}\tuser=a\x01b\n",
        "CONT\t{0}\tno base64!\n", "",
    ],
)  # fmt: skip
def test_what_is_neither_yes_nor_no(reply: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with dovecot(tmp_path, lambda fields: reply.format(fields[1])) as (backend, _):
            with pytest.raises(Unavailable):
                await backend.begin("PLAIN", PEER, Open()).respond(b"\0alice\0x")

    run(main())


@pytest.mark.parametrize("hello", ["VERSION\t2\t0\nDONE\n", "x" * 40000, "MECH\tPLAIN\n\xff\n" * 3000])
def test_a_server_that_is_no_dovecot(hello: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with dovecot(tmp_path, lambda _: "", hello) as (backend, _):
            with pytest.raises((Unavailable, TimeoutError)):
                async with asyncio.timeout(2):
                    await backend.begin("PLAIN", PEER, Open()).respond(b"\0alice\0x")

    run(main())


def test_a_lost_connection_is_made_again(tmp_path: Path) -> None:
    replies = ["", "OK\t{0}\tuser=alice\n"]

    async def main() -> None:
        async with dovecot(tmp_path, lambda fields: replies.pop(0).format(fields[1])) as (backend, _):
            with pytest.raises(Unavailable):
                await backend.begin("PLAIN", PEER, Open()).respond(b"\0alice\0x")
            assert await backend.begin("PLAIN", PEER, Open()).respond(b"\0alice\0x") == Accepted("alice")

    run(main())


def test_answers_find_their_requests_whatever_their_order(tmp_path: Path) -> None:
    waiting: list[str] = []

    def answer(fields: list[str]) -> str:
        waiting.append(fields[1])
        if len(waiting) < 3:
            return "SPID\t1\n"  # nothing for anybody
        return "".join(f"OK\t{number}\tuser=u{number}\n" for number in reversed(waiting))

    async def main() -> None:
        async with dovecot(tmp_path, answer) as (backend, _):
            conversations = [backend.begin("PLAIN", PEER, Open()).respond(b"\0a\0b") for _ in range(3)]
            assert await asyncio.gather(*conversations) == [Accepted("u1"), Accepted("u2"), Accepted("u3")]

    run(main())


def test_a_response_that_is_longer_than_dovecot_takes_costs_nobody_his_connection(tmp_path: Path) -> None:
    """Behind a line of over 8192 octets Dovecot hangs up: all who were being judged had no answer, and no failure."""

    async def main() -> None:
        async with dovecot(tmp_path, lambda fields: f"OK\t{fields[1]}\tuser=alice\n") as (backend, said):
            with pytest.raises(Unavailable, match="longer"):
                await backend.begin("PLAIN", PEER, Open()).respond(b"\0alice\0" + b"x" * 7000)
            assert not any(line.startswith("AUTH") for line in said)
            assert await backend.begin("PLAIN", PEER, Open()).respond(b"\0alice\0x") == Accepted("alice")

    run(main())
