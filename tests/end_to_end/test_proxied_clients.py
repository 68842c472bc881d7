"""Load balancers in front: the client they name is the one that counts, and nobody else may name one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, metrics
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for
from tls.authority import certificate, client_context, write

BALANCED = 'relay_from = ["192.0.2.0/24"]\nproxy_from = ["127.0.0.0/8"]\n'
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(client: str, family: str = "TCP4", server: str = "198.51.100.7") -> bytes:
    return f"PROXY {family} {client} {server} 56324 25\r\n".encode()


def v2(client: str) -> bytes:
    kind, family = (socket.AF_INET6, b"\x21") if ":" in client else (socket.AF_INET, b"\x11")
    address = socket.inet_pton(kind, client)
    rest = address + address + struct.pack(">HH", 56324, 25) + b"\x04\0\x03abc"
    return SIGNATURE + b"\x21" + family + struct.pack(">H", len(rest)) + rest


LOCAL = SIGNATURE + b"\x20\0\0\0"


def proxied(relay: RelayProcess, header: bytes) -> SmtpClient:
    client = SmtpClient(relay.port, b"")
    client.say(header)
    assert client.reply()[0] == 220
    assert client.ask(b"EHLO client.example\r\n")[0] == 250
    return client


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (v1("192.0.2.9"), "192.0.2.9"),
        (v2("192.0.2.9"), "192.0.2.9"),
        (v1("::ffff:192.0.2.9", "TCP6", "::1"), "192.0.2.9"),
        (v2("::ffff:192.0.2.9"), "192.0.2.9"),
    ],
)
def test_the_client_that_a_balancer_names_has_its_own_rights(tmp_path: Path, header: bytes, address: str) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=BALANCED) as relay:
        with proxied(relay, header) as client:
            client.send(MESSAGE, "b@y.example")
        (delivery,) = hop.wait_for_count(1)
        assert f"[{address}])".encode() in delivery.message


@pytest.mark.parametrize(
    "header", [v1("198.51.100.9"), v2("2001:db8::9"), v1("::1", "TCP6", "::1"), b"PROXY UNKNOWN\r\n", LOCAL]
)
def test_strangers_do_not_relay_through_a_balancer(tmp_path: Path, header: bytes) -> None:
    with clean_relay(tmp_path, listener=BALANCED) as relay, proxied(relay, header) as client:
        client.ask(b"MAIL FROM:<a@x.example>\r\n")
        assert client.ask(b"RCPT TO:<b@y.example>\r\n")[0] == 550


def test_a_header_that_comes_octet_by_octet_is_waited_for(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=BALANCED) as relay:
        for header in (v1("192.0.2.9"), v2("192.0.2.9")):
            client = SmtpClient(relay.port, b"")
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in header:
                client.say(bytes([octet]))
            assert client.reply()[0] == 220
            assert client.ask(b"EHLO x\r\n")[0] == 250
            client.send(MESSAGE, "b@y.example")
            client.close()
        hop.wait_for_count(2)


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"PROXY TCP4 192.0.2.9 198.51.100.7 56324 25\n",
        b"PROXY TCP4 192.0.2.9\r\nMAIL FROM:<a@x>\r\n",
        SIGNATURE + b"\x21\x12\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff",
        b"\x16\x03\x01\x02\0",
    ],
)
def test_a_balancer_that_says_no_header_is_cut_off_and_reported(tmp_path: Path, octets: bytes) -> None:
    with clean_relay(tmp_path, listener=BALANCED) as relay:
        client = SmtpClient(relay.port, b"")
        client.say(octets)
        with contextlib.suppress(ConnectionResetError):
            assert client.reply() == (0, "")
        client.close()
        wait_for(lambda: metrics(relay)["angarium_in_bad_proxy_headers_total"] == 1, "it is counted")
        wait_for(lambda: relay.events("rejected"), "it is logged")
        (event,) = relay.events("rejected")
        assert (event["client"], event["reason"]) == ("127.0.0.1", "proxy-header-bad")


def test_a_balancer_that_says_nothing_is_not_waited_for_long(tmp_path: Path) -> None:
    with clean_relay(tmp_path, listener=BALANCED) as relay, SmtpClient(relay.port, b"") as client:
        client.say(b"PROXY TCP4 192")
        with contextlib.suppress(ConnectionResetError):
            assert client.reply() == (0, "")
        wait_for(lambda: relay.events("rejected"), "it is reported")
        assert relay.events("rejected")[0]["reason"] == "proxy-header-late"


@pytest.mark.parametrize("header", [v1("192.0.2.9"), v2("192.0.2.9")])
def test_a_client_that_forges_a_header_speaks_before_the_greeting(tmp_path: Path, header: bytes) -> None:
    listener = 'relay_from = ["192.0.2.0/24"]\nproxy_from = ["198.51.100.0/24"]\n'
    with clean_relay(tmp_path, listener=listener) as relay, SmtpClient(relay.port, b"") as client:
        client.say(header + b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
        codes = []
        try:
            while code := client.reply()[0]:
                codes.append(code)
        except (ConnectionResetError, ValueError):
            pass
        assert 250 not in codes[2:] and metrics(relay)["angarium_queue_messages"] == 0


def test_what_a_client_says_before_the_greeting_is_refused_behind_a_balancer_too(tmp_path: Path) -> None:
    with clean_relay(tmp_path, listener=BALANCED) as relay, SmtpClient(relay.port, b"") as client:
        client.say(v1("192.0.2.9") + b"EHLO x\r\nMAIL FROM:<a@x.example>\r\n")
        code, _ = client.reply()
        assert code in (554, 421)
        assert metrics(relay)["angarium_in_early_talkers_total"] == 1


def test_a_shutdown_does_not_wait_for_a_header(tmp_path: Path) -> None:
    with clean_relay(tmp_path, listener=BALANCED) as relay, SmtpClient(relay.port, b"") as client:
        client.say(b"PROXY ")
        wait_for(lambda: metrics(relay)["angarium_in_sessions"] == 1, "it is connected")


@pytest.mark.parametrize("header", [v1("192.0.2.9"), v2("192.0.2.9")])
def test_tls_begins_right_behind_the_header(tmp_path: Path, header: bytes) -> None:
    """The client's first flight may come in one read with what the balancer says of it."""
    files = write(tmp_path, certificate("mx.test.example"), "mx")
    listener = (
        f'{BALANCED}[listener.tls]\nimplicit = true\n'
        f'certificates = [{{ cert = "{files["cert"]}", key = "{files["key"]}" }}]\n'
    )
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname="mx.test.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with clean_relay(tmp_path, listener=listener) as relay:
        with socket.create_connection(("127.0.0.1", relay.port), 20) as sock:
            sock.sendall(header + outgoing.read())
            greeting = b""
            while not greeting:
                received = sock.recv(65536)
                assert received, "the connection is open"
                incoming.write(received)
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                    sock.sendall(outgoing.read())
                    greeting = client.read(4096)
            assert greeting.startswith(b"220 ")
        assert metrics(relay)["angarium_in_early_talkers_total"] == 0
