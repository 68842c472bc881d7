"""docs/refusals.md: its dialogue, and what `angarium explain-reject` says of the id in it."""

from __future__ import annotations

import re
from pathlib import Path

from end_to_end.smtp_client import SmtpClient
from interop.programs import free_port
from page_examples import fenced, of_page, retold
from relay_process import RelayProcess


def test_the_dialogue_of_the_page_is_refused_and_explained_as_it_says(tmp_path: Path) -> None:
    dialogue, explained = fenced("refusals.md", "")[:2]
    mine = f"127.0.0.1:{free_port()}"
    listener = retold(of_page("refusals.md").listener, {"127.0.0.1:2525": mine})
    with RelayProcess(tmp_path, listener=listener) as relay:
        with SmtpClient(relay.port) as client:
            # Behind the greeting and EHLO, which the client has said.
            lines = re.findall(r"^([CS]): (.*)$", dialogue, re.MULTILINE)[2:]
            for who, line in lines:
                if who == "C":
                    client.say(f"{line}\r\n".encode())
                    continue
                code, text = client.reply()
                id_ = re.search(r"\[(\w+)\]$", text)
                assert re.sub(r"\[\w+\]$", "[ID]", f"{code} {text}") == re.sub(r"\[\w+\]$", "[ID]", line)
        assert id_ is not None
        done = relay.command("explain-reject", id_[1])
        assert done.returncode == 0, done.stderr
        said = re.sub(r"(?m)^(  time +).*", r"\1TIME", done.stdout).replace(mine, "127.0.0.1:2525")
        page = re.sub(r"(?m)^(  time +).*", r"\1TIME", explained.partition("\n")[2])
        assert said.strip() == page.strip()
