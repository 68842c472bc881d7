"""docs/recipients.md's example does what the page says of it."""

from __future__ import annotations

import re
from pathlib import Path

import lmdb
from end_to_end.next_hop import NextHop
from end_to_end.relay import clean_relay
from end_to_end.smtp_client import SmtpClient
from relay_process import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "recipients.md"


def example(directory: Path, port: int) -> str:
    """The tables behind the listeners, with files and next hops of this test's own. Writes the files."""
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    for name in ("users", "aliases", "senders"):
        (directory / name).write_text(blocks[name])
    with lmdb.open(str(directory / "forwards.lmdb"), subdir=False) as made, made.begin(write=True) as put:
        put.put(b"@example.com", b"@example.net")
    tables = blocks["toml"].partition("[domain.")
    text = (tables[1] + tables[2]).replace("/etc/angarium/", f"{directory}/")
    text = re.sub(r'"lmtp://10.0.0.9:24"|"smtp://[\d.]+:25"', f'"smtp://127.0.0.1:{port}"', text)
    return text + f'\n[[route]]\nnext_hop = "smtp://127.0.0.1:{port}"\n'


def test_the_example_refuses_rewrites_and_copies(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, example(tmp_path, hop.port), listener="relay_from = []") as relay:
        with SmtpClient(relay.port) as client:
            assert client.ask(b"MAIL FROM:<root@host7.example.net>\r\n")[0] == 250
            said = {
                path: client.ask(f"RCPT TO:<{path}>\r\n".encode())[0]
                for path in ("eve@example.net", "bob+lists@example.org", "info@example.net", "former@example.net")
            }
            assert list(said.values()) == [550, 250, 250, 250]
            client.ask(b"DATA\r\n")
            assert client.ask(b"Subject: x\r\n\r\nhello\r\n.\r\n")[0] == 250
        (received,) = wait_for(lambda: relay.events("received"), "a message")
        assert received["from"] == "postmaster@example.net"
        assert received["to"] == [
            "bob+lists@example.net", "alice@example.net", "bob@example.net", "archive@archive.example",
            "former@elsewhere.example",
        ]  # fmt: skip
        hop.wait_for_count(1)
