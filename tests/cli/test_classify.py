"""`angarium classify` says class, meaning, file and line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from angarium.bounces.rules import OWN_RULES
from angarium.cli.classify import parse
from angarium.cli.main import main

CONFIG = '[[listener]]\naddress = "127.0.0.1:2525"\n'


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        ("550 5.7.1 blocked", (550, "5.7.1", "blocked")),
        ("550-5.7.1 first\r\n550 5.7.1 second", (550, "5.7.1", "first\nsecond")),
        ("550 blocked", (550, "", "blocked")),
        ("421", (421, "", "")),
        ("5.1.1 no such user", (0, "5.1.1", "no such user")),
        ("connection failed: Connection refused", (0, "", "connection failed: Connection refused")),
        ("5500 people", (0, "", "5500 people")),
    ],
)
def test_a_reply_is_taken_apart(reply: str, parts: tuple[int, str, str]) -> None:
    assert parse(reply) == parts


def test_class_rule_file_and_line_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "angarium.toml").write_text(CONFIG)
    assert main(["classify", "--phase", "rcpt", "550 5.1.1 User unknown"]) == 0
    name, meaning, where = capsys.readouterr().out.splitlines()
    file, line = where.split(",")[0].strip().rsplit(":", 1)
    assert (name, file) == ("bad-mailbox", str(OWN_RULES[0]))
    assert meaning == "  Nobody of that name has a mailbox there."
    assert "user unknown" in OWN_RULES[0].read_text().splitlines()[int(line) - 1]


def test_rules_of_the_configuration_come_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rules = tmp_path / "own.toml"
    rules.write_text('[[rule]]\nclass = "rate-limited"\nmx = "*.y.example"\ntext = "user unknown"\n')
    config = tmp_path / "angarium.toml"
    config.write_text(f'{CONFIG}[bounces]\nrules = ["{rules}"]\n')
    words = ["classify", "--config", str(config), "--json", "550 5.1.1 User unknown"]
    assert main([*words, "--mx", "mx.y.example"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["class"], told["file"], told["line"], told["rule"]) == ("rate-limited", str(rules), 4, 1)
    assert main([*words, "--mx", "mx.z.example"]) == 0
    assert json.loads(capsys.readouterr().out)["class"] == "bad-mailbox"


def test_a_list_on_stdin_and_one_that_nobody_knows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rules = tmp_path / "own.toml"
    rules.write_text('[[rule]]\nclass = "virus"\ntext = "zzz"\n')
    monkeypatch.setattr("sys.stdin", io.StringIO("550 zzz\n\n554 qqq\n"))
    assert main(["classify", "--rules", str(rules), "--json"]) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["class"] for each in told] == ["virus", "unclassified"]
    assert told[1]["file"] is None


def test_rules_that_cannot_be_used_are_named_with_their_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "angarium.toml"
    config.write_text(f'{CONFIG}[bounces]\nrules = ["{tmp_path}/none.toml"]\n')
    assert main(["check", "--config", str(config)]) == 2
    assert (
        capsys.readouterr().err
        == f"angarium: {config}: bounces.rules[0]: {tmp_path}/none.toml: No such file or directory\n"
    )


def test_the_list_has_every_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 30
