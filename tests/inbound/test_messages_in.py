"""Messages from socket to spool: what is acknowledged is there, octet for octet, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from inbound.intake_harness import IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.spool.envelope import Envelope
from angarium.spool.shard import Shard

MESSAGE = b"Subject: hello\r\n\r\n.dot\r\n..\r\nWorld\r\n"
STUFFED = b"Subject: hello\r\n\r\n..dot\r\n...\r\nWorld\r\n.\r\n"


async def stored_messages(folder: Path) -> list[tuple[Envelope, bytes]]:
    """What a worker that starts now finds, in order of arrival: whole messages with their trace field."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, "00", 0, segment_octets=4 << 20)
    shard.attach(asyncio.get_running_loop())
    found = []
    try:
        while (batch := shard.recover()) is not None:
            for recovered in batch:
                envelope = Envelope.parse(recovered.envelope)
                places = [(chunk.segment_serial, chunk.offset, chunk.length) for chunk in envelope.chunks]
                body = b"".join([await shard.fetch(*place) for place in places])
                found.append((recovered.id, envelope, body))
            await asyncio.sleep(0.001)
    finally:
        shard.close()
        os.close(fd)
    return [(envelope, body) for _, envelope, body in sorted(found, key=lambda item: item[0])]


def without_trace(body: bytes) -> bytes:
    """The message behind our Received field."""
    assert body.startswith(b"Received: from ")
    end = 0
    while True:
        end = body.index(b"\r\n", end) + 2
        if body[end : end + 1] not in (b"\t", b" "):
            return body[end:]


def test_acknowledged_message_is_found_by_the_next_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(
                b"MAIL FROM:<a@x.example> BODY=8BITMIME RET=HDRS ENVID=e1\r\n"
                b"RCPT TO:<b@y.example> NOTIFY=NEVER ORCPT=rfc822;b@y.example\r\nDATA\r\n"
            )
            await peer.replies(3)
            reply = await peer.ask(STUFFED)
            assert reply.startswith("250 2.0.0 Ok: queued as ")
            queue_id = reply.rpartition(" ")[2]
            (event,) = harness.events("received")
            assert event["id"] == queue_id
            assert (event["from"], event["to"]) == ("a@x.example", ["b@y.example"])
            assert (event["client"], event["helo"]) == ("127.0.0.1", "client.example")
            assert event["protocol"] == "ESMTP"
        ((envelope, body),) = await stored_messages(tmp_path)
        assert without_trace(body) == MESSAGE
        assert envelope.reverse_path == b"a@x.example"
        assert envelope.envid == b"e1"
        assert [recipient.forward_path for recipient in envelope.recipients] == [b"b@y.example"]
        assert [recipient.orcpt for recipient in envelope.recipients] == [b"rfc822;b@y.example"]
        trace = body[: -len(MESSAGE)].decode()
        assert trace.startswith("Received: from client.example ([127.0.0.1])\r\n\tby mx.test.example with ")
        assert f"id {queue_id}\r\n\tfor <b@y.example>;\r\n\t" in trace
        assert parsedate_to_datetime(trace.rpartition("\t")[2].strip()).tzinfo is not None

    run(main())


