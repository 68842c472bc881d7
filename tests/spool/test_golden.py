"""Segments of every released format version stay readable: sealed, and as a crash left them (no footer)."""

import asyncio
import gzip
import os
from pathlib import Path

import pytest

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
        assert shard.reports() == []
        shard.close()

    asyncio.run(main())
