"""`angarium policy test`: what it tells, that all of a listener takes part, and that nothing is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from relay_process import angarium
from tls.authority import certificate, write

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
        'auth = { offered = true, allow_plaintext_from = ["127.0.0.0/8"] }\n'
        f'[auth]\ncredentials = "file:{tmp_path}/credentials"\nsenders = {{ alice = ["x.example"] }}\n'
        f'[policy]\nfile = "{tmp_path}/policy.py"\n'
    )
    return path


def listener(config: Path, text: str) -> str:
    """One more listener, at an address of its own, which is returned; text may go on with other tables."""
    config.write_text(config.read_text() + f'[[listener]]\naddress = "127.0.0.1:2526"\n{text}\n')
    return "127.0.0.1:2526"


def trial(config: Path, *words: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What came of each command, and of the last message."""
    done = angarium("policy", "test", "--config", str(config), "--json", *words)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return {each["command"]: each for each in lines if each["kind"] == "command"}, lines[-1]


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
        (("--to", "b@y.example", "--tls"), "--tls: 127.0.0.1:2525 offers no STARTTLS"),
        (("--to", "b@y.example", "--user", "a", "--client", "192.0.2.1"), "--user: 127.0.0.1:2525 offers no AUTH"),
    ],
)
def test_what_cannot_be_tried_is_refused(config: Path, words: tuple[str, ...], complaint: str) -> None:
    done = angarium("policy", "test", "--config", str(config), *words)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_on_a_submission_listener_mail_is_completed_and_held_to_its_identity(config: Path, tmp_path: Path) -> None:
    address = listener(
        config,
        'protocol = "submission"\nauth = { required = true, allow_plaintext_from = ["192.0.2.0/24"] }\n'
        'submission = { complete_with = "x.example", check_from = true, add_sender = true }',
    )
    here = ("--listener", address, "--client", "192.0.2.1")
    told, _ = trial(config, *here, "--user", "alice", "--from", "a@x.example", "--to", "b")
    assert told["DATA"]["reply"].startswith("554 5.6.0 ")  # no From field
    (tmp_path / "mail").write_bytes(b"From: a@x.example\nTo: b\n\nhi\n")
    mail = ("--from", "a@x.example", "--to", "b", "--message", str(tmp_path / "mail"))
    _, message = trial(config, *here, "--user", "alice", *mail)
    assert message["recipients"] == ["b@x.example"]
    fields = [line.split(":")[0] for line in message["header"].splitlines()]
    assert fields == ["Date", "Message-ID", "From", "To", "X-Octets"]
    assert "To: b@x.example" in message["header"]
    told, last = trial(config, *here, "--user", "bob", *mail)
    assert told["MAIL FROM:<a@x.example> SIZE=28"]["reply"].startswith("553 5.7.1 ")
    told, last = trial(config, *here, *mail)
    assert told["MAIL FROM:<a@x.example> SIZE=28"]["reply"].startswith("530 5.7.0 ")
    assert last["kind"] == "command"


def test_an_lmtp_listener_says_lhlo_and_answers_for_each_recipient(config: Path) -> None:
    address = listener(config, 'protocol = "lmtp"\nrelay_from = ["127.0.0.0/8"]')
    told, message = trial(config, "--listener", address, "--to", "b@y.example", "--to", "c@y.example")
    assert told["LHLO client.example"]["reply"].startswith("250-")
    assert [line[:3] for line in told["DATA"]["reply"].splitlines()] == ["250", "250"]
    assert message["recipients"] == ["b@y.example", "c@y.example"]


def test_client_checks_and_the_greylist_take_part_and_remember_nothing(config: Path, tmp_path: Path) -> None:
    with config.open("a") as file:
        file.write("[admission]\nrefuse_score = 10\n[admission.checks]\nhelo_is_ours = 10\n")
        file.write('[admission.greylist]\ndelay = "5m"\n')
    client = ("--client", "192.0.2.1", "--from", "a@z.example", "--to", "b@y.example")
    told, _ = trial(config, *client, "--helo", "mx.test")
    assert told["RCPT TO:<b@y.example>"]["reply"] == "550 5.7.1 Client [192.0.2.1] refused: helo-is-ours"
    for _ in range(2):
        told, _ = trial(config, *client)
        assert told["RCPT TO:<b@y.example>"]["reply"].startswith("450 4.7.1 Greylisted")
    assert trial(config, "--from", "a@z.example", "--to", "b@y.example")[1]["kind"] == "message"
    assert not (tmp_path / "spool").exists()


