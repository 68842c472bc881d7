"""docs/policy.md: its example works as a whole, in `angarium policy test` and in a relay; its tables are the code's."""

from __future__ import annotations

import re
import smtplib
from pathlib import Path

import pytest
from relay_process import RelayProcess, angarium, maildir_route, wait_for

from angarium import policy
from angarium.policy.hooks import ALLOWED
from angarium.policy.options import HOOKS, STATES

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"
TEXT = PAGE.read_text()


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    hooks = tmp_path / "policy.py"
    hooks.write_text(block("python"))
    path = tmp_path / "angarium.toml"
    text = block("toml").replace("/etc/angarium/policy.py", str(hooks))
    path.write_text(f'[node]\nhostname = "mx.example.net"\nspool = "{tmp_path}/spool"\n' + text)
    return path


def test_the_trial_prints_what_the_page_shows(config: Path) -> None:
    command = block("sh").strip().removeprefix("angarium ").split()
    done = angarium(*command, "--config", str(config))
    assert done.returncode == 0, done.stderr
    rest = done.stdout
    for shown in block("text").split("...\n"):
        assert shown in rest
        rest = rest.partition(shown)[2]


def test_the_example_works_in_a_relay(config: Path, tmp_path: Path) -> None:
    tables = "[policy]" + config.read_text().partition("[policy]")[2]
    with RelayProcess(tmp_path, tables + maildir_route(tmp_path)) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
            refused = client.sendmail(
                "a@shop.example", ["b@y.example", "c@closed.example"], "Subject: x\r\nX-Internal: 1\r\n\r\nx\r\n"
            )
            assert refused["c@closed.example"][0] == 550
            client.sendmail("a@other.example", ["d@y.example"], "X-Quarantine: 1\r\n\r\nx\r\n")
        delivered = wait_for(lambda: len(relay.events("delivered")) == 2 and relay.events("delivered"), "both arrive")
        assert {event["to"] for event in delivered} == {"b@y.example", "quarantine@ops.example"}
        (mail,) = (tmp_path / "mail" / "b" / "new").iterdir()
        assert b"\nX-Tenant: shop\n" in mail.read_bytes() and b"X-Internal" not in mail.read_bytes()
        assert relay.events("received")[0]["tenant"] == "shop"


def test_every_hook_and_state_has_its_row() -> None:
    rows = dict(re.findall(r"^\| `(on_\w+|route|knows_recipient)` \| .* \| ([^|]+) \|$", TEXT, re.MULTILINE))
    assert set(rows) == set(HOOKS)
    for hook, decisions in ALLOWED.items():
        assert set(re.findall(r"`(\w+)`", rows[hook])) == {each.__name__ for each in decisions}, hook
    states = TEXT.partition("| state | asked |\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", states)) == set(STATES)


def test_every_argument_is_listed_with_its_fields() -> None:
    rows = dict(re.findall(r"^\| `([A-Z]\w+)` \| ([^|]+) \|$", TEXT, re.MULTILINE))
    for name in ("Client", "Credentials", "Mail", "Rcpt", "Recipient", "Message", "Outcome"):
        kind = getattr(policy, name)
        properties = {key for key, value in vars(kind).items() if isinstance(value, property)}
        assert set(re.findall(r"`(\w+)`", rows[name])) == set(kind.__struct_fields__) | properties, name
