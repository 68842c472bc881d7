"""The example of docs/sources.md at work: loopback addresses for its own, two workers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, clean_relay
from end_to_end.smtp_client import SmtpClient
from relay_process import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
MINE = {"192.0.2.1": "127.0.0.31", "192.0.2.2": "198.51.100.2", "192.0.2.11": "127.0.0.41", "192.0.2.12": "127.0.0.42",
        "192.0.2.21": "127.0.0.51", ', "2001:db8::1"': ""}  # fmt: skip


def example() -> str:
    """From its first source on, with addresses of this machine but for mail2's."""
    text = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    text = text[text.index("[source.") :]
    for theirs, ours in MINE.items():
        text = text.replace(f'"{theirs}"' if theirs[0] != "," else theirs, f'"{ours}"' if ours else "")
    return text


def test_the_example_of_the_page_sends_each_message_from_where_it_says(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(
        "from angarium.policy import *\n"
        "def on_mail(mail):\n"
        "    if 'shop' in str(mail.reverse_path): return Accept(tenant='shop')\n"
        "    if 'chosen' in str(mail.reverse_path): return Accept(pool='big')\n"
    )
    with NextHop() as hop:
        config = f'{example()}\n[policy]\nfile = "{hooks}"\n{hop.route}{NO_RETRY}'
        with clean_relay(tmp_path, config, workers=2) as relay:
            with SmtpClient(relay.port) as client:
                for _ in range(30):
                    client.send(MESSAGE, "p@y.example", reverse_path="me@example.net")
                    client.send(MESSAGE, "n@y.example", reverse_path="bounce@a.news.example.net")
                client.send(MESSAGE, "s@y.example", reverse_path="shop@example.net")
                client.send(MESSAGE, "b@big.example", reverse_path="me@example.net")
                client.send(MESSAGE, "c@y.example", reverse_path="chosen@example.net")
            wait_for(lambda: len(relay.events("delivered")) == 63, "all are delivered")
            found: dict[str, set[str]] = {}
            for event in relay.events("delivered"):
                found.setdefault(event["to"][0], set()).add(event["source"])
            # mail2 is not plumbed: mail1 has taken its half.
            assert found.pop("s") <= {"bulk1", "bulk2"}
            assert found == {"p": {"mail1"}, "n": {"bulk1", "bulk2"}, "b": {"big"}, "c": {"big"}}
            hellos = {line for line in hop.commands if line.startswith(b"EHLO")}
            assert b"EHLO mail1.example.net" in hellos and b"EHLO mail2.example.net" not in hellos

            shown = relay.command("sources")
            assert shown.returncode == 1
            reason = "198.51.100.2 is not an address of this machine"
            line = rf"^mail2 +198\.51\.100\.2 .*\n +198\.51\.100\.2 suspended for \S+.*: {reason}$"
            assert re.search(line, shown.stdout, re.MULTILINE)
            sources = json.loads(relay.command("sources", "--json").stdout)["sources"]
            (mail2,) = [each for each in sources if each["suspended"]]
            assert mail2["name"] == "mail2" and mail2["suspended"][0]["workers"] in (1, 2)
            assert f"suspended  source mail2: {reason}" in relay.command("status").stdout
