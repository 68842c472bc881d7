"""`angarium policy test`: what it tells, and that nothing is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from relay_process import angarium

HOOKS = """
from angarium.policy import *
import asyncio

async def on_connect(client):
    if client.address == "192.0.2.66":
        return Reject("Not you", code=554)

def on_mail(mail):
    return Accept(campaign=mail.client.user) if mail.client.user else None

async def on_rcpt(rcpt):
    await asyncio.sleep(0)
    if rcpt.local_part == "gone":
        return Redirect(["new@y.example"])
    if rcpt.local_part == "bug":
        raise RuntimeError("oops")

def on_message(message):
    if message.header.get("subject") == "bad":
        return Defer("Later")
    return Accept(fields=[AddField("X-Octets", str(message.octets), at="end"), RemoveField("X-Old")])
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policy.py").write_text(HOOKS)
    path = tmp_path / "angarium.toml"
    path.write_text(
        f'[node]\nhostname = "mx.test"\nspool = "{tmp_path}/spool"\n'
        '[[listener]]\naddress = "127.0.0.1:2525"\nrelay_from = ["127.0.0.0/8"]\nrelay_to = ["y.example"]\n'
        f'[policy]\nfile = "{tmp_path}/policy.py"\n'
    )
    return path


def test_a_message_and_its_decisions(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(b"Subject: x\nX-Old: 1\n\n.dot\n")
    done = angarium(
        "policy", "test", "--config", str(config), "--from", "a@x.example", "--to", "gone@y.example",
        "--to", "bug@y.example",
        "--user", "alice", "--message", str(tmp_path / "mail"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *steps, message = map(json.loads, done.stdout.splitlines())
    told = {step["command"]: step for step in steps}
    assert told["(connects)"]["decisions"] == [{"by": "on_connect", "decision": "no objection"}]
    assert told["MAIL FROM:<a@x.example> SIZE=26"]["decisions"] == [
        {"by": "on_mail", "decision": "Accept(campaign='alice')"}
    ]
    assert told["RCPT TO:<bug@y.example>"]["reply"][:9] == "451 4.3.0"
    error = json.loads(done.stderr)
    assert (error["event"], error["at"]) == ("hook-error", f"{tmp_path}/policy.py:17")
    assert message["recipients"] == ["new@y.example"]
    assert message["attributes"] == {"campaign": "alice"}
    assert message["header"] == "Subject: x\r\nX-Octets: 30\r\n"
    assert not (tmp_path / "spool").exists()


def test_a_dialogue_or_a_transcript(config: Path, tmp_path: Path) -> None:
    transcript = tmp_path / "session.txt"
    transcript.write_text(
        "# a stranger\nS: 220 x\nC: EHLO client.example\nC: MAIL FROM:<>\nC: RCPT TO:<a@elsewhere.example>\nC: DATA\n"
        "C: never sent\nC: .\nC: RCPT TO:<b@y.example>\nC: DATA\nC: Subject: bad\nC:\nC: x\nC: .\nC: QUIT\n"
    )
    done = angarium(
        "policy", "test", "--config", str(config), "--client", "2001:db8::1", "--dialogue", str(transcript)
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "S: 550 5.7.1 Relaying denied" in lines
    assert "S: 554 5.5.1 No valid recipients" in lines
    assert lines[-5:] == [
        "C: DATA", "   on_message: Defer('Later')", "S: 451 4.7.1 Later", "C: QUIT", "S: 221 2.0.0 mx.test Bye",
    ]  # fmt: skip


def test_who_is_not_welcome(config: Path) -> None:
    done = angarium("policy", "test", "--config", str(config), "--client", "192.0.2.66", "--to", "b@y.example")
    assert done.returncode == 1
    assert done.stdout == "C: (connects)\n   on_connect: Reject('Not you', code=554)\nS: 554 5.7.1 Not you\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "--to or --dialogue is needed"),
        (("--to", "b@y.example", "--client", "nobody"), "--client: 'nobody' is not an address"),
        (("--to", "b@y.example", "--listener", "127.0.0.1:1"), "none listens on 127.0.0.1:1"),
        (("--to", "b@y.example", "--dialogue", "-"), "no --from, --to or --message beside it"),
    ],
)
def test_what_cannot_be_tried_is_refused(config: Path, words: tuple[str, ...], complaint: str) -> None:
    done = angarium("policy", "test", "--config", str(config), *words)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_check_runs_the_hook_file(config: Path, tmp_path: Path) -> None:
    assert angarium("check", "--config", str(config)).returncode == 0
    (tmp_path / "policy.py").write_text("\nimport nowhere\n")
    done = angarium("check", "--config", str(config))
    assert done.returncode == 2
    assert f"{tmp_path}/policy.py:2: ModuleNotFoundError" in done.stderr
