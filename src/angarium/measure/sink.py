"""An SMTP and LMTP server that swallows mail, counts it, and misbehaves as told. An instrument: it stores
nothing.

Deliberately not made of the package's own sessions: it is the peer they are measured and tested against. The
dialogue is in sink_session.py; here are sockets, timers, TLS and counters.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import cast

import msgspec

from angarium.measure.receivers import Receivers
from angarium.measure.recording import FLUSH_S, Maildir, Received, Record, field_body
from angarium.measure.sink_session import Session

HANDSHAKE_S = 30.0


class Statistics(msgspec.Struct):
    """Counters of a sink. octets: of message data as it came, dot-stuffing included, terminator not."""

    connections: int = 0
    open: int = 0
    peak_open: int = 0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    failed_handshakes: int = 0
    commands: Counter[str] = msgspec.field(default_factory=Counter)
    replies: Counter[bytes] = msgspec.field(default_factory=Counter)
    first_mono_s: float = 0.0
    last_mono_s: float = 0.0

    def report(self) -> dict[str, object]:
        """What is printed. messages_per_s is from the first connection to the last message; 0 for under
        two.
        """
        seconds = self.last_mono_s - self.first_mono_s
        return {
            "connections": self.connections,
            "open": self.open,
            "peak_open": self.peak_open,
            "messages": self.messages,
            "recipients": self.recipients,
            "octets": self.octets,
            "failed_handshakes": self.failed_handshakes,
            "seconds": round(max(seconds, 0.0), 3),
            "messages_per_s": round(self.messages / seconds, 1) if self.messages > 1 and seconds > 0 else 0.0,
            "commands": dict(self.commands),
            "replies": {code.decode("ascii"): count for code, count in self.replies.items()},
        }


class Sink:
    """What all connections of one sink share: receivers, counters, recording. Make connections with `connection`.

    stop_after   messages until `finished` is set; 0: never.
    """

    def __init__(
        self,
        receivers: Receivers,
        *,
        is_lmtp: bool = False,
        stop_after: int = 0,
        record: Record | None = None,
        maildir: Maildir | None = None,
    ) -> None:
        self.receivers = receivers
        self.is_lmtp = is_lmtp
        self.statistics = Statistics()
        self.record = record
        self.maildir = maildir
        self.keeps_messages = record is not None or maildir is not None
        self.stop_after = stop_after
        self.finished = asyncio.Event()
        self._flush_is_due = False

    def connection(self) -> Connection:
        return Connection(self)

    def count_message(self, session: Session, recipients: int, octets: int, message: bytes | None) -> None:
        """One message has come to its end and been answered with success for at least one recipient."""
        s = self.statistics
        s.messages += 1
        s.recipients += recipients
        s.octets += octets
        s.last_mono_s = time.monotonic()
        if message is not None:
            self._keep(session, message)
        if s.messages == self.stop_after:
            self.finished.set()

    def _keep(self, session: Session, message: bytes) -> None:
        if self.maildir is not None:
            self.maildir.add(message)
        if self.record is not None:
            header_section = message.partition(b"\r\n\r\n")[0]
            self.record.add(
                Received(
                    time.time(),
                    session.peer,
                    session.reverse_path.decode("latin-1"),
                    [path.decode("latin-1") for path in session.forward_paths],
                    len(message),
                    field_body(header_section, b"message-id"),
                    field_body(header_section, b"subject"),
                )
            )
            if not self._flush_is_due:
                self._flush_is_due = True
                asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self.record is not None:
            self.record.flush()


class Connection(asyncio.Protocol):
    """One client: carries octets between its socket and its session, and waits where the session says so."""

    __slots__ = ("_handshake", "_is_paused", "_loop", "_session", "_sink", "_timer", "_transport")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._session is not None:
            return  # the same connection, now under TLS
        peer, here = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        client, port = (peer[0], peer[1]) if isinstance(peer, tuple) else ("", 0)
        address, own_port = (here[0], here[1]) if isinstance(here, tuple) else ("", 0)
        s = self._sink.statistics
        s.connections += 1
        s.open += 1
        s.peak_open = max(s.peak_open, s.open)
        s.first_mono_s = s.first_mono_s or time.monotonic()
        found = self._sink.receivers.of_connection(address, own_port, client)
        is_in_tls = transport.get_extra_info("ssl_object") is not None
        self._session = Session(
            self._sink,
            found,
            client=client,
            address=address,
            peer=f"{client}:{port}" if port else "unix",
            is_in_tls=is_in_tls,
        )
        self._session.begin()
        self._act(self._session)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sink.statistics.open -= 1
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._session is not None:
            self._session.end()

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        session = self._session
        if session is None or self._transport is None or session.is_over:
            return
        session.receive(data)
        self._act(session)

    def _resume(self) -> None:
        session = self._session
        self._timer = None
        if session is not None and self._transport is not None:
            session.resume()
            self._act(session)

    def _act(self, session: Session) -> None:
        """Does what the session asks for."""
        transport = self._transport
        assert transport is not None
        if out := session.take_out():
            transport.write(out)
        if session.is_over:
            transport.close()
            return
        if session.wait_s is not None:
            if self._timer is None:
                self._timer = self._loop.call_later(session.wait_s, self._resume)
        elif session.wants_tls and self._handshake is None:
            transport.pause_reading()  # what comes now is for TLS, which begins in the loop's next turn
            self._handshake = self._loop.create_task(self._begin_tls(session, transport))
        if session.is_full != self._is_paused:
            self._is_paused = session.is_full
            (transport.pause_reading if self._is_paused else transport.resume_reading)()

    async def _begin_tls(self, session: Session, transport: asyncio.Transport) -> None:
        assert session.tls is not None
        try:
            under_tls = await self._loop.start_tls(
                transport, self, session.tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError:  # ssl.SSLError and ConnectionError are
            self._sink.statistics.failed_handshakes += 1
            transport.abort()
            return
        finally:
            self._handshake = None
        if under_tls is None:
            return  # the client went away
        self._transport = under_tls
        session.tls_begun()
        self._act(session)
