"""What other domains publish about TLS, heeded by a whole relay: the examples of docs/tls.md for DANE and MTA-STS.

Their hosts listen on ports 25 and 443 of addresses in 127.0.0.0/8 that no other process of these tests uses, so these
tests need root (or the capability).
"""

from __future__ import annotations

import hashlib
import os
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from dns_server import DnsServer
from end_to_end.relay import QUICK_RETRY
from end_to_end.test_outbound_tls import PAGE, server_tls, servers
from relay_process import RelayProcess, wait_for
from tls import authority

NETWORK = f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}"
MX, POLICY_HOST = f"{NETWORK}.71", f"{NETWORK}.72"


def may_bind() -> bool:
    try:
        with socket.create_server((MX, 25)):
            return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not may_bind(), reason="port 25 cannot be bound: these tests need root")


def example(number: int, folder: Path, dns: DnsServer) -> RelayProcess:
    """A relay with an example of the page; resolver and [shaping.default] get what a test cannot do without."""
    text = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[number]
    text = text.replace("127.0.0.1:25", "127.0.0.1:0").replace('"127.0.0.1:53"', f'"{dns.address}"')
    text = text.replace("[node]\n", f'[node]\nspool = "{folder}/spool"\nworkers = 1\n')
    if "[resolver]" not in text:
        text += f'[resolver]\nnameservers = ["{dns.address}"]\n'
    text = text.replace("[resolver]\n", '[resolver]\nmin_ttl = "1s"\n')
    text = text.replace("mta_sts = true\n", f'mta_sts = true\ntls_ca = "{authority.write_authority(folder)}"\n')
    relay = RelayProcess(folder)
    relay.config_path.write_text(text + QUICK_RETRY)
    return relay


def send(relay: RelayProcess, domain: str) -> None:
    (port,) = re.findall(r":(\d+)", relay.started())
    with smtplib.SMTP("127.0.0.1", int(port), timeout=20) as client:
        client.sendmail("me@x.example", [f"you@{domain}"], "Subject: hello\r\n\r\nhello\r\n")


def test_dane_and_a_roll_over(tmp_path: Path) -> None:
    """Mail waits while the records are another certificate's, and goes when they are right."""
    digest = hashlib.sha256(authority.der(authority.certificate("any.example", ca="stranger"))).hexdigest()
    tlsa = "_25._tcp.mx.y.example"
    records = {
        "y.example": {"MX": (1, ["10 mx.y.example."])},
        "mx.y.example": {"A": (1, [MX])},
        tlsa: {"TLSA": (1, ["3 0 1 " + "00" * 32])},
    }
    host = {"tls": server_tls("any.example", "stranger"), "address": MX, "port": 25}
    with (
        DnsServer(records, dict.fromkeys(records, "secure")) as dns,
        servers(host) as (server,),
        example(2, tmp_path, dns) as relay,
    ):
        send(relay, "y.example")
        wait_for(lambda: relay.events("deferred"), "mail waits")
        event = relay.events("deferred")[0]
        assert event["status"] == "4.7.5"
        assert event["reply"] == (
            "TLS handshake failed: certificate verify failed: no matching DANE TLSA records "
            "(TLS policy of mx.y.example from TLSA says dane)"
        )
        assert not server.received
        dns.set_records(tlsa, {"TLSA": (1, ["3 0 1 " + "00" * 32, f"3 0 1 {digest}"])})
        (event,) = wait_for(lambda: relay.events("delivered"), "mail goes", 30)
        assert (event["tls_policy"], event["tls_policy_from"]) == ("dane", "TLSA")
        dns.set_fault(tlsa, "bogus")
        count = len(relay.events("deferred"))
        wait_for(lambda: try_again(relay, count), "mail waits again", 30)
        assert relay.events("deferred")[-1]["reply"].startswith("TLS policy of mx.y.example from TLSA cannot be known")


def try_again(relay: RelayProcess, count: int) -> bool:
    """Sends one message more; whether one has waited since. The records before hold for a second."""
    before = len(relay.events("delivered", "deferred"))
    send(relay, "y.example")
    wait_for(lambda: len(relay.events("delivered", "deferred")) > before, "an outcome")
    return len(relay.events("deferred")) > count


class _Policy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = b"version: STSv1\nmode: enforce\nmx: mx.y.example\nmax_age: 86400\n"
        self.send_response(200 if self.path == "/.well-known/mta-sts.txt" else 404)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def policy_server() -> Iterator[None]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.certificate("mta-sts.y.example").configure_cert(tls)
    server = HTTPServer((POLICY_HOST, 443), _Policy)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_mta_sts_is_heeded_and_kept_over_a_restart(tmp_path: Path) -> None:
    """Behind a restart neither record nor server is there any more, and the exchanger is another's: mail waits."""
    txt = "_mta-sts.y.example"
    records = {
        "y.example": {"MX": (1, ["10 mx.y.example."])},
        "mx.y.example": {"A": (1, [MX])},
        "mx.evil.example": {"A": (1, [MX])},
        "mta-sts.y.example": {"A": (1, [POLICY_HOST])},
        txt: {"TXT": (1, ['"v=STSv1; id=1;"'])},
    }
    with DnsServer(records) as dns, servers({"tls": server_tls("mx.y.example"), "address": MX, "port": 25}):
        with policy_server(), example(3, tmp_path, dns) as relay:
            send(relay, "y.example")
            (event,) = wait_for(lambda: relay.events("delivered"), "mail goes", 30)
            assert (event["tls_policy"], event["tls_policy_from"]) == ("verify", "MTA-STS")
        assert (tmp_path / "spool" / "mta-sts.db").stat().st_mode & 0o777 == 0o600
        dns.set_fault(txt, "nxdomain")
        dns.set_records("y.example", {"MX": (1, ["10 mx.evil.example."])})
        with relay:
            send(relay, "y.example")
            wait_for(lambda: relay.events("deferred"), "mail waits", 30)
            reply = "TLS policy of the domain from MTA-STS does not name its mail exchanger mx.evil.example"
            assert relay.events("deferred")[0]["reply"] == reply
