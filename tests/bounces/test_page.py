"""docs/bounces.md is true: its table of classes, its rules, what `angarium classify` prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from angarium.bounces.classes import CLASSES
from angarium.bounces.classifier import Classifier
from angarium.bounces.rules import OWN_RULES, read_file
from angarium.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "bounces.md"
TEXT = PAGE.read_text()


def block_with(words: str) -> str:
    return next(block for block in re.findall(r"^```\w*\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) if words in block)


def test_the_table_has_all_classes_and_their_meaning() -> None:
    section = TEXT.partition("## The classes\n")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", section, re.MULTILINE)) == CLASSES


def test_the_rules_of_the_page_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "bounces.toml"
    path.write_text(block_with("/etc/angarium/bounces.toml\n[[rule]]"))
    here = Classifier(read_file(path))
    assert here.verdict(451, "", "Your quota for this hour is used up", mx="a.bigmail.example").name == "rate-limited"
    assert here.verdict(550, "", "The list dog-owners is moderated", phase="rcpt").name == "not-allowed"


def test_classify_prints_what_the_page_shows(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "angarium.toml").write_text('[[listener]]\naddress = "127.0.0.1:2525"\n')
    command, *shown = block_with("$ angarium classify --phase").splitlines()
    assert main(shlex.split(command.removeprefix("$ angarium "))) == 0
    told = capsys.readouterr().out.replace(str(OWN_RULES[0].parent), "/usr/lib/python3/dist-packages/angarium/bounces")
    assert told.splitlines() == shown
