"""Octets smuggled through what listed peers say of others (XCLIENT, XFORWARD, PROXY): none gets into a header field,
the log, an envelope (and so into reports, which are made of it), or a table of rights.

The peers are listed, but the values are their clients': a balancer or a filter in front passes on what it was told.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from inbound.intake_harness import IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.claims import XCLIENT_NAMES, XFORWARD_NAMES

HERE = ["127.0.0.0/8"]
# Controls, the newline of Unicode's C1 part, and what means something in a header field, an envelope or a table.
SPECIALS = [bytes([octet]) for octet in b' "(),;<>\\@']
EVIL = [*(bytes([octet]) for octet in (*range(32), 127)), b"\xc2\x85", b"\xff", *SPECIALS]
GOOD = {
    "NAME": "host", "REVERSE_NAME": "host", "ADDR": "192.0.2.7", "DESTADDR": "192.0.2.8", "PORT": "25",
    "DESTPORT": "25", "PROTO": "ESMTP", "HELO": "host", "LOGIN": "alice", "IDENT": "4QB2x", "SOURCE": "LOCAL",
}  # fmt: skip
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
INJECTED = b"\r\nX-Evil: yes\r\n"


def xtext(octets: bytes) -> bytes:
    return b"".join(b"+%02X" % octet for octet in octets)


async def disk_and_log(harness: IntakeHarness, folder: Path) -> tuple[bytes, bytes]:
    harness.journal.flush()
    segments = b"".join(path.read_bytes() for path in (folder / "00").iterdir() if path.is_file())
    return segments, (folder / "events.json").read_bytes()


async def send(peer: SmtpPeer) -> None:
    await peer.open_data()
    assert (await peer.ask(b"Subject: x\r\n\r\nbody\r\n.\r\n")).startswith("250 ")


@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
def test_no_evil_octet_is_taken_in_any_attribute(verb: str, tmp_path: Path) -> None:
    names = XCLIENT_NAMES if verb == "XCLIENT" else XFORWARD_NAMES

    async def main() -> None:
        async with intake_harness(tmp_path, xclient_from=HERE, xforward_from=HERE, max_errors=10_000) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for name in names:
                for evil in EVIL:
                    if name == "LOGIN" and evil in SPECIALS:
                        continue  # an identity may hold them (RFC 4013): it is escaped where it goes
                    value = GOOD[name].encode()
                    for text in (value + xtext(evil), xtext(evil) + value, value + xtext(evil + INJECTED)):
                        reply = await peer.ask(f"{verb} {name}=".encode() + text + b"\r\n")
                        assert reply.startswith("501 5.5.4 "), (name, text, reply)
                        assert len(reply) <= 510
                        assert "Evil" not in reply
            await send(peer)
            disk, log = await disk_and_log(harness, tmp_path)
            assert b"Subject: x" in disk
            assert b"Evil" not in disk + log
            assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", log)
            assert [json.loads(line)["event"] for line in log.splitlines()].count("received") == 1

    run(main())


def test_what_is_taken_stands_in_the_trace_field_and_the_log_as_one_value(tmp_path: Path) -> None:
    """An identity may hold blanks, quotes and brackets: neither a line of the log nor the field breaks."""

    async def main() -> None:
        async with intake_harness(tmp_path, xclient_from=HERE, relay_to=["y.example"]) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            login = b'al,ice") (x <y>; \\z'
            claim = b"XCLIENT NAME=%s HELO=host PROTO=ESMTP ADDR=192.0.2.7 LOGIN=%s\r\n" % (b"n" * 255, xtext(login))
            assert (await peer.ask(claim)).startswith("220 ")
            await send(peer)
            disk, log = await disk_and_log(harness, tmp_path)
            field = disk[disk.rindex(b"Received: ") : disk.rindex(b"Subject: x")]
            assert re.fullmatch(rb"Received: [ -~]+\r\n(?:[ \t][ -~]+\r\n)*", field), field
            assert max(map(len, field.split(b"\r\n"))) <= 998
            assert b"<y>" not in field
            (event,) = [each for each in map(json.loads, log.splitlines()) if each["event"] == "received"]
            assert event["client"] == "192.0.2.7"
            assert event["user"] == login.decode()

    run(main())


def v2(family: int, addresses: bytes, tlvs: bytes) -> bytes:
    rest = addresses + tlvs
    return SIGNATURE + b"\x21" + bytes([family]) + struct.pack(">H", len(rest)) + rest


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + struct.pack(">H", len(value)) + value


IPV4 = b"\xc0\0\2\7" * 2 + struct.pack(">HH", 1, 2)
TLVS = b"".join(tlv(kind, INJECTED * 4) for kind in (1, 2, 3, 4, 5, 0x20, 0x21, 0x25, 0xE0))


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.7" + INJECTED,
        b"PROXY TCP4 192.0.2.7\n192.0.2.8 1 2\r\n",
        b"PROXY TCP4 192.0.2.7\x00 192.0.2.8 1 2\r\n",
        b"PROXY TCP6 fe80::7%\x1b[31m ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 X-Evil\r\n",
        b"PROXY UNKNOWN X-Evil\x07\r\n",
        v2(0x31, (INJECTED * 8)[:108] * 2, b""),
        v2(0x11, IPV4, TLVS),
        v2(0x21, IPV4 * 3, TLVS),
    ],
)
def test_of_a_proxy_header_nothing_is_kept_but_an_address(header: bytes, tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, proxy_from=HERE, relay_to=["y.example"]) as harness:
            peer = await SmtpPeer.connect(harness.port)
            peer.say(header)
            try:
                is_greeted = (await peer.reply()).startswith("220 ")
            except ConnectionError:
                is_greeted = False
            if is_greeted:
                assert (await peer.ask(b"EHLO c.example\r\n")).startswith("250 ")
                await send(peer)
            disk, log = await disk_and_log(harness, tmp_path)
            assert b"Evil" not in disk + log
            assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", log)
            assert (b"Subject: x" in disk) == is_greeted
            assert all(
                re.fullmatch(r"[0-9.]+|IPv6:[0-9a-f:.]+", json.loads(line)["client"]) for line in log.splitlines()
            )

    run(main())
