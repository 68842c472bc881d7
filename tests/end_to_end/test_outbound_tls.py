"""TLS towards next hops of a whole relay: the example of docs/tls.md as it stands there."""

from __future__ import annotations

import asyncio
import contextlib
import re
import smtplib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from end_to_end.relay import metrics
from outbound.fault_server import FaultServer, fault_server
from relay_process import RelayProcess, wait_for
from tls.authority import certificate, write, write_authority

PAGE = Path(__file__).parents[2] / "docs" / "tls.md"


def server_tls(name: str, ca: str = "authority") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(name, ca=ca).configure_cert(context)
    return context


@contextlib.contextmanager
def servers(*settings: dict[str, object]) -> Iterator[list[FaultServer]]:
    """Next hops on a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    started: list[FaultServer] = []
    is_up, is_over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for each in settings:
                started.append(await stack.enter_async_context(fault_server(**each)))
            is_up.set()
            await is_over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert is_up.wait(20)
    try:
        yield started
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join()
        loop.close()


def test_the_example_of_the_page_works_as_it_stands(tmp_path: Path) -> None:
    example = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1]
    write(tmp_path, certificate("mx1.example.net"), "mx1")
    Path(write_authority(tmp_path)).rename(tmp_path / "our-ca.pem")
    bank = {"tls": server_tls("127.0.0.1")}
    corp = {"tls": server_tls("anything.example", "stranger"), "begins_with_tls": True}
    with servers(bank, corp, {}) as (at_bank, at_corp, at_relay):
        text = example.replace("/etc/angarium/", f"{tmp_path}/").replace("127.0.0.1:25", "127.0.0.1:0")
        text = text.replace("mail.bank.example:25", f"127.0.0.1:{at_bank.port}")
        text = text.replace("smart.corp.example:465", f"127.0.0.1:{at_corp.port}")
        text = text.replace("relay.example.org:25", f"127.0.0.1:{at_relay.port}")
        text = text.replace("[node]\n", f'[node]\nspool = "{tmp_path}/spool"\nworkers = 1\n')
        relay = RelayProcess(tmp_path)
        relay.config_path.write_text(text)
        with relay:
            (port,) = re.findall(r":(\d+)", relay.started())
            with smtplib.SMTP("127.0.0.1", int(port), timeout=20) as client:
                for domain in ("bank.example", "mail.corp.example", "elsewhere.example"):
                    client.sendmail("me@x.example", [f"you@{domain}"], "Subject: hello\r\n\r\nhello\r\n")
            wait_for(lambda: len(relay.events("delivered")) == 3, "all are delivered")
            sealed = {event["to"]: event.get("tls") for event in relay.events("delivered")}
            assert sealed == {
                "you@bank.example": "TLSv1.3",
                "you@mail.corp.example": "TLSv1.3",
                "you@elsewhere.example": None,
            }
            assert metrics(relay)["angarium_outbound_tls_handshakes_total"] == 2
            assert metrics(relay)["angarium_outbound_tls_verified_total"] == 1
            assert len(at_bank.shown) == 0          # who does not ask is shown nothing
