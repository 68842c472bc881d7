"""docs/recipients.md's example does what the page says of it."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
from end_to_end.next_hop import NextHop
from end_to_end.relay import clean_relay
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, angarium, wait_for

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


class Answerer(socketserver.StreamRequestHandler):
    """The directory that the page's hook asks: a line for each address."""

    def handle(self) -> None:
        known = {"alice": "yes", "eve": "no", "former": "moved new@elsewhere.example", "late": "closed"}
        name = self.rfile.readline().decode().partition("@")[0]
        self.wfile.write(known.get(name, "what?").encode() + b"\n")


@contextmanager
def answering() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answerer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def hook_example(directory: Path, hop_port: int, directory_port: int) -> str:
    """The page's hook, written into a file, and the tables that ask it."""
    section = PAGE.read_text().partition("## A hook that knows\n")[2]
    blocks = dict(re.findall(r"^```(\w+)(?: fragment)?\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))
    (directory / "policy.py").write_text(blocks["python"].replace("10389", str(directory_port)))
    (directory / "users").write_text("bob\n")
    text = blocks["toml"].replace("/etc/angarium/", f"{directory}/")
    text = text.replace("[policy]\n", '[policy]\ntimeout = "30s"\n')
    return text.replace("lmtp://10.0.0.9:24", f"smtp://127.0.0.1:{hop_port}")


def test_the_hook_of_the_page_knows_who_exists_in_a_relay_and_in_a_trial(tmp_path: Path) -> None:
    expected = {
        "alice+x@example.net": 250, "eve@example.net": 550, "former@example.net": 250, "late@example.net": 550,
        "strange@example.net": 451, "bob@example.net": 250,
    }  # fmt: skip
    with answering() as port, NextHop() as hop:
        tables = hook_example(tmp_path, hop.port, port) + f'[[route]]\nnext_hop = "smtp://127.0.0.1:{hop.port}"\n'
        with clean_relay(tmp_path, tables, workers=2, listener="relay_from = []") as relay:
            with SmtpClient(relay.port) as client:
                client.ask(b"MAIL FROM:<a@x.example>\r\n")
                assert {path: client.ask(f"RCPT TO:<{path}>\r\n".encode())[0] for path in expected} == expected
                client.ask(b"DATA\r\n")
                assert client.ask(b"Subject: x\r\n\r\nhello\r\n.\r\n")[0] == 250
            (received,) = wait_for(lambda: relay.events("received"), "a message")
            assert received["to"] == ["alice+x@example.net", "new@elsewhere.example", "bob@example.net"]
            hop.wait_for_count(1)
            words = ("policy", "test", "--config", str(relay.config_path), "--to", "eve@example.net")
            done = angarium(*words)
            assert "   knows_recipient: False\nS: 550 5.1.1" in done.stdout, done.stderr
            words = (*words[:-1], "former@example.net")
            assert "   knows_recipient: Redirect(['new@elsewhere.example'])\nS: 250" in angarium(*words).stdout


def test_a_start_and_a_reload_without_the_hook_are_refused(tmp_path: Path) -> None:
    with NextHop() as hop:
        tables = hook_example(tmp_path, hop.port, 1)
        with RelayProcess(tmp_path, tables, listener='address = "127.0.0.1:0"\n') as relay:
            (tmp_path / "policy.py").write_text("def on_rcpt(rcpt):\n    pass\n")
            done = angarium("check", "--config", str(relay.config_path))
            said = 'policy.py: defines no knows_recipient, which domain."example.net".recipients needs'
            assert done.returncode != 0 and said in done.stderr
            assert relay.command("reload").returncode != 0
            assert said in relay.events("reload-refused")[-1]["reason"]
            with SmtpClient(relay.port) as client:
                client.ask(b"MAIL FROM:<a@x.example>\r\n")
                assert client.ask(b"RCPT TO:<bob@example.net>\r\n")[0] == 250
