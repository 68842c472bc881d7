"""docs/security.md cannot rot: every test that it names exists, and every attack of the list is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_MEASURED = re.compile(r"`(benchmarks/[\w/]+\.py)`, row `(\w+)`")
_TRANSCRIPT = re.compile(r"`(tests/transcripts/[\w/]+\.txt)`: ([^;|]+)")
_ROW = re.compile(r"^\| \*\*(.+?)\*\* \|(.*)\|(.*)\|$", re.MULTILINE)

ATTACKS = [
    "SMTP smuggling, inbound", "SMTP smuggling, outbound",
    "STARTTLS injection, commands", "STARTTLS injection, replies",
    "STARTTLS injection, replies to us",
    "Unauthorised pipelining", "BDAT state confusion", "Control octets in addresses, HELO names and parameters",
    "Control octets in AUTH identities", "Control octets in PROXY values",
    "Octets smuggled through XCLIENT and XFORWARD", "Control octets in reports",
    "Control octets on the operator's terminal", "Log injection",
    "Source routes, quoted local-parts, % and !", "Several readings of one From field",
    "Forged PROXY headers", "IPv4-mapped addresses",
    "AUTH over plaintext", "Passwords guessed", "Passwords for a false next hop",
    "Policy servers that do not answer", "Token commands and endpoints that misbehave",
    "Oversize or malformed SASL", "Header bombs", "MIME bombs",
    "Forged bounces and complaints", "100,000 recipients", "Recipients guessed", "Tables of counts flooded",
    "Slowloris", "Connection floods",
    "Memory growth by one session", "HTTP cross-protocol posts",
]  # fmt: skip


def test_every_test_that_is_named_exists() -> None:
    named = _NAMED.findall(PAGE)
    assert len(named) > 30
    for file, test in named:
        assert re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), (file, test)


def test_every_benchmark_that_is_named_exists_with_its_row_and_a_result() -> None:
    named = _MEASURED.findall(PAGE)
    assert named
    for file, row in named:
        assert f'"{row}"' in (ROOT / file).read_text(), (file, row)
        found = json.loads((ROOT / "benchmarks" / "results" / f"{Path(file).stem}.json").read_text())
        assert row in found["ratios"], (file, row)


def test_every_transcript_that_is_named_exists() -> None:
    for file, names in _TRANSCRIPT.findall(PAGE):
        headings = re.findall(r"^--- (.+)$", (ROOT / file).read_text(), re.MULTILINE)
        for name in names.strip().split(", "):
            assert name.strip('" ') in headings, (file, name)


def test_every_attack_has_its_row_with_a_mechanism_and_a_test() -> None:
    rows = {attack: (how, proof) for attack, how, proof in _ROW.findall(PAGE)}
    assert list(rows) == ATTACKS
    for attack, (how, proof) in rows.items():
        assert len(how.strip()) > 20, attack
        assert _NAMED.search(proof) or _TRANSCRIPT.search(proof), attack
