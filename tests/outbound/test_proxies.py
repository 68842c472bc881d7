"""Sources whose addresses a proxy has: SOCKS5 and PROXY headers, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import pathlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace

import pytest
from outbound.fault_server import fault_server
from outbound.outgoing import Outgoing, on_uvloop, smtp_site, until
from outbound.test_sources import SOURCES, relay_by, reload

from angarium.model.plan import Source
from angarium.model.units import Duration
from angarium.outbound import proxy_connect
from angarium.outbound.options import OutboundOptions
from angarium.queue.shaping_options import ShapingOptions
from angarium.routing.options import ProxyOptions, SourceOptions

SLOW = OutboundOptions(source_retry_first_s=3600, source_retry_max_s=3600, site_pause_first_s=0.1)


class Proxy:
    """Takes both kinds. reply: of CONNECT; password: the only one that is let in, None: nobody is asked.
    silent_at: where no answer comes, and the connection stays: "methods", "password" or "connect".
    silences: how often it has come to that."""

    def __init__(
        self, kind: str, *, reply: int = 0, password: bytes | None = None, silent_at: str = ""
    ) -> None:
        self.kind = kind
        self.silent_at = silent_at
        self.connections = 0
        self.silences = 0
        self.reply = reply
        self.password = password
        self.asked: list[tuple[str, str, int]] = []     # from, to, port
        self.pumps: set[asyncio.Task[None]] = set()

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            target = await (self.by_socks(reader, writer) if self.kind == "socks5" else self.by_header(reader))
            if target is not None:
                there, out = await asyncio.open_connection(*target, local_addr=("127.0.0.99", 0))
                if self.kind == "socks5":
                    # With the greeting in the same segment: none of it may be lost.
                    greeting = await there.readuntil(b"\n")
                    writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x63\x00\x01" + greeting)
                pump = asyncio.create_task(self.pump(there, writer))
                self.pumps.add(pump)
                await self.pump(reader, out)
        writer.close()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(65536):
                writer.write(octets)
        writer.close()

    async def by_socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        methods = await reader.readexactly((await reader.readexactly(2))[1])
        if self.silent_at == "methods":
            return await self.to_the_end(reader)
        if self.password is not None and 2 in methods:
            writer.write(b"\x05\x02")
            user = await reader.readexactly((await reader.readexactly(2))[1])
            given = await reader.readexactly((await reader.readexactly(1))[0])
            if self.silent_at == "password":
                return await self.to_the_end(reader)
            is_let_in = (user, given) == (b"me", self.password)
            writer.write(b"\x01\x00" if is_let_in else b"\x01\x01")
            if not is_let_in:
                return None
        elif self.password is not None:
            writer.write(b"\x05\xff")
            return None
        else:
            writer.write(b"\x05\x00")
        kind = (await reader.readexactly(4))[3]
        address = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(("", address, port))
        if self.silent_at == "connect":
            return await self.to_the_end(reader)
        if self.reply:
            writer.write(bytes((5, self.reply, 0, 1)) + bytes(6))
            return None
        return address, port

    async def to_the_end(self, reader: asyncio.StreamReader) -> None:
        self.silences += 1
        assert await reader.read() == b""

    async def by_header(self, reader: asyncio.StreamReader) -> tuple[str, int]:
        fixed = await reader.readexactly(16)
        assert fixed[:14] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
        block = await reader.readexactly(int.from_bytes(fixed[14:], "big"))
        source, to = str(ipaddress.ip_address(block[:4])), str(ipaddress.ip_address(block[4:8]))
        self.asked.append((source, to, int.from_bytes(block[10:12], "big")))
        return self.asked[-1][1:]


@contextlib.asynccontextmanager
async def running(proxy: Proxy, port: int = 0) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """Where no SYN is answered: as many wait to be accepted as may, and nobody accepts them."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        with socket.socket() as one_more, pytest.raises(TimeoutError):
            one_more.settimeout(0.05)
            one_more.connect(listener.getsockname())
        yield "{}:{}".format(*listener.getsockname())


