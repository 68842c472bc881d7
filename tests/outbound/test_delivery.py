"""Messages from a real queue over real sockets to a server that does as it is told."""

from __future__ import annotations

import asyncio
import functools
import pathlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from outbound.fault_server import CLOSE, RESET, SILENCE, Fault, fault_server
from outbound.outgoing import HOSTNAME, MESSAGE, Outgoing, outgoing, run, smtp_site, until

from angarium.model.plan import Host, Site, Source
from angarium.model.units import Duration
from angarium.outbound.options import OutboundOptions
from angarium.queue.shaping_options import ShapingOptions

FLAG_8BIT, FLAG_SMTPUTF8, FLAG_BODY_8BITMIME, FLAG_DOT_LINE, FLAG_NO_FINAL_CRLF = 1, 2, 4, 8, 16
BDAT = [b"PIPELINING", b"CHUNKING"]


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run(asyncio.wait_for(test(*args, **kwargs), 30))

    return wrapper


def to_here(port: int) -> dict[bytes, Site]:
    return {b"*": smtp_site(port)}


ONE_CONNECTION = ShapingOptions(connections=1)


@on_uvloop
async def test_a_message_arrives_unchanged(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        body = b"Subject: dots\r\n\r\n.\r\n..two\r\nend\r\n"
        await relay.send(b"b@y.example", body, flags=FLAG_DOT_LINE)
        (event,) = await relay.outcomes(1)
        assert event["event"] == "delivered"
        assert event["remote"] == f"mx0.example.net[127.0.0.1]:{server.port}"
        (received,) = server.received
        assert received.message == body
        assert received.mail.startswith(b"MAIL FROM:<a@x.example>")
        assert received.rcpts == [b"RCPT TO:<b@y.example>"]
        assert server.commands[0] == b"EHLO " + HOSTNAME.encode()


@on_uvloop
async def test_recipients_of_one_message_share_a_transaction(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        recipients = [b"r%d@y.example" % i for i in range(250)]
        await relay.send(recipients)
        await relay.outcomes(250)
        assert sorted(len(each.rcpts) for each in server.received) == [50, 100, 100]
        assert sorted(rcpt for each in server.received for rcpt in each.rcpts) == sorted(
            b"RCPT TO:<%b>" % each for each in recipients
        )


@on_uvloop
async def test_under_load_body_and_next_transaction_leave_together(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(50)))
        await relay.outcomes(50)
        assert server.connections == 1
        assert len(server.received) == 50
        # RFC 2920 §3.1: behind the first 354 one write, and so one read here, per message.
        assert len(server.reads[0]) <= 1 + 1 + 50 + 3
        assert any(read.startswith(MESSAGE + b".\r\nMAIL FROM:") for read in server.reads[0])


@on_uvloop
async def test_connection_is_kept_for_the_next_message_and_left_with_quit(tmp_path: pathlib.Path) -> None:
    shaping = ShapingOptions(idle_time=Duration(0.3))
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay:
        for i in range(3):
            await relay.send(b"b@y.example")
            await relay.outcomes(i + 1)
        assert server.connections == 1
        await until(lambda: server.quits == 1 and server.open_now == 0)
        await until(lambda: relay.dispatcher.status()[0]["idle"] == 0)
        await relay.send(b"b@y.example")
        await relay.outcomes(4)
        assert server.connections == 2


@on_uvloop
async def test_messages_per_connection_is_kept(tmp_path: pathlib.Path) -> None:
    shaping = ShapingOptions(connections=1, messages_per_connection=3)
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay:
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(10)))
        await relay.outcomes(10)
        per_connection = [
            sum(each.connection == number for each in server.received) for number in range(1, 5)
        ]
        assert per_connection == [3, 3, 3, 1]
        await until(lambda: server.quits == 3)


@on_uvloop
async def test_connections_stay_below_the_limit(tmp_path: pathlib.Path) -> None:
    shaping = ShapingOptions(connections=3)
    most = 0

    def slow(_: bytes) -> Fault:
        nonlocal most
        most = max(most, server.open_now)
        return None

    async with (
        fault_server(faults={"END": slow}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(60)))
        await relay.outcomes(60)
        assert 1 <= most <= 3
        assert server.connections <= 3


