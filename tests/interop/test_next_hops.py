"""Next hops that others wrote: Postfix, and its smtp-sink with a fault at each command."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, QUICK_RETRY, clean_relay, outcomes, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from end_to_end.test_messages import large_message
from interop.programs import postfix, smtp_sink
from relay_process import RelayProcess, wait_for

COUNT = 2


def send(relay: RelayProcess, count: int = COUNT) -> list[str]:
    """Messages with a null reverse-path (no reports in the way); their recipients."""
    names = [f"r{number}@y.example" for number in range(count)]
    with SmtpClient(relay.port) as client:
        for name in names:
            client.send(MESSAGE, name, reverse_path="")
    return names


@pytest.mark.parametrize("command", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".", "RSET", "QUIT"])
@pytest.mark.parametrize(
    ("option", "meaning"),
    [("-r", "refused for now"), ("-f", "refused for good"), ("-q", "hung up on"), ("-Q", "told 421")],
)
def test_a_fault_at_a_command_has_the_outcome_it_should(
    tmp_path: Path, option: str, meaning: str, command: str
) -> None:
    """`meaning` is for people who read the test's name."""
    if option == "-f" and command in ("MAIL", "RCPT", "DATA", "."):
        expected = "failed"
    elif command in ("RSET", "QUIT") or (command == "EHLO" and option == "-f"):
        # Whatever is said to RSET or QUIT, the mail is delivered; without EHLO there is HELO (RFC 5321 §3.2).
        expected = "delivered"
    else:
        expected = "deferred"
    with smtp_sink(option, command) as sink, clean_relay(tmp_path, sink.route + NO_RETRY) as relay:
        names = send(relay)
        # Behind a lost connection the site is left alone for a few seconds.
        wait_for(lambda: len(outcomes(relay)) == COUNT, "each has an outcome", 60)
        assert {each[-1] for each in outcomes(relay).values()} == {expected}
        assert set(outcomes(relay)) == set(names)


@pytest.mark.parametrize(
    "options",
    ["", "-e", "-p", "-8", "-E", "-N", "-P", "-T 100", "-w 1", "-p -W .:1", "-h x"],
    ids=lambda options: options or "plain",
)
def test_a_plain_old_or_slow_sink_gets_everything(tmp_path: Path, options: str) -> None:
    """-e: no EHLO, -p: no PIPELINING, -8: no 8BITMIME, -E: no enhanced codes, -N: no DSN, -P: a PIX in front,
    -T: a tiny TCP window, -w and -W: slow answers (with PIPELINING smtp-sink -W answers out of order)."""
    with smtp_sink(*options.split(), keep=True) as sink, clean_relay(tmp_path, sink.route) as relay:
        send(relay)
        wait_for(lambda: len(relay.events("delivered")) == COUNT, "all are delivered", 40)
        assert not relay.events("deferred", "failed")
        wait_for(lambda: len(sink.messages()) == COUNT, "the sink has kept them")
        for message in sink.messages():
            assert message.rstrip(b"\n").endswith(MESSAGE.replace(b"\r\n", b"\n").rstrip(b"\n"))


