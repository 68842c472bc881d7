"""Segments of every released format version stay readable: sealed, and as a crash left them (no footer)."""

import asyncio
import gzip
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from golden.make_moved import NOWHERE
from relay_process import angarium

from angarium.spool.archive import ExportedMessage
from angarium.spool.contents import StoredMessage
from angarium.spool.envelope import Envelope, Flag, RecipientState, Status, parse_state
from angarium.spool.notice import NoticeKind
from angarium.spool.shard import Shard

GOLDEN = Path(__file__).parent.parent / "golden"
# What they must read as stands beside them.
EVERY_FIELD = ["spool-v1-parameters", "spool-v1-moved"]


@pytest.mark.parametrize("name", ["spool-v1-sealed", "spool-v1-unsealed"])
def test_a_golden_segment_reads_as_on_its_first_day(tmp_path: Path, name: str) -> None:
    (tmp_path / "00").mkdir()
    (tmp_path / "00" / "seg-0000.ang").write_bytes(gzip.decompress((GOLDEN / f"{name}.ang.gz").read_bytes()))

    async def main() -> None:
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        shard = Shard(fd, "00", 0, segment_octets=1 << 20)
        os.close(fd)
        shard.attach(asyncio.get_running_loop())
        found = {}
        while (some := shard.recover()) is not None:
            found.update((message.id, message) for message in some)
            await asyncio.sleep(0.001)
        assert sorted(found) == [30122999805902849, 30122999805902851]

        inline = Envelope.parse(found[30122999805902849].envelope)
        assert inline.reverse_path == b"a@x.example"
        assert [(r.forward_path, r.orcpt, r.notify) for r in inline.recipients] == [
            (b"b@y.example", b"rfc822;b@y.example", 3),
            (b"c@y.example", b"rfc822;b@y.example", 3),
        ]
        assert (inline.envid, inline.helo, inline.listener) == (b"QQ1", b"client.example", b"[::]:25")
        assert (inline.received_utc_ms, inline.flags) == (1700000000123, Flag.INLINE)
        assert parse_state(found[inline.id].state) == (
            RecipientState(Status.DELIVERED, 1, 0, 250, (2, 0, 0), b"ok", b"mx.y.example"),
            RecipientState(Status.WAITING, 2, 1700000300, 451, (4, 7, 1), b"later", b"mx.y.example"),
        )
        streamed = Envelope.parse(found[30122999805902851].envelope)
        assert (streamed.message_octets, found[streamed.id].state) == (11, None)
        bodies = []
        for envelope in (inline, streamed):
            parts = [await shard.fetch(c.segment_serial, c.offset, c.length) for c in envelope.chunks]
            bodies.append(b"".join(parts))
        assert bodies == [b"Subject: golden\r\n\r\nversion 1\r\n", b"firstsecond"]
        assert shard.notices() == []
        shard.close()

    asyncio.run(main())


def golden_spool(directory: Path, name: str) -> Path:
    """A spool of one shard with this segment, or with the segments of this set."""
    spool = directory / "spool"
    (spool / "00").mkdir(parents=True)
    (spool / "format").write_text("angarium-spool 1\n")
    if (GOLDEN / f"{name}.tar.gz").exists():
        with tarfile.open(GOLDEN / f"{name}.tar.gz") as segments:
            segments.extractall(spool, filter="data")
    else:
        (spool / "00" / "seg-0000.ang").write_bytes(gzip.decompress((GOLDEN / f"{name}.ang.gz").read_bytes()))
    return spool


def wanted_of(name: str) -> dict[str, dict[str, Any]]:
    """What each message must read as, by id: written on the first day, and looked through."""
    return {each["message"]["id"]: each for each in json.loads((GOLDEN / f"{name}.json").read_text())}


def octets_of(wanted: dict[str, Any]) -> bytes:
    octets: bytes = wanted["octets"].encode("utf-8", "surrogateescape")
    return octets


