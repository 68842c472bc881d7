"""kill -9 of a relay with a large backlog: all of it is scheduled again, with its attempts and the times of the next.

ANGARIUM_BACKLOG says how many messages: `make backlog` takes a million.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, admin_get, figures
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

from angarium.spool.directory import SpoolDirectory, shard_name
from angarium.spool.envelope import RecipientState, Status, build_state, decode_id, encode_id
from angarium.spool.shard import Shard

MESSAGES = int(os.environ.get("ANGARIUM_BACKLOG", "20000"))
WORKERS = 2
DOMAINS = 100
AT_ONCE = 2000
LATER_S = 6 * 3600
PATIENCE_S = 30 + MESSAGES / 5000
LOOKED_AT = 200  # whose attempts are asked for, one by one
TRIED_NOW = "d0.example"


def attempts_of(number: int) -> int:
    return 1 + number % 7


async def write_shard(spool: SpoolDirectory, number: int, count: int, due_utc_s: int) -> dict[str, tuple[int, int]]:
    """Messages that have been tried already. Of each: attempts, and when the next is due."""
    shard = Shard(spool.fd, shard_name(number), number)
    shard.attach(asyncio.get_running_loop())
    while shard.recover() is not None:
        await asyncio.sleep(0.001)
    written = {}
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        stored = await asyncio.gather(
            *(shard.append(b"a@x.example", [b"u%d@d%d.example" % (each, each % DOMAINS)], MESSAGE) for each in numbers)
        )
        states = [
            RecipientState(Status.WAITING, attempts_of(each), due_utc_s + each % 3600, 450, (4, 2, 1), b"later", b"mx")
            for each in numbers
        ]
        await asyncio.gather(
            *(
                shard.write_state(each.id, each.place[0], build_state([state]))
                for each, state in zip(stored, states, strict=True)
            )
        )
        for each, state in zip(stored, states, strict=True):
            written[encode_id(each.id)] = (state.attempts, state.next_attempt_utc_s)
    # As a crash leaves it: the last segment has no index.
    path = Path(spool.path) / shard_name(number)
    shutil.copytree(path, f"{path}.crashed")
    shard.close()
    shutil.rmtree(path)
    Path(f"{path}.crashed").rename(path)
    return written


def pages(relay: RelayProcess) -> Iterator[dict[str, Any]]:
    after = ""
    while after is not None:
        status, octets = admin_get(relay, f"/v1/queue?limit=1000{after and f'&after={after}'}")
        assert status == 200
        page = json.loads(octets)
        yield from page["messages"]
        after = page["next"]


def due_times(relay: RelayProcess) -> dict[str, float]:
    """Of every message in the queue: when it is tried again."""
    found = {}
    for each in pages(relay):
        assert each["places"] == ["deferred"], each
        found[each["id"]] = each["next_attempt_utc_s"]
    return found


def assert_same_times(found: dict[str, float], wanted: dict[str, float]) -> None:
    """On disk they are whole seconds."""
    assert found.keys() == wanted.keys()
    others = {id_: (at, wanted[id_]) for id_, at in found.items() if abs(at - wanted[id_]) > 2}
    assert not others, f"{len(others)} have another time, as {next(iter(others.items()))}"


def attempts(relay: RelayProcess, ids: list[str]) -> dict[str, int]:
    answers = (json.loads(admin_get(relay, f"/v1/queue/{id_}")[1]) for id_ in ids)
    return {each["id"]: each["recipients"][0]["attempts"] for each in answers}


def wait_until_loaded(relay: RelayProcess, messages: int) -> None:
    def is_loaded() -> bool:
        found = figures(relay)
        return (
            len(found) == WORKERS
            and not any(each["loading"] for each in found)
            and sum(each["deferred"] for each in found) == messages
        )

    wait_for(is_loaded, f"{messages} are deferred", PATIENCE_S)


def one_message_each(relay: RelayProcess) -> list[str]:
    """To every worker; returns what was sent. A commit takes along what waited to be written of outcomes."""
    ids: list[str] = []
    while len({decode_id(each) >> 56 for each in ids}) < WORKERS:
        with SmtpClient(relay.port) as client:
            ids.append(client.send(MESSAGE, "new@d1.example"))
    return ids


@pytest.mark.timeout(120 + MESSAGES // 500)
def test_a_backlog_is_scheduled_again_after_kill_9_with_its_attempts_and_times(tmp_path: Path) -> None:
    due_utc_s = int(time.time()) + LATER_S
    written: dict[str, tuple[int, int]] = {}
    with SpoolDirectory.open(str(tmp_path / "spool")) as spool:
        for number in range(WORKERS):
            written |= asyncio.run(write_shard(spool, number, MESSAGES // WORKERS, due_utc_s))
    faults = {"RCPT": lambda _: b"450 4.2.1 not now"}
    with NextHop(faults=faults) as hop, RelayProcess(tmp_path, hop.route + NO_RETRY, workers=WORKERS) as relay:
        wait_until_loaded(relay, len(written))
        assert_same_times(due_times(relay), {id_: due for id_, (_, due) in written.items()})
        # Outcomes of its own, for a part of it, and new mail.
        tried = [event["id"] for event in retried(relay)]
        assert len(tried) == len(written) // DOMAINS
        new = one_message_each(relay)
        wait_for(lambda: len(relay.events("deferred")) == len(tried) + len(new), "they are put off")
        # What was sent to see the outcomes to the disk may itself be known without its own.
        late = one_message_each(relay)
        wait_until_loaded(relay, len(written) + len(new) + len(late))
        due = {id_: at for id_, at in due_times(relay).items() if id_ not in late}
        assert due.keys() == written.keys() | set(new)
        looked_at = sorted(random.Random(1).sample(sorted(written), LOOKED_AT)) + tried[:50] + new
        made = attempts(relay, looked_at)
        assert made == {
            id_: (written[id_][0] if id_ in written else 0) + (id_ in tried or id_ in new) for id_ in looked_at
        }
        relay.kill()
        relay.start()
        relay.kill()  # while it loads
        relay.start()
        wait_until_loaded(relay, len(due) + len(late))
        again = due_times(relay)
        assert again.keys() == due.keys() | set(late), "each once, and nothing else"
        assert_same_times({id_: again[id_] for id_ in due}, due)
        assert attempts(relay, looked_at) == made
        assert not relay.events("error", "spool-damaged", "spool-unread", "worker-died")


def retried(relay: RelayProcess) -> list[dict[str, Any]]:
    """The mail of one domain is tried at once."""
    assert relay.command("queue", "retry", "--domain", TRIED_NOW).returncode == 0
    wanted = MESSAGES // DOMAINS
    wait_for(lambda: len(relay.events("deferred")) >= wanted, "the mail of a domain is tried", PATIENCE_S)
    return relay.events("deferred")
