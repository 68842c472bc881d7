"""docs/dns.md: unbound as the page has it starts and answers a relay as the page has it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import dns.exception
import dns.message
import dns.query
from end_to_end.relay import MESSAGE, clean_relay
from end_to_end.smtp_client import SmtpClient
from interop.programs import end, free_port, program
from page_examples import fenced, of_page, retold
from relay_process import wait_for

# Of the root (https://data.iana.org/root-anchors/root-anchors.xml).
ANCHOR = ". 86400 IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n"
# A test needs no internet: what is asked is known here.
MORE = """\
    chroot: ""
    username: ""
    directory: "{root}"
    pidfile: "{root}/pid"
    do-daemonize: no
    use-syslog: no
    local-zone: "page.test." static
    local-data: "page.test. 60 IN MX 10 mx.page.test."
    local-data: "mx.page.test. 60 IN TXT nothing"
"""


def answers(port: int) -> bool:
    with contextlib.suppress(dns.exception.DNSException, OSError):
        dns.query.udp(dns.message.make_query("page.test", "MX"), "127.0.0.1", port=port, timeout=1)
        return True
    return False


def test_unbound_and_a_relay_as_the_page_has_them(tmp_path: Path) -> None:
    command, port = program("unbound"), free_port()
    (tmp_path / "root.key").write_text(ANCHOR)
    (text,) = fenced("dns.md", "unbound")
    changes = {"port: 53": f"port: {port}", "/var/lib/unbound/root.key": f"{tmp_path}/root.key"}
    # So many sockets as a machine of its own may have are not to be had everywhere.
    small = {"outgoing-range: 8192": "outgoing-range: 64", "queries-per-thread: 4096": "queries-per-thread: 32"}
    (tmp_path / "unbound.conf").write_text(retold(text, changes | small) + MORE.format(root=tmp_path))
    os.chmod(tmp_path, 0o755)
    process = subprocess.Popen(
        [command, "-d", "-c", str(tmp_path / "unbound.conf")],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: answers(port) or process.poll() is not None, "unbound answers")
        assert process.poll() is None
        config = retold(of_page("dns.md").rest, {"127.0.0.1:53": f"127.0.0.1:{port}"})
        with clean_relay(tmp_path, config) as relay:
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "a@page.test", "b@none.page.test", reverse_path="")
            wait_for(lambda: len(relay.events("failed")) == 2, "both have an outcome")
            status = {event["to"]: event["status"] for event in relay.events("failed")}
            assert status == {"a@page.test": "5.4.4", "b@none.page.test": "5.1.2"}
    finally:
        end(process)