def test_several_recipients_are_not_named_in_the_trace_field(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data(recipients=2)
            assert (await peer.ask(b"x\r\n.\r\n")).startswith("250")
        ((envelope, body),) = await stored_messages(tmp_path)
        assert len(envelope.recipients) == 2
        assert b"for <" not in body

    run(main())


def test_by_bdat_and_by_data_the_same_message_is_stored(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            assert (await peer.ask(STUFFED)).startswith("250")
            peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nBDAT 20\r\n" + MESSAGE[:20])
            peer.say(b"BDAT %d LAST\r\n" % len(MESSAGE[20:]) + MESSAGE[20:])
            assert [reply[:3] for reply in await peer.replies(4)] == ["250"] * 4
        first, second = await stored_messages(tmp_path)
        assert without_trace(first[1]) == without_trace(second[1]) == MESSAGE

    run(main())


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_large_message_is_streamed_whole(tmp_path: Path, way: str) -> None:
    async def main() -> None:
        chance = random.Random(1)
        lines = [chance.randbytes(chance.randrange(1, 400)).hex().encode() + b"\r\n" for _ in range(8000)]
        message = b"Subject: large\r\n\r\n" + b"".join(lines)
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            if way == "DATA":
                await peer.open_data()
                peer.say(message + b".\r\n")
            else:
                peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b0@y.example>\r\n")
                await peer.replies(2)
                half = len(message) // 2
                peer.say(b"BDAT %d\r\n" % half + message[:half])
                assert (await peer.reply()).startswith("250")
                peer.say(b"BDAT %d LAST\r\n" % (len(message) - half) + message[half:])
            assert (await peer.reply()).startswith("250 2.0.0 Ok: queued")
            assert harness.intake.active == 0
        ((envelope, body),) = await stored_messages(tmp_path)
        assert len(envelope.chunks) > 2
        assert without_trace(body) == message

    run(main())


def test_many_streamed_messages_share_a_bound_and_all_arrive(tmp_path: Path) -> None:
    """Past 64 MiB on their way to the disk everybody waits for it, and nobody is forgotten."""
    message = (b"a" * 98 + b"\r\n") * 12000
    most = 0

    async def send(harness: IntakeHarness) -> None:
        nonlocal most
        peer = await SmtpPeer.greeted(harness.port)
        await peer.open_data()
        peer.say(message + b".\r\n")
        while peer.writer.transport.get_write_buffer_size():
            most = max(most, harness.intake.unsynced_octets)
            await asyncio.sleep(0)
        assert (await peer.reply()).startswith("250")

    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            await asyncio.gather(*(send(harness) for _ in range(80)))
            assert harness.intake.unsynced_octets == 0
            assert not harness.intake.waiting
            # A run may grow by one read, and the last one of each message does not wait.
            assert most < (64 << 20) + 80 * (512 << 10)

    run(main())


@pytest.mark.parametrize("ending", ["cut", "RSET", "too big", "bare LF"])
def test_half_a_streamed_message_leaves_nothing(tmp_path: Path, ending: str) -> None:
    lines = (b"a" * 98 + b"\r\n") * 20000

    async def main() -> None:
        async with intake_harness(tmp_path, max_message_octets=3 << 20) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nBDAT 2000000\r\n")
            await peer.replies(2)
            peer.say(lines)
            assert (await peer.reply()).startswith("250")
            if ending == "cut":
                peer.cut()
            elif ending == "RSET":
                assert (await peer.ask(b"RSET\r\n")).startswith("250")
            elif ending == "too big":
                assert (await peer.ask(b"BDAT 2000000 LAST\r\n" + lines)).startswith("552")
            else:
                assert (await peer.ask(b"BDAT 2 LAST\r\n\n\n")).startswith("554")
            await harness.until(lambda: harness.intake.active == 0)
            assert harness.events("received") == []
        assert await stored_messages(tmp_path) == []

    run(main())


def test_client_gone_before_the_answer_does_not_lose_a_committed_message(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            peer.say(b"x\r\n.\r\n")
            await harness.until(lambda: harness.intake.active == 0)
            peer.cut()
            await harness.until(lambda: len(harness.events("received")) == 1)
            assert harness.scheduler.depth()["messages"] == 1
            await harness.until(lambda: not harness.intake.clients)

    run(main())


def test_disconnect_at_any_octet_leaves_nothing(tmp_path: Path) -> None:
    group = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
    dialogue = (b"EHLO c.example\r\n", group, b"x\r\n.\r")

    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            octets = b"".join(dialogue)
            for length in range(0, len(octets), 3):
                peer = await SmtpPeer.connect(harness.port)
                await peer.reply()
                left = octets[:length]
                for part in dialogue:
                    if not left:
                        break
                    peer.say(left[: len(part)])
                    if len(left) >= len(part) and part is not dialogue[-1]:
                        await peer.replies(part.count(b"\r\n"))
                    left = left[len(part) :]
                if length % 2:
                    peer.cut()
                else:
                    peer.writer.close()
            await harness.until(lambda: not harness.intake.clients)
            assert harness.intake.active == 0
            assert harness.events("received") == []
            assert harness.listeners[0].context.session_count == 0

    run(main())


@pytest.mark.parametrize("octets", [100, 700_000])
def test_message_that_cannot_be_written_gets_451_and_is_not_there(tmp_path: Path, octets: int) -> None:
    """The kernel refuses to write past a file size: what was answered 250 is there, what was not is not."""
    line = b"a" * 98 + b"\r\n"

    async def main() -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        acknowledged = []
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, limits[1]))
                for number in range(20_000):
                    peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
                    replies = await peer.replies(3)
                    if not replies[0].startswith("250"):
                        assert replies[0].startswith("452 4.3.1")
                        break
                    message = b"Subject: %d\r\n\r\n" % number + line * (octets // 100)
                    reply = await peer.ask(message + b".\r\n")
                    if not reply.startswith("250"):
                        assert reply.startswith(("451 4.3.0", "452 4.3.1"))
                        break
                    acknowledged.append(message)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert number < 19_999
            assert len(harness.events("received")) == len(acknowledged)
            assert (harness.intake.active, harness.intake.committing) == (0, 0)
        assert [without_trace(body) for _, body in await stored_messages(tmp_path)] == acknowledged

    run(main())


def test_client_that_shuts_its_side_down_still_gets_its_replies(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            peer.say(b"x\r\n.\r\n")
            peer.writer.write_eof()
            assert (await peer.rest()).startswith(b"250 2.0.0 Ok: queued")

    run(main())


def test_replies_to_a_group_leave_in_one_write(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.writer.transport.pause_reading()
            sock = socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno()))
            peer.say(b"MAIL FROM:<a@x.example>\r\n" + b"RCPT TO:<b@y.example>\r\n" * 30 + b"DATA\r\n")
            sock.setblocking(False)
            first = await loop.sock_recv(sock, 65536)
            assert first.count(b"\r\n") == 32
            sock.close()

    run(main())


def test_replies_wait_for_a_client_that_does_not_read_and_none_is_lost(tmp_path: Path) -> None:
    """The server stops reading instead of piling replies up; every command is answered in the end."""

    async def main() -> None:
        count = 1_500_000
        async with intake_harness(tmp_path, receive_octets=65536, max_junk=2 * count) as harness:
            reader, writer = await asyncio.open_connection("127.0.0.1", harness.port, limit=1 << 20)
            peer = SmtpPeer(reader, writer)
            await peer.reply()
            await peer.ask(b"EHLO client.example\r\n")
            writer.transport.pause_reading()
            peer.say(b"RSET\r\n" * count + b"QUIT\r\n")
            left = -1
            while left != (left := writer.transport.get_write_buffer_size()):
                await asyncio.sleep(0.1)
            assert left > count
            writer.transport.resume_reading()
            answers = await peer.rest()
            assert answers.count(b"250 2.0.0 Ok\r\n") == count
            assert answers.endswith(b"221 2.0.0 mx.test.example Bye\r\n")

    run(main())
