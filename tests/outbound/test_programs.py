"""Against servers that others wrote: Postfix's smtp-sink with its faults, and aiosmtpd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from outbound.outgoing import on_uvloop, outgoing, smtp_site, until

from angarium.outbound.options import OutboundOptions
from angarium.queue.shaping_options import ShapingOptions

SMTP_SINK = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
needs_sink = pytest.mark.skipif(not os.path.exists(SMTP_SINK), reason="Debian's postfix is not installed")


# smtp-sink cannot tell a port of its own choice. An address of its own keeps it from other test processes.
ADDRESS = "127." + ".".join(map(str, os.getpid().to_bytes(3, "big")))


@contextlib.contextmanager
def smtp_sink(*options: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port = probe.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    sink = subprocess.Popen(
        [SMTP_SINK, *user, *options, f"{ADDRESS}:{port}", "1000"], stdout=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection((ADDRESS, port), 1):
                break
            assert sink.poll() is None, "smtp-sink did not start"
            assert time.monotonic() < end, "smtp-sink does not listen"
            time.sleep(0.01)
        yield port
    finally:
        sink.terminate()
        sink.wait()


async def kinds_after(directory: pathlib.Path, port: int, count: int, **shaping: Any) -> list[str]:
    options = OutboundOptions(site_pause_first_s=0.1)
    async with outgoing(
        directory,
        {b"*": smtp_site(port, address=ADDRESS)},
        options=options,
        shaping=ShapingOptions(**shaping),
    ) as relay:
        await asyncio.gather(
            *(
                relay.send(b"r%d@y.example" % i, b"Subject: x\r\n\r\n" + b"x" * 70 * i + b"\r\n")
                for i in range(count)
            )
        )
        return [event["event"] for event in await relay.outcomes(count)]


@needs_sink
@pytest.mark.parametrize("options", [(), ("-e",), ("-p",), ("-8",), ("-L",), ("-v",)], ids=str)
@on_uvloop
async def test_smtp_sink_takes_everything(tmp_path: pathlib.Path, options: tuple[str, ...]) -> None:
    """-e: HELO only; -p: no PIPELINING; -8: no 8BITMIME; -L: LMTP is tested below; -v: talkative."""
    if options == ("-L",):
        with smtp_sink("-L") as port:
            site = smtp_site(port, protocol="lmtp", address=ADDRESS)
            async with outgoing(tmp_path, {b"*": site}) as relay:
                await asyncio.gather(*(relay.send([b"a@y", b"b@y", b"c@y"]) for _ in range(30)))
                assert {event["event"] for event in await relay.outcomes(90)} == {"delivered"}
        return
    with smtp_sink(*options) as port:
        assert set(await kinds_after(tmp_path, port, 100)) == {"delivered"}


@needs_sink
@pytest.mark.parametrize("command", ["mail", "rcpt", "data", ".", "rset"])
@pytest.mark.parametrize("option", ["-r", "-f"])
@on_uvloop
async def test_smtp_sink_refuses(tmp_path: pathlib.Path, option: str, command: str) -> None:
    """-r: 4xx replies to this command, -f: 5xx."""
    expected = "delivered" if command == "rset" else "deferred" if option == "-r" else "failed"
    with smtp_sink(option, command) as port:
        assert set(await kinds_after(tmp_path, port, 20)) == {expected}


@needs_sink
@pytest.mark.parametrize("command", ["mail", "rcpt", "data", "."])
@on_uvloop
async def test_smtp_sink_hangs_up(tmp_path: pathlib.Path, command: str) -> None:
    """-q: drops the connection behind this command."""
    with smtp_sink("-q", command) as port:
        options = OutboundOptions(site_pause_first_s=0.02, site_pause_max_s=0.02)
        async with outgoing(tmp_path, {b"*": smtp_site(port, address=ADDRESS)}, options=options) as relay:
            await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(10)))
            assert {event["event"] for event in await relay.outcomes(10)} == {"deferred"}


@needs_sink
@pytest.mark.parametrize("command", ["connect", "ehlo,helo"])
@on_uvloop
async def test_smtp_sink_will_not_talk(tmp_path: pathlib.Path, command: str) -> None:
    with smtp_sink("-r", command) as port:
        options = OutboundOptions(site_pause_first_s=60)
        async with outgoing(tmp_path, {b"*": smtp_site(port, address=ADDRESS)}, options=options) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "deferred"


@needs_sink
@on_uvloop
async def test_smtp_sink_is_slow(tmp_path: pathlib.Path) -> None:
    """-W: a pause before the reply to DATA; several connections are used then."""
    with smtp_sink("-W", "data:1") as port:
        async with outgoing(
            tmp_path, {b"*": smtp_site(port, address=ADDRESS)}, shaping=ShapingOptions(connections=8)
        ) as relay:
            await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(8)))
            assert {event["event"] for event in await relay.outcomes(8)} == {"delivered"}


@needs_sink
@on_uvloop
async def test_smtp_sink_dies_in_the_middle(tmp_path: pathlib.Path) -> None:
    """What had its reply is delivered, what had not waits, and nothing hangs."""
    options = OutboundOptions(site_pause_first_s=0.05)
    stack = contextlib.ExitStack()
    port = stack.enter_context(smtp_sink("-W", "data:1:20"))
    async with outgoing(tmp_path, {b"*": smtp_site(port, address=ADDRESS)}, options=options) as relay:
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(200)))
        await until(lambda: len(relay.events("delivered")) >= 20)
        stack.close()
        outcomes = await relay.outcomes(200)
        assert {event["event"] for event in outcomes} == {"delivered", "deferred"}
        assert all(event["status"][:4] == "4.4." for event in outcomes if event["event"] == "deferred")


def aiosmtpd_controller(handler: Any, **settings: Any) -> Any:
    from aiosmtpd.controller import Controller

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Controller(handler, hostname="127.0.0.1", port=port, **settings)


class Keep:
    def __init__(self) -> None:
        self.envelopes: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 kept"


@on_uvloop
async def test_aiosmtpd_takes_messages_unchanged(tmp_path: pathlib.Path) -> None:
    keep = Keep()
    controller = aiosmtpd_controller(keep, enable_SMTPUTF8=True)
    controller.start()
    try:
        bodies = [b"Subject: %d\r\n\r\n.\r\n..\r\n%b\r\n" % (i, "ü".encode() * i) for i in range(20)]
        async with outgoing(tmp_path, {b"*": smtp_site(controller.port)}) as relay:
            for body in bodies:
                await relay.send(["ü@y.example".encode(), b"b@y.example"], body, flags=1 | 2 | 8)
            assert {event["event"] for event in await relay.outcomes(40)} == {"delivered"}
        assert sorted(envelope.original_content for envelope in keep.envelopes) == sorted(bodies)
        assert all(
            envelope.mail_options == [f"SIZE={len(envelope.original_content)}", "BODY=8BITMIME", "SMTPUTF8"]
            for envelope in keep.envelopes
        )
    finally:
        controller.stop()


@on_uvloop
async def test_aiosmtpd_as_lmtp(tmp_path: pathlib.Path) -> None:
    from aiosmtpd.controller import Controller
    from aiosmtpd.lmtp import LMTP

    keep = Keep()

    class LmtpController(Controller):
        def factory(self) -> LMTP:
            return LMTP(self.handler)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = LmtpController(keep, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        async with outgoing(tmp_path, {b"*": smtp_site(port, protocol="lmtp")}) as relay:
            for _ in range(5):
                await relay.send(
                    b"b@y.example"
                )  # one recipient each: aiosmtpd answers once whatever their number
            assert {event["event"] for event in await relay.outcomes(5)} == {"delivered"}
        assert len(keep.envelopes) == 5
    finally:
        controller.stop()