def patience_by_hand(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The proxy's own time is over when the test calls what it gets: a silence is to be noticed, and nothing else that
    may take long."""
    limits: list[asyncio.Timeout] = []

    def timeout(delay_s: float) -> asyncio.Timeout:
        if delay_s != proxy_connect.PROXY_TIMEOUT_S:
            return asyncio.timeout(delay_s)
        limits.append(asyncio.timeout(None))
        return limits[-1]

    def end() -> None:
        for each in limits:
            with contextlib.suppress(RuntimeError):     # it has been kept
                each.reschedule(0)

    monkeypatch.setattr(proxy_connect, "asyncio", SimpleNamespace(timeout=timeout))
    return end


def source_by(proxy: Proxy, **options: str) -> SourceOptions:
    told = ProxyOptions(kind=proxy.kind, server=proxy.server, **options)  # type: ignore[arg-type]
    return SourceOptions(address="192.0.2.77", ehlo="far.example", proxy=told)


@pytest.mark.parametrize("kind", ["socks5", "haproxy"])
@on_uvloop
async def test_mail_leaves_by_the_proxy(tmp_path: pathlib.Path, kind: str) -> None:
    async with fault_server() as server, running(Proxy(kind)) as proxy:
        sources = {"far": source_by(proxy)}
        async with relay_by(tmp_path, server, {"default": {}}, sources=sources) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert (event["event"], event["source"]) == ("delivered", "far")
            assert server.peers == ["127.0.0.99"] and server.commands[0] == b"EHLO far.example"
            told = "192.0.2.77" if kind == "haproxy" else ""
            assert proxy.asked == [(told, "127.0.0.1", server.port)]


@on_uvloop
async def test_socks5_with_user_and_password(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, running(Proxy("socks5", password=b"secret")) as proxy:
        sources = {"far": source_by(proxy, user="me", password="secret")}
        async with relay_by(tmp_path, server, {"default": {}}, sources=sources) as relay:
            await relay.send(b"b@y.example")
            assert (await relay.outcomes(1))[0]["event"] == "delivered"


@on_uvloop
async def test_a_wrong_password_suspends_the_source_and_is_not_told(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, running(Proxy("socks5", password=b"secret")) as proxy:
        sources = {"far": source_by(proxy, user="me", password="hunter2"), "mail2": SOURCES["mail2"]}
        async with relay_by(tmp_path, server, {"default": {"far": 99, "mail2": 1}}, sources=sources) as relay:
            for _ in range(10):
                await relay.send(b"b@y.example")
            assert {event["source"] for event in await relay.outcomes(10)} == {"mail2"}
            (told,) = relay.events("source-suspended")
            assert told["reason"].endswith("refuses user and password")
            await until(lambda: relay.dispatcher.sources.shown()[0]["tries"] >= 2)
            assert not relay.events("source-resumed")
            assert "hunter2" not in relay.journal_path.read_text()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"user": "me", "password": "hunter2"}, {"user": "me", "password": "secret"}),
        ({}, {"user": "me", "password": "secret"}),
    ],
)
@on_uvloop
async def test_a_reload_with_the_right_password_brings_the_source_back(
    tmp_path: pathlib.Path, wrong: dict[str, str], right: dict[str, str]
) -> None:
    """It was tried for ever with the one that it had been suspended with."""
    async with fault_server() as server, running(Proxy("socks5", password=b"secret")) as proxy:
        sources = {"far": source_by(proxy, **wrong)}
        async with relay_by(tmp_path, server, {"default": {}}, sources=sources, settings=SLOW) as relay:
            await relay.send(b"b@y.example")
            assert (await relay.outcomes(1))[0]["status"] == "4.3.5"
            reload(relay, sources)                  # which changes nothing: no reason to look before it is time
            await asyncio.sleep(0.1)
            assert relay.dispatcher.sources.shown()[0]["tries"] == 0
            reload(relay, {"far": source_by(proxy, user="me", password="still wrong")})
            await until(lambda: relay.dispatcher.sources.shown()[0]["tries"] == 1)
            reload(relay, {"far": source_by(proxy, **right)})
            await until(lambda: relay.events("source-resumed"))
            await relay.send(b"c@y.example")
            assert (await relay.outcomes(2))[1]["event"] == "delivered"
            assert len(relay.events("source-suspended")) == 1


@on_uvloop
async def test_a_reload_with_the_right_kind_of_proxy_brings_the_source_back(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, running(Proxy("haproxy")) as proxy:
        sources = {"far": source_by(proxy)}
        wrong = {"far": SourceOptions(address="192.0.2.77", proxy=ProxyOptions(kind="socks5", server=proxy.server))}
        async with relay_by(tmp_path, server, {"default": {}}, sources=wrong, settings=SLOW) as relay:
            relay.dispatcher.sources.suspend(relay.scheduler.pool.default.only, proxy.server, "cannot be used")
            reload(relay, sources)
            await until(lambda: relay.events("source-resumed"))


@on_uvloop
async def test_what_was_begun_before_a_reload_says_nothing_of_the_source_as_it_is_now(tmp_path: pathlib.Path) -> None:
    """Neither a look that is under way nor a dial: their password is the old one."""
    async with fault_server() as server, running(Proxy("socks5", password=b"secret")) as proxy:
        before = {"far": source_by(proxy, user="me", password="hunter2")}
        after = {"far": source_by(proxy, user="me", password="secret")}
        async with relay_by(tmp_path, server, {"default": {}}, sources=before) as relay:
            watch = relay.dispatcher.sources
            look_at, looks = watch._look_at, []
            may_go_on = asyncio.Event()

            async def look(source: Source, address: str) -> None:
                looks.append(source)
                if len(looks) == 1:
                    await may_go_on.wait()
                await look_at(source, address)

            watch._look_at = look
            old = relay.scheduler.pool.default.only
            watch.suspend(old, proxy.server, "cannot be used")
            await until(lambda: looks)
            reload(relay, after)
            await until(lambda: relay.events("source-resumed"))
            watch.suspend(old, proxy.server, "cannot be used")
            assert not watch.shown()
            may_go_on.set()
            await asyncio.sleep(0.05)
            assert not watch.shown() and len(looks) == 2
            assert len(relay.events("source-suspended")) == 1


@on_uvloop
async def test_a_proxy_that_is_down_suspends_its_source_until_it_is_back(tmp_path: pathlib.Path) -> None:
    async with running(Proxy("haproxy")) as gone:
        port = gone.port
    async with fault_server() as server:
        sources = {"far": source_by(gone)}
        async with relay_by(tmp_path, server, {"default": {}}, sources=sources) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert (event["event"], event["status"]) == ("deferred", "4.3.5")
            assert event["reply"] == f"source far cannot be used: proxy 127.0.0.1:{port}: Connection refused"
            async with running(Proxy("haproxy"), port):
                await until(lambda: relay.events("source-resumed"))
                await relay.send(b"c@y.example")
                assert (await relay.outcomes(2))[1]["event"] == "delivered"


@on_uvloop
async def test_a_destination_that_the_proxy_cannot_reach_is_not_its_sources_fault(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, running(Proxy("socks5", reply=4)) as proxy:
        sources = {"far": source_by(proxy)}
        async with relay_by(tmp_path, server, {"default": {}}, sources=sources) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert (event["event"], event["status"]) == ("deferred", "4.4.1")
            assert event["reply"] == f"connection failed: by SOCKS5 proxy {proxy.server}: host unreachable"
            assert not relay.events("source-suspended")


async def deferred_for_the_source(relay: Outgoing, words: str) -> None:
    """The one message, and nothing is held against the site."""
    await relay.send(b"b@y.example")
    (event,) = await relay.outcomes(1)
    assert (event["event"], event["status"]) == ("deferred", "4.3.5")
    assert event["reply"] == f"source far cannot be used: {words}"
    (told,) = relay.events("source-suspended")
    assert told["reason"] == f"cannot be used: {words}"
    assert relay.dispatcher.dialer.broken == {}


# One is the proxy's own time, the other that of a destination: which of them is shorter makes no difference.
@pytest.mark.parametrize("connect_timeout_s", [0.05, 30])
@pytest.mark.parametrize("silent_at", ["methods", "password"])
@on_uvloop
async def test_a_proxy_that_says_nothing_suspends_its_source(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, silent_at: str, connect_timeout_s: float
) -> None:
    """It was the site's hosts that had timed out, and the source went on being drawn."""
    end_of_patience = patience_by_hand(monkeypatch)
    shaping = ShapingOptions(connect_timeout=Duration(connect_timeout_s))
    async with fault_server() as server, running(Proxy("socks5", password=b"secret", silent_at=silent_at)) as proxy:
        sources = {"far": source_by(proxy, user="me", password="secret")}
        site = smtp_site(server.port, server.port)
        async with relay_by(
            tmp_path, server, {"default": {}}, sources=sources, site=site, settings=SLOW, shaping=shaping
        ) as relay:
            words = f"SOCKS5 proxy {proxy.server} does not answer in time"
            deferred = asyncio.create_task(deferred_for_the_source(relay, words))
            await until(lambda: proxy.silences or deferred.done())
            end_of_patience()
            await deferred
            assert proxy.connections == 1           # nor is the next host tried by it
            proxy.silent_at = ""
            reload(relay, {"far": source_by(proxy, user="me", password="other")})
            await until(lambda: relay.dispatcher.sources.shown()[0]["tries"] == 1)
            reload(relay, sources)
            await until(lambda: relay.events("source-resumed"))


@pytest.mark.parametrize("connect_timeout_s", [0.05, 30])
@pytest.mark.parametrize("kind", ["socks5", "haproxy"])
@on_uvloop
async def test_a_proxy_in_a_black_hole_suspends_its_source(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str, connect_timeout_s: float
) -> None:
    monkeypatch.setattr(proxy_connect, "PROXY_TIMEOUT_S", 0.2)
    shaping = ShapingOptions(connect_timeout=Duration(connect_timeout_s))
    async with fault_server() as server:
        with black_hole() as nowhere:
            told = ProxyOptions(kind=kind, server=nowhere)  # type: ignore[arg-type]
            sources = {"far": SourceOptions(address="192.0.2.77", proxy=told)}
            async with relay_by(tmp_path, server, {"default": {}}, sources=sources, shaping=shaping) as relay:
                name = "SOCKS5 proxy" if kind == "socks5" else "proxy"
                await deferred_for_the_source(relay, f"{name} {nowhere}: no connection in time")
                await until(lambda: relay.dispatcher.sources.shown()[0]["tries"] >= 1)


@on_uvloop
async def test_mail_leaves_by_the_other_members_while_a_proxy_is_silent(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_connect, "PROXY_TIMEOUT_S", 0.1)
    async with fault_server() as server, running(Proxy("socks5", silent_at="methods")) as proxy:
        sources = {"far": source_by(proxy), "mail2": SOURCES["mail2"]}
        async with relay_by(tmp_path, server, {"default": {"far": 99, "mail2": 1}}, sources=sources) as relay:
            for _ in range(10):
                await relay.send(b"b@y.example")
            events = await relay.outcomes(10)
            assert {(each["event"], each["source"], each["attempt"]) for each in events} == {("delivered", "mail2", 1)}


@on_uvloop
async def test_a_destination_that_does_not_answer_behind_the_proxy_is_not_its_sources_fault(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy has let us in, and tries."""
    end_of_patience = patience_by_hand(monkeypatch)
    shaping = ShapingOptions(connect_timeout=Duration(0.3))
    async with fault_server() as server, running(Proxy("socks5", password=b"secret", silent_at="connect")) as proxy:
        sources = {"far": source_by(proxy, user="me", password="secret")}
        async with relay_by(tmp_path, server, {"default": {}}, sources=sources, shaping=shaping) as relay:
            await relay.send(b"b@y.example")
            await until(lambda: proxy.silences)
            end_of_patience()
            (event,) = await relay.outcomes(1)
            assert (event["event"], event["status"]) == ("deferred", "4.4.1")
            assert event["reply"] == "connecting timed out"
            assert not relay.events("source-suspended")
            assert list(relay.dispatcher.dialer.broken) == [("mx0.example.net", "127.0.0.1", server.port)]
