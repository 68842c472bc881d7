"""Octets on disk that are not what was written: what the operator is told, and what becomes of the mail."""

from __future__ import annotations

from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import NO_RETRY, metrics, queued_ids, wait_until_empty, wait_until_loaded
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

from angarium.spool.contents import Contents
from angarium.spool.directory import SpoolDirectory, shard_name
from angarium.spool.envelope import Chunk, decode_id

EXPIRED = '[queue.default]\nretry = { first = "1h", max = "1h" }\nmax_age = "1s"\n'
WHY = "message cannot be read from the spool: its octets on disk are damaged"


def message(name: str, octets: int = 500) -> bytes:
    return b"Subject: %s\r\n\r\n" % name.encode() + b"0123456789abcde\r\n" * (octets // 17)


def chunks_of(spool: Path, queue_id: str) -> list[tuple[Path, Chunk]]:
    """The body records of a message, and the files that they lie in."""
    with SpoolDirectory.open_beside_owner(str(spool)) as opened:
        number = decode_id(queue_id) >> 56
        contents = Contents(opened.fd, [shard_name(number)])
        files = {segment.header.serial: spool / segment.path for segment in contents.segments(number)}
        (envelope,) = (
            each.envelope for each in contents.messages(number) if each.envelope.id == decode_id(queue_id)
        )
        return [(files[chunk.segment_serial], chunk) for chunk in envelope.chunks]


def damage(spool: Path, queue_id: str, chunk_index: int = 0) -> tuple[int, int]:
    """Turns one bit of its body around; serial and offset of the record."""
    file, chunk = chunks_of(spool, queue_id)[chunk_index]
    with file.open("r+b") as octets:
        octets.seek(chunk.offset + 32 + chunk.length // 2)
        (octet,) = octets.read(1)
        octets.seek(-1, 1)
        octets.write(bytes([octet ^ 4]))
    return chunk.segment_serial, chunk.offset


def places(relay: RelayProcess, event: str) -> list[tuple[str, int, int]]:
    return [(each["shard"], each["segment"], each["offset"]) for each in relay.events(event)]


def test_a_body_damaged_on_disk_is_told_kept_and_reported_to_its_sender_and_never_sent(tmp_path: Path) -> None:
    is_closed = True
    faults = {"RCPT": lambda line: b"450 4.2.1 later" if is_closed and b"@y.example" in line else None}
    with NextHop(faults=faults) as hop, RelayProcess(tmp_path, hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            small, large, good = (
                client.send(message(name, octets), f"{name}@y.example")
                for name, octets in (("small", 500), ("large", 700_000), ("good", 500))
            )
        wait_for(lambda: len(relay.events("deferred")) == 3, "all wait")
        assert relay.stop() == 0  # sealed: a start reads no bodies
        damaged = {damage(relay.spool, small), damage(relay.spool, large, 2)}
        is_closed = False
        relay.start()
        wait_for(lambda: len(queued_ids(relay)) == 3, "all are loaded")
        assert relay.command("queue", "retry", "--all").returncode == 0
        wait_for(lambda: len(relay.events("deferred")) == 5, "two cannot be read")
        wait_for(lambda: relay.events("delivered"), "the good one leaves")
        assert [event["id"] for event in relay.events("delivered")] == [good]
        for event in relay.events("deferred")[3:]:
            assert event["id"] in (small, large)
            assert (event["status"], event["reply"]) == ("4.3.0", WHY)
        assert queued_ids(relay) == sorted([small, large])
        wait_for(lambda: len(relay.events("spool-damaged")) == 2, "both places are told")
        assert set(places(relay, "spool-damaged")) == {("00", *place) for place in damaged}
        for event in relay.events("spool-damaged"):
            name = f"damaged/{event['segment']}-{event['offset']}.bin"
            assert event["report"].endswith(f"kept in {name}")
            assert (relay.spool / "00" / name).stat().st_size == event["octets"]
        values = metrics(relay)
        assert values["angarium_spool_damaged_records_total"] == 2
        assert values["angarium_spool_unread_segments"] == 0
        assert values["angarium_messages_damaged_total"] == 2

        # Its sender is told once it is too old, and nothing of it is left but the octets that were set aside.
        relay.write_config(hop.route + EXPIRED)
        assert relay.command("reload").returncode == 0
        assert relay.command("queue", "retry", "--all").returncode == 0
        wait_until_empty(relay)
        assert {event["id"] for event in relay.events("expired")} == {small, large}
        hop.wait_for_count(3)
        reports = [each.message for each in hop.deliveries if each.to == ["me@x.example"]]
        assert len(reports) == 2
        assert all(f"    {WHY}\r\n".encode() in report and b"Subject: small" not in report for report in reports)
        assert [each.content for each in hop.deliveries if each.to != ["me@x.example"]] == [message("good")]
        assert len(relay.events("spool-damaged")) == 2, "told once"
        assert len(list((relay.spool / "00" / "damaged").iterdir())) == 2
        assert relay.stop() == 0


def test_damage_met_by_the_home_worker_of_a_site_is_told_for_the_shard_that_it_lies_in(tmp_path: Path) -> None:
    is_closed = True
    faults = {"RCPT": lambda _: b"450 4.2.1 later" if is_closed else None}
    shaping = "[shaping.default]\nconnections = 1\n"
    with NextHop(faults=faults) as hop, RelayProcess(tmp_path, hop.route + NO_RETRY + shaping, workers=2) as relay:
        sent = []
        while len({each[:2] for each in sent}) < 2:
            with SmtpClient(relay.port) as client:
                sent.append(client.send(message("m"), "m@y.example"))
        wait_for(lambda: len(relay.events("deferred")) == len(sent), "all wait")
        assert relay.stop() == 0
        victims = {each[:2]: each for each in sent}.values()  # one of each shard
        damaged = {(shard_name(decode_id(each) >> 56), *damage(relay.spool, each)) for each in victims}
        is_closed = False
        relay.start()
        wait_until_loaded(relay)
        assert relay.command("queue", "retry", "--all").returncode == 0
        wait_for(lambda: len(relay.events("spool-damaged")) == 2, "the damage in both shards is told")
        assert set(places(relay, "spool-damaged")) == damaged
        for shard, segment, offset in damaged:
            assert (relay.spool / shard / "damaged" / f"{segment}-{offset}.bin").exists()
        assert metrics(relay)["angarium_spool_damaged_records_total"] == 2
        wait_for(lambda: queued_ids(relay) == sorted(victims), "all else leaves")
        assert relay.stop() == 0


def test_a_torn_end_is_told_apart_from_damage_before_it(tmp_path: Path) -> None:
    """After kill -9, with the last write half there and a bit turned around in an earlier one."""
    faults = {"RCPT": lambda _: b"450 4.2.1 later"}
    with NextHop(faults=faults) as hop, RelayProcess(tmp_path, hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            ids = [client.send(message(str(number)), "m@y.example") for number in range(4)]
        wait_for(lambda: len(relay.events("deferred")) == 4, "all wait")
        relay.kill()
        middle = damage(relay.spool, ids[1])
        file, last = chunks_of(relay.spool, ids[3])[0]
        with file.open("r+b") as octets:
            octets.seek(last.offset + 32 + last.length // 2)
            octets.write(bytes(64 << 10))
        end = last.segment_serial, last.offset
        relay.start()
        wait_until_loaded(relay)
        names = "spool-damaged", "spool-torn", "spool-unread"
        wait_for(lambda: len(relay.events(*names)) == 3, "the start has told what it found")
        assert places(relay, "spool-damaged") == [("00", *middle)]
        assert places(relay, "spool-torn") == [("00", *end)]
        assert [(each["shard"], each["segment"]) for each in relay.events("spool-unread")] == [("00", middle[0])]
        kept = {path.name for path in (relay.spool / "00" / "damaged").iterdir()}
        assert kept == {f"{middle[0]}-{middle[1]}.bin", f"{end[0]}-{end[1]}.bin"}
        values = metrics(relay)
        assert values["angarium_spool_torn_records_total"] >= 1
        assert values["angarium_spool_damaged_records_total"] == 1
        assert values["angarium_spool_unread_segments"] == 1
        assert set(queued_ids(relay)) >= {ids[0], ids[2]}
        assert ids[3] not in queued_ids(relay)
