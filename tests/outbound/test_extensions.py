"""Extensions of MAIL on the way out: what is passed on to which next hop, and what one that lacks them costs."""

from __future__ import annotations

import pathlib
import re
import time

import pytest
from outbound.fault_server import fault_server
from outbound.outgoing import on_uvloop, outgoing, smtp_site, to_here

from angarium.queue.shaping_options import ShapingOptions
from angarium.spool.envelope import Attribute, Flag

BINARY = b"Subject: binary\r\n\r\n\x00\r\n.\r\n\n\r\xff" + bytes(range(256)) + b"no end"
BINARY_FLAGS = Flag.BINARYMIME | Flag.EIGHT_BIT | Flag.DOT_LINE | Flag.NO_FINAL_CRLF


@pytest.mark.parametrize("octets", [len(BINARY), 200_000])
@on_uvloop
async def test_a_binary_message_goes_by_bdat_octet_for_octet(tmp_path: pathlib.Path, octets: int) -> None:
    extensions = [b"PIPELINING", b"CHUNKING", b"BINARYMIME"]
    async with fault_server(extensions=extensions) as server, outgoing(tmp_path, to_here(server.port)) as relay:
        body = (BINARY * (octets // len(BINARY) + 1))[:octets]
        await relay.send(b"b@y.example", body, flags=BINARY_FLAGS)
        (event,) = await relay.outcomes(1)
        assert event["event"] == "delivered", event
        (received,) = server.received
        assert received.message == body
        assert b" BODY=BINARYMIME" in received.mail
        assert b"8BITMIME" not in received.mail
        assert received.by == "BDAT"


@pytest.mark.parametrize("extensions", [[b"8BITMIME"], [b"8BITMIME", b"CHUNKING"], [b"BINARYMIME"]])
@on_uvloop
async def test_a_binary_message_fails_where_it_cannot_go(tmp_path: pathlib.Path, extensions: list[bytes]) -> None:
    async with (
        fault_server(extensions=[b"PIPELINING", *extensions]) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send([b"b@y.example", b"c@y.example"], BINARY, flags=BINARY_FLAGS)
        events = await relay.outcomes(2)
        assert [(event["event"], event["status"]) for event in events] == [("failed", "5.6.1")] * 2
        assert not server.received


@on_uvloop
async def test_a_binary_message_lies_in_a_maildir_as_it_came(tmp_path: pathlib.Path) -> None:
    from angarium.model.plan import Site

    site = Site("maildir", "maildir", (), path=str(tmp_path / "mail" / "{local}"))
    (tmp_path / "mail").mkdir()
    async with outgoing(tmp_path, {b"*": site}) as relay:
        await relay.send(b"b@y.example", BINARY, flags=BINARY_FLAGS)
        (event,) = await relay.outcomes(1)
        assert event["event"] == "delivered"
        (path,) = (tmp_path / "mail").glob("*/new/*")
        assert path.read_bytes() == b"Return-Path: <a@x.example>\r\nDelivered-To: b@y.example\r\n" + BINARY


TERMS = {
    Attribute.PRIORITY: b"-3",
    Attribute.SOLICIT: b"net.example:ADV,org.example:ADV",
}


@on_uvloop
async def test_terms_are_passed_on_with_the_time_that_is_left(tmp_path: pathlib.Path) -> None:
    extensions = [b"PIPELINING", b"DELIVERBY", b"MT-PRIORITY", b"NO-SOLICITING"]
    async with fault_server(extensions=extensions) as server, outgoing(tmp_path, to_here(server.port)) as relay:
        until_s = int(time.time()) + 600
        await relay.send(b"b@y.example", attributes={**TERMS, Attribute.DELIVER_BY: b"%d;RT" % until_s})
        await relay.outcomes(1)
        (received,) = server.received
        assert received.mail.endswith(b" MT-PRIORITY=-3 SOLICIT=net.example:ADV,org.example:ADV")
        by = re.search(rb" BY=(\d+);RT ", received.mail)
        assert by is not None
        assert 500 <= int(by[1]) <= 600


@on_uvloop
async def test_terms_are_left_out_where_they_are_not_offered(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        await relay.send(b"b@y.example", attributes={**TERMS, Attribute.DELIVER_BY: b"%d;N" % (time.time() - 5)})
        (event,) = await relay.outcomes(1)
        assert event["event"] == "delivered"
        assert server.received[0].mail == b"MAIL FROM:<a@x.example>"


@on_uvloop
async def test_less_time_than_the_host_takes_fails(tmp_path: pathlib.Path) -> None:
    extensions = [b"PIPELINING", b"DELIVERBY 700"]
    async with fault_server(extensions=extensions) as server, outgoing(tmp_path, to_here(server.port)) as relay:
        await relay.send(b"b@y.example", attributes={Attribute.DELIVER_BY: b"%d;R" % (time.time() + 600)})
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("failed", "5.4.7")
        assert not server.received


@on_uvloop
async def test_lmtp_in_time_needs_no_extension(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(is_lmtp=True) as server,
        outgoing(tmp_path, {b"*": smtp_site(server.port, protocol="lmtp")}) as relay,
    ):
        await relay.send(b"b@y.example", attributes={Attribute.DELIVER_BY: b"%d;R" % (time.time() + 600)})
        (event,) = await relay.outcomes(1)
        assert event["event"] == "delivered"


@on_uvloop
async def test_limits_of_the_host_are_kept(tmp_path: pathlib.Path) -> None:
    extensions = [b"PIPELINING", b"LIMITS MAILMAX=2 RCPTMAX=3 RCPTDOMAINMAX=2 FOO=1 RCPTMAX=x"]
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ShapingOptions(connections=1)) as relay,
    ):
        await relay.send([b"r%d@y.example" % i for i in range(7)])
        await relay.outcomes(7)
        assert sorted(len(each.rcpts) for each in server.received) == [1, 3, 3]
        assert max(sum(each.connection == number for each in server.received) for number in (1, 2)) == 2
        server.received.clear()
        await relay.send([b"b@one.example", b"b@two.example", b"b@three.example"])
        await relay.outcomes(10)
        assert sorted(len(each.rcpts) for each in server.received) == [1, 2]


@on_uvloop
async def test_a_session_names_no_more_domains_than_the_host_allows(tmp_path: pathlib.Path) -> None:
    """RFC 9422 §4.3 counts per session, not per transaction: the rest goes over another connection."""
    extensions = [b"PIPELINING", b"LIMITS RCPTDOMAINMAX=2"]
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ShapingOptions(connections=1)) as relay,
    ):
        for number in range(5):
            await relay.send(b"b@d%d.example" % number)
            await relay.send(b"c@d%d.example" % number)
        await relay.outcomes(10)
        named: dict[int, set[bytes]] = {}
        for each in server.received:
            named.setdefault(each.connection, set()).update(
                rcpt.rpartition(b"@")[2].rstrip(b">") for rcpt in each.rcpts
            )
        assert sum(map(len, named.values())) >= 5
        assert all(len(domains) <= 2 for domains in named.values()), named


