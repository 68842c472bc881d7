"""A load balancer that others wrote, HAProxy, in front of the relay."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay
from end_to_end.smtp_client import SmtpClient
from interop.programs import free_port, greets, program
from relay_process import wait_for

CONFIGURATION = """\
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen smtp
    bind 127.0.0.1:{port}
    server relay 127.0.0.1:{relay_port} {way} check inter 200
"""


@pytest.mark.parametrize("way", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"])
def test_haproxy_names_the_client(tmp_path: Path, way: str) -> None:
    # Clients come from 127.0.0.2, which may relay; HAProxy itself connects from 127.0.0.1, which may not.
    listener = 'relay_from = ["127.0.0.2"]\nproxy_from = ["127.0.0.1"]'
    haproxy = program("haproxy")
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=listener) as relay:
        port = free_port()
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(CONFIGURATION.format(port=port, relay_port=relay.port, way=way))
        balancer = subprocess.Popen([haproxy, "-db", "-f", str(configuration)], stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: greets(port), "HAProxy passes connections on")
            with SmtpClient(port, source="127.0.0.2") as client:
                client.send(MESSAGE, "b@y.example")
            (delivery,) = hop.wait_for_count(1)
            assert b"[127.0.0.2])" in delivery.message
            with SmtpClient(port) as client:
                client.ask(b"MAIL FROM:<a@x.example>\r\n")
                assert client.ask(b"RCPT TO:<b@y.example>\r\n")[0] == 550
        finally:
            balancer.terminate()
            balancer.wait()