@on_uvloop
async def test_without_pipelining_step_by_step(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(extensions=[]) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(5)))
        await relay.outcomes(5)
        assert len(server.received) == 5
        assert all(read.count(b"\r\n") == 1 or read.startswith(b"Subject") for read in server.reads[0])


@on_uvloop
async def test_an_old_server_is_served_with_helo(tmp_path: pathlib.Path) -> None:
    async with fault_server(extensions=None) as server, outgoing(tmp_path, to_here(server.port)) as relay:
        await relay.send(b"b@y.example")
        assert [event["event"] for event in await relay.outcomes(1)] == ["delivered"]
        assert server.commands[1].startswith(b"HELO ")


@on_uvloop
async def test_bdat_takes_one_round_trip(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(extensions=BDAT) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        body = b"Subject: dots\r\n\r\n.\r\nno line end"
        await relay.send(b"b@y.example", body, flags=FLAG_DOT_LINE | FLAG_NO_FINAL_CRLF)
        await relay.outcomes(1)
        (received,) = server.received
        assert received.message == body
        assert received.by == "BDAT"
        assert len(server.reads[0]) == 2, "EHLO, and then everything at once"


@on_uvloop
async def test_a_body_for_several_waits_for_an_accepted_recipient(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(extensions=BDAT, faults={"RCPT": b"550 5.1.1 no\r\n"}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send([b"b@y.example", b"c@y.example"], b"Subject: x\r\n\r\n.dot\r\n", flags=FLAG_DOT_LINE)
        assert {event["event"] for event in await relay.outcomes(2)} == {"failed"}
        assert not any(line.startswith(b"BDAT") for line in server.commands)


@pytest.mark.parametrize("extensions", [BDAT, [b"PIPELINING"], []])
@on_uvloop
async def test_large_bodies_arrive_whole(tmp_path: pathlib.Path, extensions: list[bytes]) -> None:
    lines = b"".join(b"." * (i % 3) + b"%06d " % i + b"x" * 60 + b"\r\n" for i in range(12_000))
    body = b"Subject: large\r\n\r\n" + lines
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(b"b@y.example", body, flags=FLAG_DOT_LINE)
        await relay.send([b"b@y.example", b"c@y.example"], body, flags=FLAG_DOT_LINE)
        await relay.outcomes(3)
        assert [each.message for each in server.received] == [body, body]


@on_uvloop
async def test_a_message_that_left_memory_is_read_back(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server.port), hot_limit_octets=0) as relay,
    ):
        bodies = [b"Subject: %d\r\n\r\n" % i + b"x" * 100 * i + b"\r\n" for i in range(20)]
        for body in bodies:
            await relay.send(b"b@y.example", body)
        await relay.outcomes(20)
        assert sorted(each.message for each in server.received) == sorted(bodies)


# ---------------------------------------------------------------- faults, one command after the other

VERBS = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "END"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "fault",
    [
        b"451 4.3.0 later\r\n",
        b"421 4.3.2 closing\r\n",
        CLOSE,
        RESET,
        b"garbage\r\n",
        b"250 ok\n",
        b"354 go\r\n",
    ],
)
@on_uvloop
async def test_a_passing_fault_defers_once_and_everything_else_arrives(
    tmp_path: pathlib.Path, verb: str, fault: Fault
) -> None:
    """Whatever goes wrong once, at whatever command: one deferral at most, and no other message suffers."""
    if verb == "DATA" and fault == b"354 go\r\n":
        pytest.skip("that is no fault")
    faults: list[Fault] = [None, None, None, fault] if verb in ("MAIL", "RCPT", "DATA", "END") else [fault]
    async with (
        fault_server(faults={verb: faults}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(8)))
        outcomes = await relay.outcomes(8)
        kinds = [event["event"] for event in outcomes]
        if verb in ("greeting", "EHLO"):
            assert set(kinds) <= {"deferred", "delivered"}
            return
        expected_deferrals = 0 if fault == b"421 4.3.2 closing\r\n" and verb != "END" else 1
        if fault in (CLOSE, RESET) and verb == "MAIL":
            expected_deferrals = 0  # the connection had served before: its end says nothing of this message
        assert kinds.count("deferred") == expected_deferrals, outcomes
        assert kinds.count("delivered") == 8 - expected_deferrals
        for event in outcomes:
            if event["event"] == "deferred":
                assert event["status"].startswith("4."), event
        delivered = {event["to"].encode() for event in outcomes if event["event"] == "delivered"}
        received = {rcpt[9:-1] for each in server.received for rcpt in each.rcpts}
        assert delivered <= received


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "END"])
@pytest.mark.parametrize("extensions", [BDAT, [b"PIPELINING"], []])
@on_uvloop
async def test_a_refusal_fails_that_message_alone(
    tmp_path: pathlib.Path, verb: str, extensions: list[bytes]
) -> None:
    if verb == "DATA" and b"CHUNKING" in extensions:
        pytest.skip("no DATA there")
    faults: dict[str, Any] = {verb: [None, b"554 5.7.1 not this one\r\n"]}
    async with (
        fault_server(faults=faults, extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(6)))
        outcomes = await relay.outcomes(6)
        failed = [event for event in outcomes if event["event"] == "failed"]
        assert len(failed) == 1
        assert failed[0]["status"] == "5.7.1"
        assert failed[0]["code"] == 554
        assert len([event for event in outcomes if event["event"] == "delivered"]) == 5
        assert server.connections == 1, "a refusal does not cost the connection"


