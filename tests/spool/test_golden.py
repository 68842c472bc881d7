"""Segments of every released format version stay readable: sealed, and as a crash left them (no footer)."""

import asyncio
import gzip
import json
import os
from pathlib import Path

import pytest
from relay_process import angarium

from angarium.spool.envelope import Envelope, Flag, RecipientState, Status, parse_state
from angarium.spool.shard import Shard

GOLDEN = Path(__file__).parent.parent / "golden"


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
    """A spool of one shard with this segment."""
    spool = directory / "spool"
    (spool / "00").mkdir(parents=True)
    (spool / "format").write_text("angarium-spool 1\n")
    (spool / "00" / "seg-0000.ang").write_bytes(gzip.decompress((GOLDEN / f"{name}.ang.gz").read_bytes()))
    return spool


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("spool-v1-sealed", None),
        ("spool-v1-unsealed", None),
        # A settled message, DSN parameters, SMTPUTF8, a streamed message, a report, outcomes replaced and final.
        ("spool-v1-parameters", {"body": 7, "envelope": 5, "outcome": 3, "freed": 1}),
    ],
)
def test_a_golden_segment_is_found_good(tmp_path: Path, name: str, records: dict[str, int] | None) -> None:
    done = angarium("spool", "check", "--json", "--spool", str(golden_spool(tmp_path, name)))
    assert done.returncode == 0, done.stdout
    segment, summary = map(json.loads, done.stdout.splitlines())
    assert summary == {"messages": segment["messages"], "damaged": 0}
    assert segment["is_sealed"] == (name != "spool-v1-unsealed")
    if records is not None:
        assert segment["records"] == records


def test_the_tools_read_every_field_of_a_golden_segment(tmp_path: Path) -> None:
    """spool-v1-parameters.json was written on the segment's first day, and looked through."""
    wanted = json.loads((GOLDEN / "spool-v1-parameters.json").read_text())
    spool = golden_spool(tmp_path, "spool-v1-parameters")
    listed = angarium("spool", "ls", "--json", "--spool", str(spool))
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [json.loads(line) for line in listed.stdout.splitlines()] == [each["message"] for each in wanted]
    for each in wanted:
        message_id = each["message"]["id"]
        envelope = angarium("spool", "cat", "--envelope", message_id, "--spool", str(spool))
        assert json.loads(envelope.stdout) == each["message"]
    assert angarium("spool", "export", "--all", "--to", str(tmp_path / "mail"), "--spool", str(spool)).returncode == 0
    for each in wanted:
        assert (tmp_path / "mail" / f"{each['message']['id']}.eml").read_bytes() == each["octets"].encode()
