"""From the queue into Maildirs."""

from __future__ import annotations

import asyncio
import os
import pathlib

from outbound.outgoing import MESSAGE, on_uvloop, outgoing, until

from angarium.model.plan import Site


def maildir_site(root: pathlib.Path) -> dict[bytes, Site]:
    path = str(root / "{domain}" / "{local}")
    return {b"*": Site(f"maildir:{path}", "maildir", (), path)}


def delivered(root: pathlib.Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in root.glob("*/*/new/*"))


@on_uvloop
async def test_messages_reach_their_maildirs(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "mail"
    async with outgoing(tmp_path, maildir_site(root)) as relay:
        await asyncio.gather(*(relay.send([b"u%d@y.example" % (i % 5), b"all@y.example"]) for i in range(40)))
        outcomes = await relay.outcomes(80)
        assert {event["event"] for event in outcomes} == {"delivered"}
        assert len(os.listdir(root / "y.example" / "all" / "new")) == 40
        assert len(os.listdir(root / "y.example" / "u0" / "new")) == 8
        (one, *_) = (root / "y.example" / "u0" / "new").iterdir()
        assert one.read_bytes() == (
            b"Return-Path: <a@x.example>\nDelivered-To: u0@y.example\n" + MESSAGE.replace(b"\r\n", b"\n")
        )


@on_uvloop
async def test_a_message_that_left_memory_is_read_back(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "mail"
    async with outgoing(tmp_path, maildir_site(root), hot_limit_octets=0) as relay:
        body = b"Subject: long\r\n\r\n" + b"".join(b"%06d\r\n" % i for i in range(100_000))
        await relay.send(b"b@y.example", body)
        await relay.outcomes(1)
        (content,) = delivered(root)
        assert content.endswith(body.replace(b"\r\n", b"\n"))


@on_uvloop
async def test_a_loop_fails_for_that_recipient(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "mail"
    async with outgoing(tmp_path, maildir_site(root)) as relay:
        await relay.send([b"b@y.example", b"c@y.example"], b"Delivered-To: b@y.example\r\n" + MESSAGE)
        told = {event["to"]: (event["event"], event.get("status")) for event in await relay.outcomes(2)}
        assert told["b@y.example"] == ("failed", "5.4.6")
        assert told["c@y.example"][0] == "delivered"
        assert len(delivered(root)) == 1


@on_uvloop
async def test_what_cannot_be_written_waits(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "mail"
    root.mkdir()
    (root / "y.example").write_text("in the way")
    async with outgoing(tmp_path, maildir_site(root)) as relay:
        await relay.send(b"b@y.example")
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.3.5")


@on_uvloop
async def test_draining_waits_for_files_under_way(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "mail"
    async with outgoing(tmp_path, maildir_site(root)) as relay:
        await asyncio.gather(*(relay.send(b"u@y.example") for i in range(60)))
        await until(lambda: relay.events("delivered"))
        assert await relay.maildirs.drain(20.0)
        assert len(delivered(root)) == len(relay.events("delivered"))
        assert relay.maildirs.in_hand == 0
