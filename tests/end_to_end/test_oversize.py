"""A message that is streamed into the spool and never becomes one takes no room there for long: too large, or its
client goes away in the middle.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, figures, queued_ids
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

MEBIBYTE = 1 << 20
LIMIT_OCTETS = 4 * MEBIBYTE
TIMES = 4
LINE = b"0123456789abcde\r\n" * 15420  # some 256 KiB
# With mail that lives or is under way: that of what stays, and the current one. Files: four spare ones besides, the
# next one, and what was being written while others waited to be given back.
SEGMENTS = 3
FILES = 12


def too_large_by_data(client: SmtpClient) -> None:
    client.open("m@y.example")
    assert client.ask(b"DATA\r\n")[0] == 354
    for _ in range(3 * LIMIT_OCTETS // len(LINE)):
        client.say(LINE)
    assert client.ask(b".\r\n")[0] == 552


def too_large_by_bdat(client: SmtpClient) -> None:
    client.open("m@y.example")
    codes = []
    for _ in range(4):
        codes.append(client.ask(b"BDAT %d\r\n" % (6 * len(LINE)) + 6 * LINE)[0])
    assert codes[:2] == [250, 250]
    assert codes[2] == 552
    assert codes[3] in (503, 552)


def too_large_in_one_chunk(client: SmtpClient) -> None:
    client.open("m@y.example")
    code, _ = client.ask(b"BDAT %d LAST\r\n" % (45 * len(LINE)) + 45 * LINE)
    assert code == 552


def gone_in_the_middle_of_data(client: SmtpClient) -> None:
    client.open("m@y.example")
    assert client.ask(b"DATA\r\n")[0] == 354
    client.say(14 * LINE)


def gone_in_the_middle_of_a_chunk(client: SmtpClient) -> None:
    client.open("m@y.example")
    assert client.ask(b"BDAT %d\r\n" % (4 * len(LINE)) + 4 * LINE)[0] == 250
    client.say(b"BDAT %d LAST\r\n" % (11 * len(LINE)) + 10 * LINE)


def given_up_by_rset(client: SmtpClient) -> None:
    client.open("m@y.example")
    assert client.ask(b"BDAT %d\r\n" % (14 * len(LINE)) + 14 * LINE)[0] == 250
    assert client.ask(b"RSET\r\n")[0] == 250


# How much of the limit is on disk, at least, when it ends. A chunk that cannot fit is not stored at all.
WAYS: dict[Callable[[SmtpClient], None], float] = {
    too_large_by_data: 0.9,
    too_large_by_bdat: 0.7,
    too_large_in_one_chunk: 0.0,
    gone_in_the_middle_of_data: 0.7,
    gone_in_the_middle_of_a_chunk: 0.7,
    given_up_by_rset: 0.7,
}


def shard(relay: RelayProcess) -> dict[str, int]:
    ((found,),) = (each["shards"] for each in figures(relay))
    return found


@pytest.mark.timeout(240)
def test_what_was_streamed_of_a_message_that_never_was_gives_its_room_back(tmp_path: Path) -> None:
    """Beside mail that stays, so that the spool is never empty and started anew."""
    relay = RelayProcess(tmp_path)
    relay.listener += f"max_message_octets = {LIMIT_OCTETS}\n"
    relay.node = 'segment_size = "4MiB"\n'
    with NextHop(faults={"RCPT": lambda _: b"450 4.2.1 later"}) as hop:
        relay.write_config(hop.route + NO_RETRY)
        with relay:
            with SmtpClient(relay.port) as client:
                stay = [client.send(MESSAGE, "m@y.example")]
            live = wait_for(lambda: shard(relay)["live_octets"], "it is counted")
            files = set[str]()
            for way, share in WAYS.items():
                before, times = shard(relay)["octets_written"], 0
                # What a slow disk has not taken when a message is given up is not written any more: once more, then.
                while times < TIMES or shard(relay)["octets_written"] - before < share * TIMES * LIMIT_OCTETS:
                    with SmtpClient(relay.port) as client:
                        way(client)
                    files |= {path.name for path in (relay.spool / "00").glob("seg-*")}
                    times += 1
                    wait_for(lambda: not figures(relay)[0]["sessions"], "the session is over")
                wait_for(lambda: shard(relay)["segments"] <= SEGMENTS, f"{way.__name__}: segments are given back")
                written = shard(relay)["octets_written"] - before
                assert written < 1.2 * times * LIMIT_OCTETS, f"{way.__name__} is not stored beyond the limit"
            # So much went through so few files: they were used again.
            assert len(files) <= FILES, files
            with SmtpClient(relay.port) as client:
                stay.append(client.send(MESSAGE, "m@y.example"))
            wait_for(lambda: shard(relay)["live_octets"] == 2 * live, "two messages live, and nothing besides")
            assert queued_ids(relay) == stay
            relay.kill()
            relay.start()
            wait_for(lambda: queued_ids(relay) == stay, "nothing else comes back")
