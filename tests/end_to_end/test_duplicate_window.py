"""What was delivered just before the end is delivered again after a crash, and is not after a clean stop.

The window is opened to its widest, ten seconds, so that the end falls into it without luck.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, outcomes, queue, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for


@contextlib.contextmanager
def with_window(directory: Path, config: str, window: str = "10s") -> Iterator[RelayProcess]:
    relay = RelayProcess(directory)
    relay.node = f'duplicate_window = "{window}"\n'
    relay.write_config(config)
    with relay:
        yield relay


def test_a_delivery_within_the_window_is_repeated_after_a_crash(tmp_path: Path) -> None:
    with NextHop() as hop, with_window(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        hop.wait_for_count(1)
        wait_until_empty(relay)
        relay.kill()
        relay.start()
        hop.wait_for_count(2)
        wait_until_empty(relay)
        assert relay.stop() == 0


def test_a_delivery_before_the_window_is_not_repeated_after_a_crash(tmp_path: Path) -> None:
    with NextHop() as hop, with_window(tmp_path, hop.route, "0s") as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        wait_until_empty(relay)
        # Its own sync is all there is of a window: long before the widest one would end.
        wait_for(lambda: not relay.command("spool", "ls").stdout, "that it is over is on the disk", 9)
        relay.kill()
        relay.start()
        wait_until_empty(relay)
        assert len(hop.deliveries) == 1
        assert relay.stop() == 0


def test_stops_in_the_middle_of_deliveries_repeat_nothing_and_lose_nothing(tmp_path: Path) -> None:
    """A backlog leaves, three recipients a message, each refused now and then: at every moment there are messages whose
    newest state is on its way to the disk while the next attempt ends."""
    odds = random.Random(4)
    chance = 1.0
    faults = {"RCPT": lambda _: b"450 4.2.1 not now" if odds.random() < chance else None}
    retry = '[queue.default]\nretry = { first = "200ms", factor = 1.0, max = "200ms", jitter = 0.0 }\n'
    mailboxes = [f"{name}@y.example" for name in "abc"]
    with NextHop(faults=faults) as hop, with_window(tmp_path, hop.route + retry, "1s") as relay:
        with SmtpClient(relay.port) as client:
            for number in range(300):
                client.send(b"X-Number: %d\r\n\r\nx\r\n" % number, *mailboxes)
        chance = 0.7
        for round_ in (1, 2, 3):
            wait_for(lambda count=150 * round_: len(hop.deliveries) > count, "mail leaves")
            assert relay.stop() == 0
            relay.start()
        chance = 0.0
        wait_until_empty(relay, 60)
        assert relay.stop() == 0
        arrived = Counter(
            (int(delivery.message.partition(b"X-Number: ")[2].split()[0]), mailbox)
            for delivery in hop.deliveries
            for mailbox in delivery.to
        )
        assert arrived == {(number, mailbox): 1 for number in range(300) for mailbox in mailboxes}


def test_after_a_clean_stop_nothing_is_repeated(tmp_path: Path) -> None:
    """The first recipient's outcome waits for a commit to ride on; that the message is over cannot be said before. Who
    closes the spool then and there forgets to say it."""
    is_closed = True

    def refuse(line: bytes) -> bytes | None:
        return b"450 4.2.1 not now" if is_closed and b"<late@" in line else None

    with NextHop(faults={"RCPT": refuse}) as hop, with_window(tmp_path, hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            for _ in range(20):
                client.send(MESSAGE, "early@y.example", "late@y.example")
        wait_for(lambda: len(relay.events("deferred")) == 20, "of each message one is delivered, one deferred")
        is_closed = False
        relay.command("queue", "retry", "--all")
        wait_for(lambda: len(relay.events("delivered")) == 40, "all are delivered")
        began = time.monotonic()
        assert relay.stop() == 0
        assert time.monotonic() - began < 8, "who is told to stop does not wait for the window to end"
        relay.start()
        wait_until_empty(relay)
        assert queue(relay) == []
        assert outcomes(relay) == {
            "early@y.example": ["delivered"] * 20,
            "late@y.example": ["deferred"] * 20 + ["delivered"] * 20,
        }
        assert sorted(to for delivery in hop.deliveries for to in delivery.to) == [
            *["early@y.example"] * 20,
            *["late@y.example"] * 20,
        ]
        assert relay.stop() == 0
