"""Load balancers that others wrote, HAProxy and nginx, in front of the relay: docs/proxy.md as it stands there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, metrics
from end_to_end.smtp_client import SmtpClient
from interop.programs import end, free_port, greets, program
from page_examples import fenced, of_page, retold
from relay_process import RelayProcess, wait_for

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
MODULES = Path("/usr/lib/nginx/modules")


@contextlib.contextmanager
def haproxy(directory: Path, text: str, port: int) -> Iterator[None]:
    (directory / "haproxy.cfg").write_text(text)
    words = [program("haproxy"), "-db", "-f", str(directory / "haproxy.cfg")]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: greets(port) or process.poll() is not None, "HAProxy passes connections on")
        assert process.poll() is None
        yield
    finally:
        end(process)


@contextlib.contextmanager
def nginx(directory: Path, module: str, text: str, port: int) -> Iterator[None]:
    """With one dynamic module; everything that it writes lies in the directory."""
    path = MODULES / f"ngx_{module}_module.so"
    if not path.exists():
        pytest.skip(f"{path} is not there: tools/interop-peers installs it")
    user = "user root;\n" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(
        f"load_module {path};\n{user}daemon off;\npid {directory}/pid;\nerror_log {directory}/nginx.log;\n"
        f"worker_processes 1;\nevents {{ worker_connections 64; }}\n{text}"
    )
    words = [program("nginx"), "-p", str(directory), "-e", f"{directory}/nginx.log", "-c", f"{directory}/nginx.conf"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: greets(port) or process.poll() is not None, "nginx passes connections on")
        assert process.poll() is None, (directory / "nginx.log").read_text()
        yield
    finally:
        end(process)


@contextlib.contextmanager
def which(port: int) -> Iterator[str]:
    """The web service that tells nginx' mail module who is to have a transaction. Its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in (("Auth-Status", "OK"), ("Auth-Server", "127.0.0.1"), ("Auth-Port", str(port))):
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def relay_of_the_page(directory: Path, hop: NextHop) -> Iterator[tuple[RelayProcess, dict[str, int]]]:
    """Balancers connect from 127.0.0.1. The ports, by those of the page."""
    ports = {name: free_port() for name in ("25", "2526", "10026", "2525")}
    example = of_page("proxy.md")
    mine = {'["10.0.0.5"]': '["127.0.0.1"]'}
    listener = retold(example.listener, mine | {"10.0.0.1:25": f"127.0.0.1:{ports['25']}"})
    more = {f"10.0.0.1:{name}": f"127.0.0.1:{port}" for name, port in ports.items() if name != "25"}
    nets = {'["10.0.0.8"]': '["127.0.0.1"]', '["10.0.0.0/24"]': '["127.0.0.0/8"]'}
    with RelayProcess(directory, retold(example.rest, mine | nets | more) + hop.route, listener=listener) as relay:
        yield relay, ports
        assert relay.stop() == 0
        assert not relay.events("rejected", "error")


def talk(port: int, source: str, hop: NextHop, relay: RelayProcess) -> None:
    """A client whose address only the balancer sees; what the relay knows of it."""
    with SmtpClient(port, source=source) as client:
        client.ask(b"MAIL FROM:<a@x.example>\r\n")
        assert client.ask(b"RCPT TO:<b@example.net>\r\n")[0] == 250
        assert client.ask(b"DATA\r\n")[0] == 354
        assert client.ask(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")[0] == 250
        client.ask(b"QUIT\r\n")
    (delivery,) = hop.wait_for_count(1)
    assert f"[{source}])".encode() in delivery.message
    (event,) = wait_for(lambda: relay.events("received"), "the log has it")
    assert event["client"] == source


@pytest.mark.parametrize("way", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"])
def test_haproxy_names_the_client(tmp_path: Path, way: str) -> None:
    # Clients come from 127.0.0.2, which may relay; HAProxy itself connects from 127.0.0.1, which may not.
    listener = 'relay_from = ["127.0.0.2"]\nproxy_from = ["127.0.0.1"]'
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=listener) as relay:
        port = free_port()
        with haproxy(tmp_path, CONFIGURATION.format(port=port, relay_port=relay.port, way=way), port):
            with SmtpClient(port, source="127.0.0.2") as client:
                client.send(MESSAGE, "b@y.example")
            (delivery,) = hop.wait_for_count(1)
            assert b"[127.0.0.2])" in delivery.message
            with SmtpClient(port) as client:
                client.ask(b"MAIL FROM:<a@x.example>\r\n")
                assert client.ask(b"RCPT TO:<b@y.example>\r\n")[0] == 550


def test_haproxy_as_the_page_has_it(tmp_path: Path) -> None:
    port = free_port()
    (text,) = fenced("proxy.md", "haproxy")
    with NextHop() as hop, relay_of_the_page(tmp_path, hop) as (relay, ports):
        changes = {"192.0.2.25:25": f"127.0.0.1:{port}", "inter 5s": "inter 100ms"}
        servers = {f"10.0.0.{number}:25": f"127.0.0.1:{ports['25']}" for number in (1, 2)}
        with haproxy(tmp_path, retold(text, changes | servers), port):
            talk(port, "127.0.0.2", hop, relay)
            # Checks are sessions of the balancer's own. Had they failed, it would pass nothing on; that none was
            # refused is looked at in the end.
            seen = metrics(relay)["angarium_in_connections_total"]
            wait_for(lambda: metrics(relay)["angarium_in_connections_total"] > seen + 4, "it checks both")
            assert greets(port)


def test_nginx_passes_connections_on_as_the_page_has_it(tmp_path: Path) -> None:
    port = free_port()
    (text,) = fenced("proxy.md", "nginx stream")
    with NextHop() as hop, relay_of_the_page(tmp_path, hop) as (relay, ports):
        servers = {f"10.0.0.{number}:25": f"127.0.0.1:{ports['25']}" for number in (1, 2)}
        with nginx(tmp_path, "stream", retold(text, servers | {"192.0.2.25:25": f"127.0.0.1:{port}"}), port):
            talk(port, "127.0.0.2", hop, relay)


def test_nginx_speaks_for_clients_by_xclient_as_the_page_has_it(tmp_path: Path) -> None:
    port = free_port()
    (text,) = fenced("proxy.md", "nginx mail")
    with NextHop() as hop, relay_of_the_page(tmp_path, hop) as (relay, ports), which(ports["2526"]) as service:
        changes = {"127.0.0.1:9000": service, "192.0.2.25:25": f"127.0.0.1:{port}"}
        with nginx(tmp_path, "mail", retold(text, changes), port):
            talk(port, "127.0.0.2", hop, relay)
        (event,) = wait_for(lambda: relay.events("introduced"), "the log has who spoke for whom")
        assert event["peer"] == "127.0.0.1"
