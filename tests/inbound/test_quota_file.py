"""Quotas over a restart: the file, and a whole relay that is started again."""

from __future__ import annotations

import base64
import json
import os
import smtplib
import time
from pathlib import Path

import pytest
from inbound.auth_harness import write_credentials
from relay_process import RelayProcess

from angarium.inbound.quota import DAY_NS, Counts, Quota
from angarium.inbound.quota_file import NAME, QuotaFile
from angarium.queue.shares import Shares
from angarium.sasl.options import QuotaOptions

ALLOWED = QuotaOptions(messages_per_hour=3, recipients_per_day=100)


@pytest.fixture
def folder(tmp_path: Path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def restarted(folder: int) -> Counts:
    counts = Counts()
    QuotaFile(folder, counts.sent).restore()
    return counts


def left(counts: Counts, identity: str = "alice@x.example") -> int:
    """Messages that may be sent now."""
    quota = Quota(counts.sent, identity, ALLOWED)
    return [quota.take_message() for _ in range(4)].count(True)


def test_what_was_used_is_used_after_a_restart_and_only_of_whom(folder: int, tmp_path: Path) -> None:
    counts = restarted(folder)
    quota = Quota(counts.sent, "alice@x.example", ALLOWED)
    assert quota.take_message() and quota.take_message() and quota.take_recipient()
    QuotaFile(folder, counts.sent).save()
    assert "alice" not in (tmp_path / NAME).read_text()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    again = restarted(folder)
    assert left(again) == 1
    assert left(again, "bob@x.example") == 3
    QuotaFile(folder, again.sent).save()
    assert left(restarted(folder)) == 0


def test_a_day_counts_over_a_restart(folder: int) -> None:
    counts = restarted(folder)
    options = QuotaOptions(recipients_per_day=2)
    quota = Quota(counts.sent, "alice@x.example", options)
    assert [quota.take_recipient() for _ in range(3)] == [True, True, False]
    QuotaFile(folder, counts.sent).save()
    assert not Quota(restarted(folder).sent, "alice@x.example", options).take_recipient()


def test_what_was_whole_again_meanwhile_is_whole(folder: int, tmp_path: Path) -> None:
    counts = restarted(folder)
    assert left(counts) == 3
    file = QuotaFile(folder, counts.sent)
    file.save()
    kept = json.loads((tmp_path / NAME).read_text())
    ((key, whole_ms),) = kept["whole"]
    assert whole_ms / 1000 == pytest.approx(time.time() + 3600, abs=60)
    # An hour and a third have passed, or the third alone.
    (tmp_path / NAME).write_text(json.dumps({**kept, "whole": [[key, whole_ms - 4_800_000]]}))
    assert left(restarted(folder)) == 3
    (tmp_path / NAME).write_text(json.dumps({**kept, "whole": [[key, whole_ms - 1_260_000]]}))
    assert left(restarted(folder)) == 1


def test_a_clock_that_was_set_back_keeps_nobody_out_for_longer_than_a_day(folder: int, tmp_path: Path) -> None:
    counts = restarted(folder)
    quota = Quota(counts.sent, "alice@x.example", ALLOWED)
    assert quota.take_message()
    QuotaFile(folder, counts.sent).save()
    kept = json.loads((tmp_path / NAME).read_text())
    kept["whole"] = [[key, whole_ms + 10**10] for key, whole_ms in kept["whole"]]
    (tmp_path / NAME).write_text(json.dumps(kept))
    (arrival_ns,) = restarted(folder).sent.arrivals().values()
    assert arrival_ns <= time.monotonic_ns() + DAY_NS


def test_a_clock_that_is_not_set_yet_uses_up_no_more_than_was_used(folder: int, tmp_path: Path, monkeypatch) -> None:
    """A machine without one of its own starts the relay in 1970."""
    counts = restarted(folder)
    assert Quota(counts.sent, "alice@x.example", ALLOWED).take_message()
    QuotaFile(folder, counts.sent).save()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert left(restarted(folder)) == 2


def test_nothing_is_written_when_nothing_was_sent(folder: int, tmp_path: Path) -> None:
    counts = restarted(folder)
    file = QuotaFile(folder, counts.sent)
    file.save()
    assert not (tmp_path / NAME).exists()
    assert left(counts) == 3
    file.save()
    (tmp_path / NAME).unlink()
    file.save()
    assert not (tmp_path / NAME).exists()
    assert left(counts, "bob@x.example") == 3
    file.save()
    assert (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"version":2,"secret":"AAAAAAAAAAAAAAAAAAAAAA==","whole":[]}',
        '{"version":1,"secret":"AAAA","whole":[]}',
        '{"version":1,"secret":"AAAAAAAAAAAAAAAAAAAAAA==","whole":[[0,1]]}',
        '{"version":1,"secret":"AAAAAAAAAAAAAAAAAAAAAA==","whole":[[18446744073709551616,1]]}',
        '{"version":1,"secret":"AAAAAAAAAAAAAAAAAAAAAA==","whole":[["a",1]]}',
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_restores_nothing(folder: int, tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    sent = Shares()
    secret = sent.secret
    with pytest.raises(ValueError):
        QuotaFile(folder, sent).restore()
    assert sent.secret == secret and sent.arrivals() == {}


def test_a_full_table_is_restored(folder: int) -> None:
    counts = restarted(folder)
    for number in range(3000):
        Quota(counts.sent, f"{number}@x.example", ALLOWED).take_message()
    QuotaFile(folder, counts.sent).save()
    again = restarted(folder).sent.arrivals()
    before = counts.sent.arrivals()
    assert again.keys() == before.keys() and len(before) == 3000
    assert all(abs(again[key] - before[key]) < 10**9 for key in before)


def sends(relay: RelayProcess) -> int:
    """How many of four messages are taken, each in a session of its own."""
    taken = 0
    for _ in range(4):
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
            client.ehlo("client.example")
            login = base64.b64encode(b"\0alice@x.example\0correct horse").decode()
            assert client.docmd("AUTH PLAIN", login)[0] == 235
            taken += client.mail("alice@x.example")[0] == 250
    return taken


def test_a_relay_that_is_started_again_gives_no_new_quota(tmp_path: Path) -> None:
    source = write_credentials(tmp_path / "credentials", "alice@x.example")
    config = (
        f'[auth]\ncredentials = "file:{tmp_path}/credentials"\n[auth.quota."*"]\nmessages_per_hour = 3\n'
    )
    assert source.kind == "file"
    listener = 'address = "127.0.0.1:0"\nauth = { offered = true, allow_plaintext_from = ["127.0.0.0/8"] }\n'
    relay = RelayProcess(tmp_path, config, workers=2, listener=listener)
    with relay:
        assert sends(relay) == 3
        assert relay.stop() == 0
    with relay:
        assert sends(relay) == 0
        assert relay.stop() == 0
    (tmp_path / "spool" / NAME).write_text("{")
    with relay:
        (error,) = (event for event in relay.events("error") if event["where"] == NAME)
        assert error["reason"].startswith("quotas begin anew: ")
        assert sends(relay) == 3