@pytest.mark.parametrize(
    ("name", "is_sealed", "records"),
    [
        ("spool-v1-sealed", [True], None),
        ("spool-v1-unsealed", [False], None),
        # A settled message, DSN parameters, SMTPUTF8, a streamed message, a report, outcomes replaced and final.
        ("spool-v1-parameters", [True], {"body": 7, "envelope": 5, "outcome": 3, "freed": 1}),
        # Copies in every state, REQUIRETLS, TLS-Required: No, BINARYMIME, every attribute: golden/make_moved.py.
        (
            "spool-v1-moved",
            [True, True, True, False],
            {"body": 20, "envelope": 16, "outcome": 10, "freed": 6},
        ),
    ],
)
def test_golden_segments_are_found_good(
    tmp_path: Path, name: str, is_sealed: list[bool], records: dict[str, int] | None
) -> None:
    done = angarium("spool", "check", "--json", "--spool", str(golden_spool(tmp_path, name)))
    assert done.returncode == 0, done.stdout
    *segments, summary = map(json.loads, done.stdout.splitlines())
    assert summary == {"messages": sum(each["messages"] for each in segments), "damaged": 0}
    assert [each["is_sealed"] for each in segments] == is_sealed
    if records is not None:
        found = Counter[str]()
        for each in segments:
            found.update(each["records"])
        assert found == records
        assert summary["messages"] == len(wanted_of(name))


async def recovered(spool: Path) -> dict[str, dict[str, Any]]:
    """As wanted_of(), of what a relay would load: compiled code of its own, and not that of the tools."""
    root = os.open(spool, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(root, "00", 0, segment_octets=1 << 20)
    os.close(root)
    shard.attach(asyncio.get_running_loop())
    found = {}
    while (some := shard.recover()) is not None:
        for message in some:
            envelope = Envelope.parse(message.envelope)
            state = None if message.state is None else parse_state(message.state)
            octets, position = b"", 0
            for chunk in envelope.chunks:
                place = (chunk.segment_serial, chunk.offset, chunk.length)
                octets += await shard.fetch(*place, body_of=envelope.id, run_offset=position)
                position += chunk.length
            exported = ExportedMessage.of(StoredMessage(NOWHERE, message.place[1], envelope, state))
            assert exported.id not in found, "found twice"
            found[exported.id] = {
                "message": msgspec.to_builtins(exported),
                "octets": octets.decode("utf-8", "surrogateescape"),
            }
        await asyncio.sleep(0.001)
    assert [each for each in shard.notices() if each.kind != NoticeKind.TORN] == []
    shard.close()
    return found


@pytest.mark.parametrize("name", EVERY_FIELD)
def test_recovery_reads_every_field_of_golden_segments(tmp_path: Path, name: str) -> None:
    spool = golden_spool(tmp_path, name)
    assert asyncio.run(recovered(spool)) == wanted_of(name)
    assert asyncio.run(recovered(spool)) == wanted_of(name), "and the next start, of what that one has settled"


def assert_tools_read(spool: Path, name: str, mail: Path) -> None:
    wanted = wanted_of(name)
    listed = angarium("spool", "ls", "--json", "--spool", str(spool))
    assert (listed.returncode, listed.stderr) == (0, "")
    messages = [json.loads(line) for line in listed.stdout.splitlines()]
    assert {each["id"]: each for each in messages} == {id_: each["message"] for id_, each in wanted.items()}
    assert len(messages) == len(wanted)
    assert angarium("spool", "export", "--all", "--to", str(mail), "--spool", str(spool)).returncode == 0
    for id_, each in wanted.items():
        assert (mail / f"{id_}.eml").read_bytes() == octets_of(each)
        assert json.loads((mail / f"{id_}.json").read_text()) == each["message"]


@pytest.mark.parametrize("name", EVERY_FIELD)
def test_the_tools_read_every_field_of_golden_segments(tmp_path: Path, name: str) -> None:
    spool = golden_spool(tmp_path, name)
    assert_tools_read(spool, name, tmp_path / "mail")
    id_, each = max(wanted_of(name).items(), key=lambda item: len(item[1]["octets"]))
    envelope = angarium("spool", "cat", "--envelope", id_, "--spool", str(spool))
    assert json.loads(envelope.stdout) == each["message"]
    assert cat(id_, spool) == octets_of(each)


@pytest.mark.parametrize("name", EVERY_FIELD)
def test_repair_keeps_every_field_of_golden_segments(tmp_path: Path, name: str) -> None:
    spool = golden_spool(tmp_path, name)
    done = angarium("spool", "repair", "--to", str(tmp_path / "new"), "--spool", str(spool))
    assert (done.returncode, done.stderr) == (0, "")
    assert_tools_read(tmp_path / "new", name, tmp_path / "mail")
    assert angarium("spool", "check", "--spool", str(tmp_path / "new")).returncode == 0


def cat(id_: str, spool: Path) -> bytes:
    """The octets, which are no text."""
    done = subprocess.run(
        [sys.executable, "-m", "angarium.cli.main", "spool", "cat", id_, "--spool", str(spool)],
        capture_output=True,
        check=True,
        timeout=40,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    return done.stdout
