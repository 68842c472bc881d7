"""What comes back: traces in reverse-paths, reports of other hosts, and what is told of them (docs/bounces.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, metrics
from end_to_end.smtp_client import SmtpClient
from page_examples import of_page
from relay_process import RelayProcess, wait_for

FOLDER = Path(__file__).parents[1] / "bounces" / "reports"
LISTENER = 'relay_from = ["127.0.0.0/8"]'
REPORTS = of_page("bounces.md", 1).rest


def report(name: str, to: str, sender: str = "news@example.net") -> bytes:
    text = (FOLDER / f"{name}.eml").read_text().replace("@TO@", to).replace("@FROM@", sender)
    return text.replace("\n", "\r\n").encode()


def sent(relay: RelayProcess, hop: NextHop, *to: str) -> tuple[str, list[str]]:
    """A message's id, and the reverse-paths that it left with."""
    before = len(hop.deliveries)
    with SmtpClient(relay.port) as client:
        id_ = client.send(MESSAGE, *to, reverse_path="news@example.net")
    deliveries = hop.wait_for_count(before + len(to))[before:]
    return id_, [each.mail.partition(b"<")[2].partition(b">")[0].decode() for each in deliveries]


def test_each_recipient_has_a_reverse_path_of_its_own_and_a_bounce_there_is_tied_to_it(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + REPORTS, listener=LISTENER) as relay:
        id_, paths = sent(relay, hop, "u2@y.example", "u3@y.example")
        assert len(set(paths)) == 2
        assert all(path.startswith(f"bounces+{id_}") and path.endswith("@b.example.net") for path in paths)
        # the log, and our own reports, keep the sender
        wait_for(lambda: len(relay.events("delivered")) == 2, "both are delivered")
        assert {event["from"] for event in relay.events("delivered")} == {"news@example.net"}
        trace = next(path for path in paths if "u2=" in path)
        with SmtpClient(relay.port) as client:
            client.send(report("qmail", trace), trace.lower(), reverse_path="")
        # the event is there before the 250 was said
        (bounce,) = wait_for(lambda: relay.events("bounce"), "the bounce is told")
        assert (bounce["id"], bounce["to"], bounce["trace"]) == (id_, "u2@y.example", "verified")
        assert (bounce["class"], bounce["action"], bounce["code"]) == ("bad-mailbox", "failed", 550)
        assert (bounce["status"], bounce["form"], bounce["message_id"]) == ("5.1.1", "qmail", "<1@example.net>")
        assert len(hop.deliveries) == 2  # recognised: dropped
        assert metrics(relay)["angarium_in_reports_total"] == 1


def test_a_trace_that_we_have_not_made_is_refused(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + REPORTS, listener=LISTENER) as relay:
        _, (trace,) = sent(relay, hop, "u2@y.example")
        forged = trace.replace("u2=", "u9=")
        with SmtpClient(relay.port) as client:
            client.ask(b"EHLO x.example\r\n")
            client.ask(b"MAIL FROM:<>\r\n")
            assert client.ask(f"RCPT TO:<{forged}>\r\n".encode()) == (550, "5.1.1 No such address for reports")
            assert client.ask(f"RCPT TO:<{trace}>\r\n".encode())[0] == 250
            # what is to become of the message is decided for all of it
            assert client.ask(b"RCPT TO:<u2@y.example>\r\n")[0] == 452
            assert client.ask(b"RSET\r\n")[0] == 250
            client.ask(b"MAIL FROM:<>\r\n")
            assert client.ask(b"RCPT TO:<u2@y.example>\r\n")[0] == 250
            assert client.ask(f"RCPT TO:<{trace}>\r\n".encode())[0] == 452
        wait_for(lambda: len(relay.events("rejected")) == 3, "the refusals are told")
        reasons = [event["reason"] for event in relay.events("rejected")]
        assert reasons == ["no-report-address", "report-apart", "report-apart"]


@pytest.mark.parametrize("forward", ["none", "unrecognised", "all"])
def test_reports_are_dropped_or_forwarded_as_is_set(tmp_path: Path, forward: str) -> None:
    config = REPORTS + f'forward = "{forward}"\n'
    with NextHop() as hop, clean_relay(tmp_path, hop.route + config, listener=LISTENER) as relay:
        with SmtpClient(relay.port) as client:
            client.send(report("arf", "fbl@b.example.net"), "FBL@b.example.net", reverse_path="feedback@mail.example")
            client.send(report("person", "fbl@b.example.net"), "fbl@b.example.net", reverse_path="somebody@y.example")
            client.send(report("vacation", "fbl@b.example.net"), "fbl@b.example.net", reverse_path="")
        expected = {"none": 0, "unrecognised": 1, "all": 3}[forward]
        deliveries = hop.wait_for_count(expected)
        assert all(delivery.to == ["postmaster@example.net"] for delivery in deliveries)
        wait_for(lambda: relay.events("auto-reply"), "all three are told")
        (feedback,) = relay.events("feedback")
        assert (feedback["class"], feedback["feedback"], feedback["to"]) == ("complaint", "abuse", "u2@y.example")
        assert "trace" not in feedback
        (unrecognised,) = relay.events("report-unrecognised")
        assert unrecognised["address"] == "fbl@b.example.net"
        assert len(relay.events("auto-reply")) == 1
        wait_for(lambda: len(relay.events("discarded")) == 3 - expected, "the others are dropped")


def test_feedback_is_tied_by_the_reverse_path_it_returns(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + REPORTS, listener=LISTENER) as relay:
        id_, (trace,) = sent(relay, hop, "u2@y.example")
        with SmtpClient(relay.port) as client:
            client.send(report("arf", "fbl@b.example.net", trace), "fbl@b.example.net", reverse_path="f@mail.example")
        (feedback,) = wait_for(lambda: relay.events("feedback"), "the feedback is told")
        assert (feedback["id"], feedback["to"], feedback["trace"]) == (id_, "u2@y.example", "verified")


def test_megabytes_behind_a_report_are_not_read(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + REPORTS, listener=LISTENER) as relay:
        _, (trace,) = sent(relay, hop, "u2@y.example")
        with SmtpClient(relay.port) as client:
            client.send(
                report("postfix", trace) + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 100_000, trace, reverse_path=""
            )
        (bounce,) = wait_for(lambda: relay.events("bounce"), "the bounce is told")
        assert bounce["class"] == "bad-mailbox"
