"""LMTP to next hops (RFC 2033): over TCP and unix sockets, with a reply for each recipient."""

from __future__ import annotations

import asyncio
import pathlib

from outbound.fault_server import CLOSE, Fault, fault_server
from outbound.outgoing import ONE_CONNECTION, on_uvloop, outgoing, smtp_site

from angarium.model.plan import Site


@on_uvloop
async def test_lmtp_over_tcp_with_a_reply_for_each(tmp_path: pathlib.Path) -> None:
    def by_name(rcpt: bytes) -> Fault:
        return b"452 4.2.2 full\r\n" if b"full" in rcpt else None

    async with fault_server(is_lmtp=True, faults={"END": by_name}) as server:
        site = smtp_site(server.port, protocol="lmtp")
        async with outgoing(tmp_path, {b"*": site}, shaping=ONE_CONNECTION) as relay:
            await asyncio.gather(
                *(relay.send([b"a@y.example", b"full@y.example", b"c@y.example"]) for _ in range(5))
            )
            outcomes = await relay.outcomes(15)
            assert sum(event["event"] == "delivered" for event in outcomes) == 10
            assert {event["to"] for event in outcomes if event["event"] == "deferred"} == {"full@y.example"}
            assert server.commands[0].startswith(b"LHLO ")
            assert server.connections == 1


@on_uvloop
async def test_lmtp_over_a_unix_socket(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lmtp.sock")
    async with fault_server(is_lmtp=True, path=path) as server:
        site = Site(f"lmtp+unix:{path}", "lmtp+unix", (), path)
        async with outgoing(tmp_path, {b"*": site}) as relay:
            await relay.send([b"a@y.example", b"b@y.example"])
            outcomes = await relay.outcomes(2)
            assert {event["event"] for event in outcomes} == {"delivered"}
            assert outcomes[0]["remote"] == path
            assert len(server.received) == 1


@on_uvloop
async def test_lmtp_socket_that_is_not_there(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "nobody.sock")
    async with outgoing(tmp_path, {b"*": Site(f"lmtp+unix:{path}", "lmtp+unix", (), path)}) as relay:
        await relay.send(b"a@y.example")
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.4.1")


@on_uvloop
async def test_lmtp_connection_lost_between_two_replies(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(is_lmtp=True, faults={"END": [None, CLOSE]}) as server,
        outgoing(tmp_path, {b"*": smtp_site(server.port, protocol="lmtp")}) as relay,
    ):
        await relay.send([b"a@y.example", b"b@y.example", b"c@y.example"])
        told = {event["to"]: event["event"] for event in await relay.outcomes(3)}
        assert told == {"a@y.example": "delivered", "b@y.example": "deferred", "c@y.example": "deferred"}