@on_uvloop
async def test_an_idle_session_whose_domains_are_used_up_makes_way(tmp_path: pathlib.Path) -> None:
    extensions = [b"PIPELINING", b"LIMITS RCPTDOMAINMAX=1"]
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ShapingOptions(connections=1)) as relay,
    ):
        for number, domain in enumerate((b"one", b"one", b"two", b"one"), 1):
            await relay.send(b"b@%b.example" % domain)
            await relay.outcomes(number)
        assert [each.connection for each in server.received] == [1, 1, 2, 3]


@on_uvloop
async def test_a_host_without_deliverby_is_asked_to_tell_of_delays(tmp_path: pathlib.Path) -> None:
    """RFC 2852 §4.1.4.2: of by-mode N, in time."""
    async with (
        fault_server(extensions=[b"PIPELINING", b"DSN"]) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(b"b@y.example", attributes={Attribute.DELIVER_BY: b"%d;N" % (time.time() + 600)})
        await relay.outcomes(1)
        assert server.received[0].rcpts == [b"RCPT TO:<b@y.example> NOTIFY=FAILURE,DELAY"]
        await relay.send(b"c@y.example", attributes={Attribute.DELIVER_BY: b"%d;N" % (time.time() - 600)})
        await relay.outcomes(2)
        assert server.received[1].rcpts == [b"RCPT TO:<c@y.example>"]
