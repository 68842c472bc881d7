"""Next hops that take nothing, or drip: memory stays within its settings, and clients are slowed down, then put off."""

from __future__ import annotations

import asyncio
import select
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.next_hop import SILENCE, NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, clean_relay, metrics, queue, wait_until_empty, workers
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

MIB = 1 << 20
MAIL = b"MAIL FROM:<a@x.example>\r\n"
BODY = b"Subject: large\r\n\r\n" + 1000 * (98 * b"x" + b"\r\n")


def memory(limit: str, slow_from_percent: int = 100, bodies: str = "256KiB") -> str:
    return f'[queue.memory]\nlimit = "{limit}"\nslow_from_percent = {slow_from_percent}\nbodies = "{bodies}"\n'


def fill(client: SmtpClient, until: int) -> int:
    """Messages of a hundred recipients until MAIL is answered with this code; how many were taken."""
    for count in range(2000):
        code, _ = client.ask(MAIL)
        if code == until:
            return count
        assert code == 250
        for number in range(100):
            assert client.ask(f"RCPT TO:<u{number}@y.example>\r\n".encode())[0] == 250
        assert client.ask(b"DATA\r\n")[0] == 354
        assert client.ask(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")[0] == 250
    raise AssertionError(f"never {until}")


def figures(relay: RelayProcess) -> dict[str, Any]:
    (worker,) = workers(relay)
    return dict(worker["figures"])


def test_a_site_that_takes_nothing_fills_the_queue_and_no_more(tmp_path: Path) -> None:
    config = memory("1MiB") + '[shaping.default]\ngreeting_timeout = "1h"\n' + NO_RETRY
    with NextHop(faults={"greeting": SILENCE}) as hop, clean_relay(tmp_path, hop.route + config) as relay:
        with SmtpClient(relay.port) as client:
            client.ask(b"EHLO x.example\r\n")
            taken = fill(client, 452)
            assert taken > 50
            assert client.ask(MAIL) == (452, "4.3.1 Too much mail waits here, try again later")
            seen = metrics(relay)
            assert seen["angarium_queue_full"] == 1
            # What came in between two looks is over it, a message or some.
            assert MIB <= seen["angarium_queue_memory_octets"] < 2 * MIB
            assert figures(relay)["hot_octets"] <= 300_000
            wait_for(lambda: len(relay.events("rejected")) == 2, "both refusals are told")
            assert {event["reason"] for event in relay.events("rejected")} == {"queue-full"}
            assert relay.command("queue", "delete", "--all").returncode == 0
            wait_for(lambda: relay.events("queue-normal"), "there is room again")
            client.send(MESSAGE, "a@y.example")
        assert len(relay.events("queue-full")) == 1
        assert relay.command("queue", "delete", "--all").returncode == 0


def test_near_the_limit_mail_is_taken_later(tmp_path: Path) -> None:
    config = memory("1MiB", slow_from_percent=1) + NO_RETRY
    later = NextHop(faults={"RCPT": b"450 4.2.0 later"})
    with later as hop, clean_relay(tmp_path, hop.route + config) as relay:
        with SmtpClient(relay.port) as slow, SmtpClient(relay.port) as quick:
            for client in (slow, quick):
                client.ask(b"EHLO x.example\r\n")
            # Enough for a wait of two seconds or so, long before the limit.
            for number in range(90):
                slow.say(MAIL)
                if number and relay.events("queue-high") and not is_answered(slow, quick):
                    break
                assert slow.reply()[0] == 250
                for each in range(100):
                    slow.ask(f"RCPT TO:<u{each}@y.example>\r\n".encode())
                slow.ask(b"DATA\r\n")
                assert slow.ask(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")[0] == 250
            else:
                raise AssertionError("MAIL was never kept waiting")
            assert slow.reply()[0] == 250, "later, and all the same"
        assert not relay.events("queue-full", "rejected")


def is_answered(slow: SmtpClient, quick: SmtpClient) -> bool:
    """Whether what `slow` has asked is answered before something that `quick` asks behind it."""
    assert quick.ask(b"NOOP\r\n")[0] == 250
    return bool(select.select([slow.socket], [], [], 0)[0])


def test_who_waits_behind_a_full_ready_queue_is_delivered_after_kill_9_too(tmp_path: Path) -> None:
    config = '[shaping.default]\nmax_ready = 10\ngreeting_timeout = "1h"\n' + NO_RETRY
    silent = NextHop(faults={"greeting": SILENCE})
    with silent as hop, NextHop() as other, RelayProcess(
        tmp_path, f'{other.route.replace("*", "z.example")}{hop.route}{config}'
    ) as relay:
        with SmtpClient(relay.port) as client:
            ids = [client.send(BODY, f"u{number}@y.example") for number in range(50)]
            for number in range(20):
                client.send(MESSAGE, f"u{number}@z.example")
        wait_for(lambda: len(relay.events("delivered")) == 20, "the other site takes its mail")
        told = figures(relay)
        assert (told["ready"], told["behind"], told["deferred"]) == (10, 40, 0)
        assert told["hot_octets"] <= 11 * (len(BODY) + 1000)
        assert {each["id"] for each in queue(relay, "--state", "behind")} == set(ids[10:])
        said = relay.command("explain", ids[-1]).stdout.splitlines()[0]
        assert "its ready queue is full (it is one of 40 behind the 10 in it), and " in said
        assert "angarium.toml:" in said and "shaping.default.max_ready" in said

        relay.kill()
        hop.faults.clear()
        relay.start()
        wait_until_empty(relay)
        assert Counter(each.to[0] for each in hop.deliveries) == {f"u{number}@y.example": 1 for number in range(50)}
        delivered = [event for event in relay.events("delivered") if event["to"].endswith("y.example")]
        assert {event["attempt"] for event in delivered} == {1}
        assert relay.stop() == 0


class Dripping:
    """An SMTP server that says 354 and then reads an octet now and then."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self.in_data = 0
        self._is_up = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._is_up.wait()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await self._over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 drip.example\r\n")
        while line := await reader.readline():
            if line.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                self.in_data += 1
                while await reader.read(1):
                    await asyncio.sleep(0.05)
                return
            writer.write(b"250 ok\r\n")


@pytest.fixture
def dripping() -> Iterator[Dripping]:
    hop = Dripping()
    hop.start()
    yield hop
    hop.stop()


def test_a_site_that_drips_holds_no_more_bodies_than_it_has_connections(tmp_path: Path, dripping: Dripping) -> None:
    route = f'[[route]]\ndomain = "*"\nnext_hop = "smtp://127.0.0.1:{dripping.port}"\n'
    config = memory("64MiB") + "[shaping.default]\nconnections = 3\n" + NO_RETRY
    with clean_relay(tmp_path, route + config) as relay:
        with SmtpClient(relay.port) as client:
            for number in range(60):
                client.send(BODY, f"u{number}@y.example")
        wait_for(lambda: dripping.in_data == 3, "all connections have one in hand")
        wait_for(lambda: len(relay.events("received")) == 60, "all are told")
        # Six megabytes are queued. The cache took its share and one body over it; besides, what three connections hold.
        assert figures(relay)["hot_octets"] <= 256 * 1024 + (1 + 3 * 2) * len(BODY)
        assert not relay.events("delivered", "deferred")