def test_limits_of_strangers_take_part(config: Path, tmp_path: Path) -> None:
    with config.open("a") as file:
        file.write('[admission]\n[[admission.limit]]\nmessages = "1/h"\n')
    (tmp_path / "dialogue").write_text("EHLO x.example\nMAIL FROM:<a@z.example>\nRSET\nMAIL FROM:<b@z.example>\n")
    for _ in range(2):
        told, _ = trial(config, "--client", "192.0.2.1", "--dialogue", str(tmp_path / "dialogue"))
        assert told["MAIL FROM:<a@z.example>"]["reply"].startswith("250 ")
        assert told["MAIL FROM:<b@z.example>"]["reply"].startswith("450 4.7.0 ")


def test_recipients_aliases_and_claims_take_part(config: Path, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("bob\n")
    (tmp_path / "aliases").write_text("info: bob\n")
    address = listener(
        config,
        'xclient_from = ["192.0.2.0/24"]\n[domain."y.example"]\n'
        f'recipients = ["file:{tmp_path}/users"]\naliases = ["file:{tmp_path}/aliases"]',
    )
    (tmp_path / "dialogue").write_text(
        "XCLIENT ADDR=198.51.100.7 HELO=spike PROTO=ESMTP\nMAIL FROM:<a@z.example>\nRCPT TO:<eve@y.example>\n"
        "RCPT TO:<info@y.example>\nBDAT 8\nx: y\n\nBDAT 3 LAST\n!\nQUIT\n"
    )
    here = ("--listener", address, "--client", "192.0.2.1")
    told, message = trial(config, *here, "--dialogue", str(tmp_path / "dialogue"))
    assert told["RCPT TO:<eve@y.example>"]["reply"].startswith("550 5.1.1 ")
    assert told["BDAT 3 LAST"]["reply"].startswith("250 2.0.0 ")
    assert message["recipients"] == ["bob@y.example"]
    assert message["header"].startswith("x: y\r\n")


def test_tls_is_begun_where_it_is_asked_for_or_auth_needs_it(config: Path, tmp_path: Path) -> None:
    table = write(tmp_path, certificate("mx.test"), "cert")
    pair = f'{{ cert = "{table["cert"]}", key = "{table["key"]}" }}'
    tls = f"tls = {{ certificates = [{pair}], required = true }}"
    address = listener(config, f'relay_to = ["y.example"]\nauth = {{ offered = true }}\n{tls}')
    here = ("--listener", address, "--from", "a@x.example", "--to", "b@y.example")
    told, last = trial(config, *here)
    assert last["kind"] == "command" and told["MAIL FROM:<a@x.example> SIZE=23"]["reply"].startswith("530 5.7.0 ")
    for words in (("--tls",), ("--user", "alice")):
        told, last = trial(config, *here, *words)
        assert last["kind"] == "message"
        assert told["STARTTLS"]["reply"].startswith("220 ")


def test_check_runs_the_hook_file(config: Path, tmp_path: Path) -> None:
    assert angarium("check", "--config", str(config)).returncode == 0
    (tmp_path / "policy.py").write_text("\nimport nowhere\n")
    done = angarium("check", "--config", str(config))
    assert done.returncode == 2
    assert f"{tmp_path}/policy.py:2: ModuleNotFoundError" in done.stderr


def test_what_hooks_print_is_told_at_its_command(config: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text("print('run')\ndef on_rcpt(rcpt):\n    print('it is', rcpt.local_part, chr(27))\n")
    steps, _ = trial(config, "--to", "b@y.example")
    by = f"on_rcpt at {hooks}:3"
    assert steps["RCPT TO:<b@y.example>"]["printed"] == [{"by": by, "text": "it is b \x1b"}]
    assert "printed" not in steps["(connects)"]
    done = angarium("policy", "test", "--config", str(config), "--to", "b@y.example")
    assert f"   {by} prints: it is b \\x1b\n   on_rcpt: no objection\nS: 250 " in done.stdout
    (run,) = map(json.loads, done.stderr.splitlines())
    assert (run["event"], run["at"], run["text"]) == ("printed", f"{hooks}:1", "run")
    hooks.write_text("print('so far')\n1 / 0\n")
    done = angarium("policy", "test", "--config", str(config), "--to", "b@y.example")
    assert done.returncode == 2 and done.stdout == ""
    assert '"text":"so far"' in done.stderr and f"{hooks}:2: ZeroDivisionError" in done.stderr
