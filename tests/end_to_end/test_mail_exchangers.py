"""Delivery by MX through the real resolver, against a name server of the tests' own.

Next hops listen on port 25 of addresses in 127.0.0.0/8 that no other process of these tests uses, so these tests
need root (or the capability).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from dns_server import DnsServer
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, QUICK_RETRY, clean_relay, outcomes, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import wait_for

NETWORK = f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}"
FIRST, SECOND, NOBODY = f"{NETWORK}.61", f"{NETWORK}.62", f"{NETWORK}.63"


def may_bind() -> bool:
    try:
        with socket.create_server((FIRST, 25)):
            return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not may_bind(), reason="port 25 cannot be bound: these tests need root")



def resolver(dns: DnsServer, timeout: str = "20s") -> str:
    return f'[resolver]\nnameservers = ["{dns.address}"]\ntimeout = "{timeout}"\ntries = 1\nmin_ttl = "1s"\n'


def hop_at(address: str) -> NextHop:
    return NextHop(address=address, port=25, hostname=f"hop-{address.replace('.', '-')}.example")


def test_the_exchanger_with_the_lowest_preference_gets_the_mail(tmp_path: Path) -> None:
    records = {
        "y.example": {"MX": ["20 second.example.", "10 first.example."]},
        "first.example": {"A": [FIRST]},
        "second.example": {"A": [SECOND]},
    }
    with (
        DnsServer(records) as dns,
        hop_at(FIRST) as first,
        hop_at(SECOND) as second,
        clean_relay(tmp_path, resolver(dns)) as relay,
    ):
        with SmtpClient(relay.port) as client:
            for _ in range(5):
                client.send(MESSAGE)
        first.wait_for_count(5)
        assert not second.deliveries
        assert dns.count("y.example", "MX") == 1, "the answer is kept for its TTL"


@pytest.mark.parametrize("fault", ["nobody listens", "421", "554 greeting"])
def test_the_next_exchanger_is_tried_when_the_first_takes_nothing(tmp_path: Path, fault: str) -> None:
    records = {
        "y.example": {"MX": ["10 first.example.", "20 second.example."]},
        "first.example": {"A": [NOBODY if fault == "nobody listens" else FIRST]},
        "second.example": {"A": [SECOND]},
    }
    with DnsServer(records) as dns, hop_at(FIRST) as first, hop_at(SECOND) as second:
        first.faults["greeting"] = b"421 4.3.2 busy" if fault == "421" else b"554 5.3.2 go away"
        with clean_relay(tmp_path, resolver(dns)) as relay:
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE)
            (delivery,) = second.wait_for_count(1)
            assert delivery.content == MESSAGE
            wait_for(lambda: relay.events("delivered"), "the outcome is logged")
            assert outcomes(relay) == {"you@y.example": ["delivered"]}, "within one attempt"


def test_a_domain_without_mx_is_its_own_exchanger_also_behind_a_cname(tmp_path: Path) -> None:
    records = {
        "y.example": {"A": [FIRST]},
        "alias.example": {"CNAME": ["y.example."]},
        "other-alias.example": {"CNAME": ["with-mx.example."]},
        "with-mx.example": {"MX": ["10 y.example."]},
    }
    with DnsServer(records) as dns, hop_at(FIRST) as hop, clean_relay(tmp_path, resolver(dns)) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "a@y.example", "b@alias.example", "c@other-alias.example")
        wait_for(lambda: len(relay.events("delivered")) == 3, "all are delivered")
        assert sorted(to for delivery in hop.deliveries for to in delivery.to) == [
            "a@y.example", "b@alias.example", "c@other-alias.example"
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ({"y.example": {"MX": ["0 ."]}}, "5.1.10"),
        ({"elsewhere.example": {"A": [FIRST]}}, "5.1.2"),
        ({"y.example": {"TXT": ['"no address"']}}, "5.4.4"),
        ({"y.example": {"MX": ["10 mx.test."]}, "mx.test": {"A": [FIRST]}}, "5.4.6"),
    ],
    ids=["null MX (RFC 7505)", "NXDOMAIN", "neither MX nor address", "the MX is our own name"],
)
def test_a_domain_that_takes_no_mail_fails_at_once_with_a_report(
    tmp_path: Path, records: dict[str, dict[str, list[str]]], status: str
) -> None:
    all_records = {**records, "x.example": {"MX": ["10 back.example."]}, "back.example": {"A": [SECOND]}}
    with DnsServer(all_records) as dns, hop_at(SECOND) as back, clean_relay(tmp_path, resolver(dns)) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        (report,) = back.wait_for_count(1)
        assert report.to == ["me@x.example"]
        assert f"\r\nStatus: {status}\r\n".encode() in report.message
        wait_until_empty(relay)
        (failed,) = relay.events("failed")
        assert failed["status"] == status


def test_an_exchanger_that_is_this_relay_by_address_is_a_loop(tmp_path: Path) -> None:
    """A listener on port 25 at the address that the MX has (RFC 5321 §5.1)."""
    records = {"y.example": {"MX": ["10 other-name.example."]}, "other-name.example": {"A": [NOBODY]}}
    with DnsServer(records) as dns:
        more = f'[[listener]]\naddress = "{NOBODY}:25"\n'
        with clean_relay(tmp_path, resolver(dns) + more) as relay:
            started = relay.started()
            with SmtpClient(int(started.partition(",")[0].rpartition(":")[2])) as client:
                client.send(MESSAGE, reverse_path="")
            wait_for(lambda: relay.events("failed"), "it failed")
            (failed,) = relay.events("failed")
            assert failed["status"] == "5.4.6"
            assert len(relay.events("received")) == 1, "it never came back in"


@pytest.mark.parametrize("fault", ["servfail", "refused", "drop", "garbage-only"])
def test_name_server_trouble_defers_and_bounces_nothing(tmp_path: Path, fault: str) -> None:
    records = {"y.example": {"MX": ["10 first.example."]}, "first.example": {"A": [FIRST]}}
    faults = {"y.example MX": {"garbage-only": "wrong-id-only"}.get(fault, fault)}
    with (
        DnsServer(records, faults) as dns,
        hop_at(FIRST) as hop,
        clean_relay(tmp_path, resolver(dns, timeout="300ms") + QUICK_RETRY) as relay,
    ):
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        (first, *_) = wait_for(lambda: relay.events("deferred"), "it is deferred")
        assert first["status"] == "4.4.3"
        dns.set_fault("y.example MX", None)
        hop.wait_for_count(1)
        wait_until_empty(relay)
        assert not relay.events("failed", "report")


def test_a_dead_name_server_holds_up_nothing_else(tmp_path: Path) -> None:
    """Mail for configured routes flows while a thousand domains wait for answers that never come."""
    with DnsServer({}, {f"d{number}.example MX": "drop" for number in range(1000)}) as dns, NextHop() as hop:
        route = f'[[route]]\ndomain = "y.example"\nnext_hop = "{hop.url}"\n'
        with clean_relay(tmp_path, route + resolver(dns, timeout="2s") + NO_RETRY) as relay:
            with SmtpClient(relay.port) as client:
                for start in range(0, 1000, 100):
                    client.send(MESSAGE, *(f"a@d{number}.example" for number in range(start, start + 100)))
                for _ in range(20):
                    client.send(MESSAGE, "a@y.example")
            hop.wait_for_count(20)
            wait_for(lambda: len(relay.events("deferred")) == 1000, "the others are deferred", 60)
            told = [event["event"] for event in relay.events("received", "delivered", "deferred")]
            assert told.count("delivered") == 20
            last_received, last_delivered = (
                max(i for i, what in enumerate(told) if what == each) for each in ("received", "delivered")
            )
            assert told[last_received:last_delivered].count("deferred") <= 500, "long before the others were given up"
            assert told[-1] == "deferred"
            assert {event["status"] for event in relay.events("deferred")} == {"4.4.3"}


def test_sites_are_rolled_up_by_their_exchangers(tmp_path: Path) -> None:
    """Ten domains with the same MX set share connections, and recipients of one message one transaction."""
    records: dict[str, dict[str, list[str]]] = {
        f"d{number}.example": {"MX": ["10 first.example."]} for number in range(10)
    }
    records["first.example"] = {"A": [FIRST]}
    with DnsServer(records) as dns, hop_at(FIRST) as hop, clean_relay(tmp_path, resolver(dns)) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, *(f"a@d{number}.example" for number in range(10)))
            wait_for(lambda: len(relay.events("delivered")) == 10, "all are delivered")
            before = len(hop.deliveries)
            client.send(MESSAGE, *(f"b@d{number}.example" for number in range(10)))
        wait_for(lambda: len(hop.deliveries) > before, "the second message")
        assert len(hop.deliveries[-1].to) == 10
        assert {event["site"] for event in relay.events("delivered")} == {"first.example"}