@on_uvloop
async def test_too_many_recipients_go_in_the_next_transaction(tmp_path: pathlib.Path) -> None:
    count = 0

    def ten_at_most(line: bytes) -> Fault:
        nonlocal count
        count += 1
        return b"452 4.5.3 too many recipients\r\n" if count > 10 else None

    def begin(line: bytes) -> Fault:
        nonlocal count
        count = 0
        return None

    async with (
        fault_server(faults={"RCPT": ten_at_most, "MAIL": begin}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send([b"r%d@y.example" % i for i in range(35)])
        assert {event["event"] for event in await relay.outcomes(35)} == {"delivered"}
        assert [len(each.rcpts) for each in server.received] == [10, 10, 10, 5]


@on_uvloop
async def test_some_recipients_refused_some_deferred_some_delivered(tmp_path: pathlib.Path) -> None:
    def by_name(line: bytes) -> Fault:
        if b"bad" in line:
            return b"550 5.1.1 no such mailbox\r\n"
        return b"450 mailbox busy\r\n" if b"busy" in line else None

    async with (
        fault_server(faults={"RCPT": by_name}) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send([b"bad@y.example", b"good@y.example", b"busy@y.example", b"fine@y.example"])
        told = {event["to"]: (event["event"], event.get("status")) for event in await relay.outcomes(4)}
        assert told["bad@y.example"] == ("failed", "5.1.1")
        assert told["busy@y.example"] == ("deferred", "4.2.0")
        assert told["good@y.example"][0] == told["fine@y.example"][0] == "delivered"
        classes = {event["to"]: event.get("class") for event in relay.events("delivered", "deferred", "failed")}
        assert (classes["bad@y.example"], classes["busy@y.example"]) == ("bad-mailbox", "mailbox-trouble")
        assert classes["good@y.example"] is classes["fine@y.example"] is None


@on_uvloop
async def test_a_full_mailbox_among_others_is_not_taken_for_too_many_recipients(tmp_path: pathlib.Path) -> None:
    def by_name(line: bytes) -> Fault:
        return b"452 4.2.2 over quota\r\n" if b"full" in line else None

    async with (
        fault_server(faults={"RCPT": by_name}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send([b"a@y.example", b"full@y.example", b"c@y.example"])
        told = {event["to"]: (event["event"], event.get("class")) for event in await relay.outcomes(3)}
        assert told["full@y.example"] == ("deferred", "mailbox-full")
        assert sum(b"full" in command for command in server.commands) == 1


@pytest.mark.parametrize("fault", [b"503 5.5.1 nested MAIL\r\n", b"452 4.5.3 too many messages, open another\r\n"])
@pytest.mark.parametrize("extensions", [[b"PIPELINING"], [b"PIPELINING", b"CHUNKING"], []])
@on_uvloop
async def test_a_connection_that_takes_no_more_mail_is_left_for_another_without_an_attempt(
    tmp_path: pathlib.Path, fault: bytes, extensions: list[bytes]
) -> None:
    mails = 0

    def second_of_each(line: bytes) -> Fault:
        nonlocal mails
        mails += 1
        return fault if mails % 2 == 0 else None

    async with (
        fault_server(faults={"MAIL": second_of_each}, extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send([b"r%d@y.example" % i, b"s%d@y.example" % i]) for i in range(6)))
        outcomes = await relay.outcomes(12)
        assert {(event["event"], event["attempt"]) for event in outcomes} == {("delivered", 1)}
        assert len(server.received) == 6
        assert server.connections > 1


# ---------------------------------------------------------------- hosts and sites


@on_uvloop
async def test_when_all_hosts_fail_the_line_says_so(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={"greeting": b"554 5.7.1 blocked using dnsbl.example\r\n"}) as refusing:
        sites = {b"*": smtp_site(1, refusing.port)}
        async with outgoing(tmp_path, sites, shaping=ONE_CONNECTION) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "deferred"
            assert event["reply"] == "all 2 addresses failed, the last with: 5.7.1 blocked using dnsbl.example"
            assert event["class"] == "spam-source"


@on_uvloop
async def test_next_host_takes_the_mail_when_the_first_will_not(tmp_path: pathlib.Path) -> None:
    """RFC 5321 §5.1: by preference, and on to the next when one cannot be reached or will not talk."""
    async with fault_server(faults={"greeting": b"554 no\r\n"}) as refusing, fault_server() as good:
        sites = {b"*": smtp_site(refusing.port, 1, good.port)}
        async with outgoing(tmp_path, sites, shaping=ONE_CONNECTION) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "delivered"
            assert event["remote"].startswith("mx2.example.net[")
            assert len(relay.dispatcher.dialer.broken) == 2
        assert refusing.connections == 1


@pytest.mark.parametrize(
    "fault", [b"421 4.3.2 too busy\r\n", b"450 later\r\n", b"554 never\r\n", CLOSE, b"???\r\n"]
)
@on_uvloop
async def test_a_site_that_will_not_talk_defers_everything_with_one_dial(
    tmp_path: pathlib.Path, fault: Fault
) -> None:
    options = OutboundOptions(site_pause_first_s=60)
    async with (
        fault_server(faults={"greeting": fault}) as server,
        outgoing(tmp_path, to_here(server.port), options=options, shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(10)))
        await until(lambda: relay.events("deferred"))
        deferred = len(relay.events("deferred"))
        assert all(event["status"].startswith("4.") for event in relay.events("deferred"))
        await relay.send(b"later@y.example")
        assert server.connections == 1, "one dial an interval, not one a message"
        assert len(relay.events("deferred")) == deferred


@on_uvloop
async def test_a_site_that_comes_back_is_found_after_the_pause(tmp_path: pathlib.Path) -> None:
    options = OutboundOptions(site_pause_first_s=0.2)
    async with (
        fault_server(faults={"greeting": [CLOSE]}) as server,
        outgoing(tmp_path, to_here(server.port), options=options, shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send(b"first@y.example")
        await relay.outcomes(1)
        await relay.send(b"second@y.example")
        assert [event["event"] for event in await relay.outcomes(2)] == ["deferred", "delivered"]


@on_uvloop
async def test_host_that_does_not_accept_mail_at_all_fails(tmp_path: pathlib.Path) -> None:
    """RFC 7504 §4: 521 from every host of the site is for good."""
    async with (
        fault_server(faults={"greeting": b"521 5.3.2 no mail here\r\n"}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send(b"b@y.example")
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["code"], event["status"]) == ("failed", 521, "5.3.2")


@on_uvloop
async def test_source_address_is_bound_and_its_name_said(tmp_path: pathlib.Path) -> None:
    source = Source("ip-2", "127.0.0.2", "out2.example.org")
    peers: list[str] = []
    async with fault_server() as server:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peers.append(writer.get_extra_info("peername")[0])
            await server.serve(reader, writer)

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with outgoing(tmp_path, to_here(port), source=source) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "delivered"
            assert event["source"] == "ip-2"
        assert peers == ["127.0.0.2"]
        assert server.commands[0] == b"EHLO out2.example.org"
        listening.close()


@on_uvloop
async def test_no_address_of_the_family_of_the_source(tmp_path: pathlib.Path) -> None:
    source = Source("v6", "::1")
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), source=source) as relay:
        await relay.send(b"b@y.example")
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.4.4")
        assert server.connections == 0


# ---------------------------------------------------------------- what a host does not offer


@pytest.mark.parametrize(
    ("flags", "recipient", "extensions", "outcome", "status"),
    [
        (FLAG_8BIT | FLAG_BODY_8BITMIME, b"b@y.example", [], "failed", "5.6.3"),  # RFC 6152 §3
        (FLAG_BODY_8BITMIME, b"b@y.example", [], "delivered", None),  # declared, but 7-bit all the same
        (FLAG_8BIT, b"b@y.example", [], "delivered", None),  # never declared: passed on as it came
        (FLAG_SMTPUTF8, "ü@y.example".encode(), [b"8BITMIME"], "failed", "5.6.7"),  # RFC 6531 §3.2
        (FLAG_SMTPUTF8, b"b@y.example", [b"8BITMIME"], "delivered", None),  # no address needs it
        (FLAG_SMTPUTF8, "ü@y.example".encode(), [b"8BITMIME", b"SMTPUTF8"], "delivered", None),
        (0, b"b@y.example", [b"SIZE 10"], "failed", "5.3.4"),  # RFC 1870 §6.2
        (0, b"b@y.example", [b"SIZE 0"], "delivered", None),  # RFC 1870 §4: no limit
        (0, b"b@y.example", [b"SIZE 1000"], "delivered", None),
    ],
)
@on_uvloop
async def test_what_the_host_does_not_offer(
    *,
    tmp_path: pathlib.Path,
    flags: int,
    recipient: bytes,
    extensions: list[bytes],
    outcome: str,
    status: str | None,
) -> None:
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(recipient, flags=flags)
        (event,) = await relay.outcomes(1)
        assert event["event"] == outcome
        if status:
            assert event["status"] == status
            assert not any(line.startswith(b"MAIL") for line in server.commands)


@on_uvloop
async def test_only_the_recipients_that_need_smtputf8_fail(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        await relay.send([b"b@y.example", "ü@y.example".encode(), b"c@y.example"], flags=FLAG_SMTPUTF8)
        told = {event["to"]: event["event"] for event in await relay.outcomes(3)}
        assert told == {"b@y.example": "delivered", "ü@y.example": "failed", "c@y.example": "delivered"}
        assert [len(each.rcpts) for each in server.received] == [2]


# ---------------------------------------------------------------- LMTP


@on_uvloop
async def test_lmtp_over_tcp_with_a_reply_for_each(tmp_path: pathlib.Path) -> None:
    def by_name(rcpt: bytes) -> Fault:
        return b"452 4.2.2 full\r\n" if b"full" in rcpt else None

    async with fault_server(is_lmtp=True, faults={"END": by_name}) as server:
        site = smtp_site(server.port, protocol="lmtp")
        async with outgoing(tmp_path, {b"*": site}, shaping=ONE_CONNECTION) as relay:
            await asyncio.gather(
                *(relay.send([b"a@y.example", b"full@y.example", b"c@y.example"]) for _ in range(5))
            )
            outcomes = await relay.outcomes(15)
            assert sum(event["event"] == "delivered" for event in outcomes) == 10
            assert {event["to"] for event in outcomes if event["event"] == "deferred"} == {"full@y.example"}
            assert server.commands[0].startswith(b"LHLO ")
            assert server.connections == 1


@on_uvloop
async def test_lmtp_over_a_unix_socket(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lmtp.sock")
    async with fault_server(is_lmtp=True, path=path) as server:
        site = Site(f"lmtp+unix:{path}", "lmtp+unix", (), path)
        async with outgoing(tmp_path, {b"*": site}) as relay:
            await relay.send([b"a@y.example", b"b@y.example"])
            outcomes = await relay.outcomes(2)
            assert {event["event"] for event in outcomes} == {"delivered"}
            assert outcomes[0]["remote"] == path
            assert len(server.received) == 1


@on_uvloop
async def test_lmtp_socket_that_is_not_there(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "nobody.sock")
    async with outgoing(tmp_path, {b"*": Site(f"lmtp+unix:{path}", "lmtp+unix", (), path)}) as relay:
        await relay.send(b"a@y.example")
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.4.1")


@on_uvloop
async def test_lmtp_connection_lost_between_two_replies(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(is_lmtp=True, faults={"END": [None, CLOSE]}) as server,
        outgoing(tmp_path, {b"*": smtp_site(server.port, protocol="lmtp")}) as relay,
    ):
        await relay.send([b"a@y.example", b"b@y.example", b"c@y.example"])
        told = {event["to"]: event["event"] for event in await relay.outcomes(3)}
        assert told == {"a@y.example": "delivered", "b@y.example": "deferred", "c@y.example": "deferred"}


# ---------------------------------------------------------------- time, loops, the end


@pytest.mark.parametrize("verb", ["MAIL", "END"])
@on_uvloop
async def test_silence_ends_with_the_deadline_of_the_command(tmp_path: pathlib.Path, verb: str) -> None:
    async with (
        fault_server(faults={verb: SILENCE}) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(b"b@y.example")
        await until(
            lambda: (
                any(line.startswith(b"DATA") for line in server.commands)
                or (verb == "MAIL" and any(line.startswith(b"MAIL") for line in server.commands))
            )
        )
        relay.wheel.advance_by_ms(290_000)
        assert not relay.events("deferred")
        relay.wheel.advance_by_ms(320_000)
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.4.2")
        assert "timed out at" in event["reply"]


@on_uvloop
async def test_a_reply_octet_by_octet_does_not_move_the_deadline(tmp_path: pathlib.Path) -> None:
    """RFC 5321 §4.5.3.2 gives five minutes for the reply to MAIL, not five minutes for each octet of it."""
    dribbled = 0

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dribbled
        writer.write(b"220 slow\r\n")
        await reader.readline()
        writer.write(b"250-slow\r\n250 PIPELINING\r\n")
        await reader.readline()
        for octet in b"250-this reply takes its time and takes its time and never ends":
            writer.write(bytes([octet]))
            dribbled += 1
            await asyncio.sleep(0.02)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    async with outgoing(tmp_path, to_here(server.sockets[0].getsockname()[1])) as relay:
        await relay.send(b"b@y.example")
        for count in range(1, 21):
            await until(lambda count=count: dribbled >= count or relay.events("deferred"))
            relay.wheel.advance_by_ms(20_000)
        (event,) = await relay.outcomes(1)
        assert event["event"] == "deferred"
        assert event["reply"].startswith("timed out at MAIL")
    server.close()


@on_uvloop
async def test_greeting_with_our_own_name_is_a_loop_on_port_25_only(tmp_path: pathlib.Path) -> None:
    greeting = f"220 {HOSTNAME} ESMTP\r\n".encode()
    async with (
        fault_server(faults={"greeting": greeting}) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(b"b@y.example")
        (event,) = await relay.outcomes(1)
        assert event["event"] == "delivered", "another port may well be a filter of ours"


@on_uvloop
async def test_draining_finishes_what_is_in_hand_and_says_quit(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(20)))
        await until(lambda: server.received)
        assert await relay.dispatcher.drain(5.0)
        await until(lambda: server.quits == server.connections)  # the QUIT may still be on its way to the server
        settled = len(relay.events("delivered"))
        assert settled == len(server.received)
        assert relay.scheduler.depth()["recipients"] >= 0


@on_uvloop
async def test_draining_ends_at_its_deadline_and_loses_nothing(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(3)))
        await until(lambda: any(line.startswith(b"DATA") for line in server.commands))
        await asyncio.sleep(0.05)
        assert not await relay.dispatcher.drain(0.2)
        outcomes = relay.events("delivered", "deferred", "failed")
        assert [event["event"] for event in outcomes] == ["deferred"], (
            "the one whose body was out; the others wait"
        )
        assert relay.scheduler.depth()["messages"] == 3


async def warm(relay: Outgoing, count: int) -> None:
    for i in range(count):
        await relay.send(b"warm@y.example")
        await relay.outcomes(i + 1)


@on_uvloop
async def test_a_kept_connection_that_the_peer_has_closed_costs_no_attempt(tmp_path: pathlib.Path) -> None:
    """The peer closes idle connections sooner than we do: the message that meets that takes a new one."""
    async with (
        fault_server(faults={"MAIL": [None, CLOSE]}) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await warm(relay, 1)
        await relay.send(b"b@y.example")
        assert [event["event"] for event in await relay.outcomes(2)] == ["delivered", "delivered"]
        assert server.connections == 2


@on_uvloop
async def test_hosts_of_equal_preference_share_the_connections(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={}) as one, fault_server(faults={}) as two:
        hosts = (
            Host("a.example", ("127.0.0.1",), one.port, 10),
            Host("b.example", ("127.0.0.1",), two.port, 10),
        )
        shaping = ShapingOptions(connections=40, messages_per_connection=1)
        async with outgoing(tmp_path, {b"*": Site("both", "smtp", hosts)}, shaping=shaping) as relay:
            await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(40)))
            await relay.outcomes(40)
            assert len(one.received) > 4
            assert len(two.received) > 4


async def another_worker_takes_two_places(relay: Outgoing, site: Site) -> None:
    """Worker 1 asks for places of the site, as one with mail does, until it has its half of the four."""
    relay.shares.attach(1)
    share = relay.shares.share(site.name)
    relay.shares.attach(0)

    def ask() -> object:
        relay.shares.attach(1)
        if share.own < 2:
            share.try_connection(4)
        relay.shares.attach(0)
        return share.own == 2

    await until(ask)


@on_uvloop
async def test_idle_surplus_goes_when_another_worker_asks(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={"END": b"250 ok\r\n"}) as server:
        site = smtp_site(server.port)
        shaping = ShapingOptions(connections=4, idle_time=Duration(60))
        async with outgoing(tmp_path, {b"*": site}, shaping=shaping, workers=2) as relay:
            await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(100)))
            await relay.outcomes(100)
            (pool,) = relay.dispatcher.status()
            if pool["idle"] < 4:
                pytest.skip("the burst was over before four connections stood")
            await another_worker_takes_two_places(relay, site)
            assert relay.dispatcher.status()[0]["idle"] == 2
            assert server.quits == 2


@on_uvloop
async def test_busy_surplus_goes_behind_its_transaction(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server:
        site = smtp_site(server.port)
        async with outgoing(
            tmp_path, {b"*": site}, shaping=ShapingOptions(connections=4), workers=2
        ) as relay:
            done = False

            async def keep_sending() -> None:
                while not done:
                    await relay.send(b"b@y.example")

            senders = [asyncio.create_task(keep_sending()) for _ in range(20)]
            await until(lambda: server.open_now == 4)
            await another_worker_takes_two_places(relay, site)
            await until(lambda: server.open_now == 2)
            done = True
            await asyncio.gather(*senders)
            await until(lambda: relay.scheduler.depth()["messages"] == 0)
            assert not relay.events("deferred", "failed")
