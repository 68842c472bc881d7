"""The client of policy services: kept connections, deadlines, and the default when there is no answer."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from inbound.intake_harness import run
from policy.policy_server import Question, policy_server

from angarium.events.journal import Journal
from angarium.model.units import Duration, decode_unit
from angarium.policy.delegation import Dunno, Refuse
from angarium.policy.options import ServiceOptions
from angarium.policy.service import PolicyService

DOWN = Refuse(b"450 4.7.1 Policy service not available, try again later\r\n")


class Log:
    """A journal whose lines can be read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self.journal = Journal(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))

    def reasons(self) -> list[str]:
        return [json.loads(line)["reason"] for line in self._path.read_text().splitlines()]


def service_at(address: str, log: Log, **options: Any) -> PolicyService:
    made = msgspec.convert({"address": address, **options}, ServiceOptions, dec_hook=decode_unit)
    return PolicyService(made, asyncio.get_running_loop(), log.journal)


@pytest.mark.parametrize("is_unix", [False, True], ids=["inet", "unix"])
def test_a_connection_is_kept_and_used_again(tmp_path: Path, is_unix: bool) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket") if is_unix else None
        async with policy_server(lambda _: b"action=DUNNO\n\n", path) as (server, address):
            service = service_at(address, Log(tmp_path))
            for number in range(5):
                assert await service.ask({"sender": str(number)}) == Dunno()
            assert server.connections == 1
            assert [each["sender"] for each in server.questions] == ["0", "1", "2", "3", "4"]
            assert server.questions[0]["request"] == "smtpd_access_policy"
            service.close()

    run(main())


def test_questions_at_once_take_connections_of_their_own_up_to_the_limit(tmp_path: Path) -> None:
    async def main() -> None:
        async with policy_server(lambda _: b"action=DUNNO\n\n") as (server, address):
            service = service_at(address, Log(tmp_path), connections=3)
            await asyncio.gather(*(service.ask({"sender": str(number)}) for number in range(30)))
            assert server.connections <= 3
            assert len(server.questions) == 30
            service.close()

    run(main())


def test_a_kept_connection_that_was_closed_meanwhile_costs_no_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with policy_server(lambda _: b"action=DUNNO\n\n") as (server, address):
            log = Log(tmp_path)
            service = service_at(address, log)
            assert await service.ask({}) == Dunno()
            for writer in list(server.open):
                writer.transport.abort()
            assert await service.ask({}) == Dunno()
            assert server.connections == 2
            assert log.reasons() == []
            service.close()

    run(main())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: None, "no answer within 100ms"),
        (lambda _: b"", "0 bytes read"),
        (lambda _: b"nothing=1\n\n", 'an answer without "action="'),
        (lambda _: b"x" * 20_000, "chunk"),
    ],
    ids=["silent", "closes", "nonsense", "endless"],
)
def test_no_answer_is_the_default_and_the_connection_is_not_kept(
    tmp_path: Path, answer: Callable[[Question], bytes | None], reason: str
) -> None:
    async def main() -> None:
        async with policy_server(answer) as (server, address):
            log = Log(tmp_path)
            service = service_at(address, log, timeout="100ms" if answer({}) is None else "20s")
            assert await service.ask({}) == DOWN
            assert reason in log.reasons()[0]
            server.answer = lambda _: b"action=DUNNO\n\n"
            service.options = msgspec.structs.replace(service.options, timeout=Duration(20))
            assert await service.ask({}) == Dunno()
            assert server.connections == 2
            service.close()

    run(main())


def test_a_server_that_is_not_there_is_the_default(tmp_path: Path) -> None:
    async def main() -> None:
        log = Log(tmp_path)
        service = service_at(f"unix:{tmp_path}/none", log, default="DUNNO")
        assert await service.ask({}) == Dunno()
        assert log.reasons() == ["No such file or directory"]
        service.close()

    run(main())


def test_an_idle_connection_is_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with policy_server(lambda _: b"action=DUNNO\n\n") as (server, address):
            service = service_at(address, Log(tmp_path), idle_time="10ms")
            await service.ask({})
            async with asyncio.timeout(20):
                while server.open:
                    await asyncio.sleep(0.002)
            service.close()

    run(main())
