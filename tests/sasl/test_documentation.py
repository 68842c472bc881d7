"""docs/auth.md: its example works as a whole, its reasons are those of the code."""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest
from relay_process import RelayProcess, maildir_route, wait_for

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "auth.md"


def test_the_example_works(tmp_path: Path) -> None:
    text = PAGE.read_text()
    config = re.search(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    commands = re.search(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert config and commands
    listener, _, rest = config[1].partition("\n[auth]")
    listener = listener.replace("[[listener]]\n", "").replace("127.0.0.1:2587", "127.0.0.1:0")
    rest = ("[auth]" + rest).replace("/etc/angarium/credentials", f"{tmp_path}/credentials")
    with RelayProcess(tmp_path, rest + maildir_route(tmp_path), listener=listener) as relay:
        for command in commands[1].splitlines():
            words, _, arguments = command.rpartition("angarium auth ")
            password = re.search(r"echo '(.*)' \|", words)
            done = subprocess.run(
                [sys.executable, "-m", "angarium.cli.main", "auth", *arguments.split(), "--config", relay.config_path],
                input=f"{password[1]}\n" if password else "",
                capture_output=True,
                text=True,
                check=True,
                env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
            )
        assert done.stdout == "alice@example.net\nnewsletter\n"
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
            with pytest.raises(smtplib.SMTPResponseException, match="530"):
                client.sendmail("alice@example.net", ["b@x.example"], "x")
            with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
                client.login("alice@example.net", "wrong")
            client.login("alice@example.net", "correct horse battery staple")
            client.sendmail("sales@example.net", ["b@x.example"], "Subject: x\r\n\r\nx\r\n")
            with pytest.raises(smtplib.SMTPSenderRefused, match="553"):
                client.sendmail("bob@example.net", ["b@x.example"], "Subject: x\r\n\r\nx\r\n")
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
            client.login("newsletter", "a long one that nobody types")
            client.sendmail("any@lists.example.net", ["c@x.example"], "Subject: x\r\n\r\nx\r\n")
        wait_for(lambda: len(relay.events("received")) == 2, "both are in the log")
        assert [event["user"] for event in relay.events("received")] == ["alice@example.net", "newsletter"]
        assert {event["protocol"] for event in relay.events("received")} == {"ESMTPA"}


def test_every_reason_is_in_the_page() -> None:
    inbound = ROOT / "src/angarium/inbound"
    sources = [*(ROOT / "src/angarium/sasl").glob("*.py"), inbound / "authority.py", inbound / "stake.py"]
    text = "".join(source.read_text() for source in sources)
    calls = r"(?:Refusal|Refused|_log_failure|TooManyFailures|super\(\)\.__init__)"
    known = set(re.findall(calls + r"\(\"([a-z-]+)\"", text))
    assert {"bad-credentials", "downgrade", "too-many-failures-of-address"} <= known
    table = PAGE.read_text().partition("| reason | |\n")[2]
    assert set(re.findall(r"`([a-z-]+)`", table)) == known