def test_a_sink_that_aborts_behind_data_gets_the_message_again(tmp_path: Path) -> None:
    """-A: 550 after 354, and nothing of the message is read: the reply comes before the end of data."""
    message = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 20_000
    with smtp_sink("-A", "0") as sink, clean_relay(tmp_path, sink.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            client.send(message, "a@y.example", reverse_path="")
        wait_for(lambda: relay.events("deferred", "failed"), "it has an outcome", 40)


@pytest.mark.timeout(120)
def test_a_sink_that_is_now_and_then_slow_gets_everything(tmp_path: Path) -> None:
    with smtp_sink("-p", "-W", "MAIL:1:5", keep=True) as sink, clean_relay(
        tmp_path, sink.route + QUICK_RETRY, workers=2
    ) as relay:
        send(relay, 200)
        wait_until_empty(relay, 60)
        wait_for(lambda: len(sink.messages()) == 200, "all are kept")


@pytest.mark.timeout(180)
def test_postfix_as_next_hop(tmp_path: Path) -> None:
    """Postfix in the middle: what we sent arrives behind it octet for octet, but for the trace fields."""
    with NextHop() as last, postfix(last.port) as peer, clean_relay(tmp_path, peer.route, workers=2) as relay:
        body = large_message(2_000_000)
        names = send(relay, 300)
        with SmtpClient(relay.port) as client:
            client.send(body, "large@y.example")
            client.send("Subject: ü\r\n\r\nü\r\n".encode(), "eight@y.example", mail=" BODY=8BITMIME")
            client.send(b"Subject: x\r\n\r\nx\r\n", "ж@y.example", reverse_path="ü@x.example", mail=" SMTPUTF8")
            client.send(MESSAGE, *(f"many{number}@y.example" for number in range(90)))
        wait_for(lambda: len(relay.events("delivered")) == 393, "Postfix has taken all", 60)
        wait_for(lambda: peer.queue_is_empty() and len(last.deliveries) >= 304, "all came through both", 60)
        by_recipient = {to: delivery for delivery in last.deliveries for to in delivery.to}
        assert set(names) <= set(by_recipient)
        assert len(by_recipient) == 393
        assert by_recipient["large@y.example"].message.endswith(body.partition(b"\r\n\r\n")[2])
        assert by_recipient["r0@y.example"].message.endswith(MESSAGE.partition(b"\r\n\r\n")[2])
        assert not relay.events("deferred", "failed")
        assert not [event for event in relay.events("delivered") if event["code"] != 250]


@pytest.mark.timeout(180)
def test_what_postfix_refuses_or_defers_is_reported_and_tried_again(tmp_path: Path) -> None:
    access = (
        "smtpd_recipient_restrictions = check_recipient_access inline:{"
        "{ never@y.example = 550 5.1.1 nobody },"
        "{ later@y.example = 450 4.2.0 later }, { full@y.example = 452 4.2.2 full } }\n"
    )
    with NextHop() as last, postfix(last.port, access) as peer, clean_relay(
        tmp_path, peer.route + QUICK_RETRY
    ) as relay:
        with SmtpClient(relay.port) as client:
            client.send(
                MESSAGE, "now@y.example", "never@y.example", "later@y.example", "full@y.example",
                reverse_path="",
            )  # fmt: skip
        wait_for(
            lambda: len(outcomes(relay).get("later@y.example", [])) >= 3
            and len(outcomes(relay).get("full@y.example", [])) >= 3,
            "both are tried again and again",
        )
        assert outcomes(relay)["now@y.example"] == ["delivered"]
        assert outcomes(relay)["never@y.example"] == ["failed"]
        assert set(outcomes(relay)["later@y.example"]) == {"deferred"}
        (failed,) = relay.events("failed")
        assert (failed["code"], failed["status"]) == (550, "5.1.1")
        wait_for(lambda: len(last.deliveries) == 1, "one has arrived")


@pytest.mark.timeout(180)
def test_a_postfix_that_stops_and_comes_back_gets_everything_once(tmp_path: Path) -> None:
    with NextHop() as last:
        with postfix(last.port) as peer:
            config = peer.route + QUICK_RETRY
            port = peer.port
            with clean_relay(tmp_path, config) as relay:
                names = send(relay, 20)
                wait_for(lambda: len(last.deliveries) == 20, "the first are through", 40)
        with clean_relay(tmp_path, config) as relay:
            names += [f"again{number}@y.example" for number in range(20)]
            with SmtpClient(relay.port) as client:
                for name in names[20:]:
                    client.send(MESSAGE, name, reverse_path="")
            wait_for(lambda: relay.events("deferred"), "nobody is there")
            with postfix(last.port, port=port) as peer:
                wait_until_empty(relay, 60)
                wait_for(peer.queue_is_empty, "Postfix has passed them on", 40)
        assert sorted(to for delivery in last.deliveries for to in delivery.to) == sorted(names)
