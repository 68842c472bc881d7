"""Addresses that failed are listed by the rules, forgotten in time, and told to nobody who only has the file."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from angarium.bounces.secret import SecretError, read_or_make
from angarium.bounces.suppression import Failure, SuppressionError, SuppressionList, entry_key, normal_form
from angarium.bounces.suppression_options import SuppressionOptions, SuppressionRule
from angarium.config.schema import load
from angarium.model.units import Duration

DAY = 86400
SECRET = b"s" * 32
ADDRESS = b"u2@y.example"
RULES = {
    "bad-mailbox": SuppressionRule(keep=Duration(90 * DAY)),
    "mailbox-full": SuppressionRule(keep=Duration(7 * DAY), count=3, within=Duration(14 * DAY)),
}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def here(tmp_path: Path, clock: Clock) -> Iterator[SuppressionList]:
    opened = SuppressionList(tmp_path / "list", SuppressionOptions(rules=RULES), SECRET, clock=clock)
    yield opened
    opened.close()


def failure(name: str, address: bytes = ADDRESS, tenant: bytes = b"") -> Failure:
    return Failure(name, tenant, address)


def test_one_hard_failure_lists_for_as_long_as_its_rule_says(here: SuppressionList, clock: Clock) -> None:
    assert here.listed(b"", ADDRESS) is None
    assert here.note([failure("bad-mailbox")]) == 1
    assert here.listed(b"", b"U2@Y.Example") == "bad-mailbox"
    assert here.listed(b"", b"u2+tag@y.example") is None
    clock.now += 90 * DAY - 1
    assert here.listed(b"", ADDRESS) == "bad-mailbox"
    clock.now += 1
    assert here.listed(b"", ADDRESS) is None
    assert here.forget_expired() == 1
    assert list(here.entries()) == []


def test_soft_failures_are_counted_within_their_time(here: SuppressionList, clock: Clock) -> None:
    assert here.note([failure("mailbox-full"), failure("mailbox-full")]) == 0
    assert here.listed(b"", ADDRESS) is None
    clock.now += 14 * DAY  # the first two are too long ago
    assert here.note([failure("mailbox-full"), failure("mailbox-full")]) == 0
    clock.now += 13 * DAY
    assert here.note([failure("mailbox-full")]) == 1
    assert here.listed(b"", ADDRESS) == "mailbox-full"
    clock.now += 7 * DAY
    assert here.listed(b"", ADDRESS) is None


def test_classes_without_a_rule_count_for_nothing_and_others_not_together(here: SuppressionList) -> None:
    assert not here.wants("spam-source")
    assert here.note([failure("spam-source")] * 10) == 0
    here.note([failure("mailbox-full"), failure("mailbox-full")])
    assert here.note([failure("bad-mailbox")]) == 1
    # once listed it stays for the reason it has
    here.note([failure("mailbox-full")] * 5)
    assert here.listed(b"", ADDRESS) == "bad-mailbox"
    (entry,) = here.entries()
    assert (entry.hits, entry.is_listed) == (6, True)


def test_what_may_be_one_tenants_counts_for_nobody_else(tmp_path: Path) -> None:
    options = SuppressionOptions(rules=RULES, scope="tenant")
    here = SuppressionList(tmp_path / "list", options, SECRET)
    here.note([Failure("bad-mailbox", None, ADDRESS)])
    assert here.listed(b"", ADDRESS) is None
    here.note([Failure("bad-mailbox", None, b"", entry_key(SECRET, b"Acme", b"U2@y.example"))])
    assert here.listed(b"Acme", ADDRESS) == "bad-mailbox"
    assert here.listed(b"acme", ADDRESS) is None
    assert here.listed(b"", ADDRESS) is None
    here.close()
    # in a list of all it does not matter whose it is, and a key of one tenant's has no place
    here = SuppressionList(tmp_path / "other", SuppressionOptions(rules=RULES), SECRET)
    here.note([Failure("bad-mailbox", None, b"", entry_key(SECRET, b"Acme", ADDRESS))])
    assert list(here.entries()) == []
    here.note([Failure("bad-mailbox", None, ADDRESS)])
    assert here.listed(b"", ADDRESS) == "bad-mailbox"
    here.close()


def test_it_is_there_after_it_was_closed_and_shared_while_it_is_open(tmp_path: Path) -> None:
    options = SuppressionOptions()
    first = SuppressionList(tmp_path / "list", options, SECRET)
    first.note([failure("bad-mailbox")])
    other = (
        "import sys; from pathlib import Path\n"
        "from angarium.bounces.suppression import *\n"
        "here = SuppressionList(Path(sys.argv[1]), SuppressionOptions(), b's' * 32)\n"
        "assert here.listed(b'', b'u2@y.example') == 'bad-mailbox'\n"
        "here.note([Failure('bad-mailbox', b'', b'u3@y.example')])\n"
    )
    subprocess.run([sys.executable, "-c", other, str(tmp_path / "list")], check=True)
    assert first.listed(b"", b"u3@y.example") == "bad-mailbox"
    first.close()
    again = SuppressionList(tmp_path / "list", options, SECRET)
    assert again.listed(b"", ADDRESS) == "bad-mailbox"
    again.close()


def test_tenants_have_lists_of_their_own_and_one_in_common(tmp_path: Path) -> None:
    here = SuppressionList(tmp_path / "list", SuppressionOptions(scope="tenant"), SECRET)
    here.note([failure("bad-mailbox", tenant=b"acme")])
    assert here.listed(b"acme", ADDRESS) == "bad-mailbox"
    assert here.listed(b"other", ADDRESS) is None
    assert here.listed(b"", ADDRESS) is None
    here.add(b"", b"all@y.example", "unsubscribed", DAY)
    assert here.listed(b"acme", b"all@y.example") == here.listed(b"", b"all@y.example") == "unsubscribed"
    here.close()


def test_one_list_for_all_when_the_scope_is_global(here: SuppressionList) -> None:
    here.note([failure("bad-mailbox", tenant=b"acme")])
    assert here.listed(b"other", ADDRESS) == here.listed(b"", ADDRESS) == "bad-mailbox"


def test_the_file_holds_no_address_and_another_secret_finds_nothing(tmp_path: Path) -> None:
    here = SuppressionList(tmp_path / "list", SuppressionOptions(), SECRET)
    here.note([failure("bad-mailbox")])
    here.close()
    octets = (tmp_path / "list").read_bytes()
    assert b"u2" not in octets
    assert b"y.example" not in octets
    assert stat.S_IMODE((tmp_path / "list").stat().st_mode) == 0o600
    other = SuppressionList(tmp_path / "list", SuppressionOptions(), b"o" * 32)
    assert other.listed(b"", ADDRESS) is None
    other.close()


def test_it_is_bounded_and_what_ends_next_goes_first(tmp_path: Path, clock: Clock) -> None:
    here = SuppressionList(tmp_path / "list", SuppressionOptions(max_entries=1000), SECRET, clock=clock)
    here.add(b"", b"long@y.example", "unsubscribed", 3000 * DAY)
    for begin in range(0, 1500, 100):
        clock.now += 60
        here.note([failure("bad-mailbox", b"u%d@y.example" % number) for number in range(begin, begin + 100)])
    entries = list(here.entries())
    assert len(entries) == 1000
    assert here.listed(b"", b"long@y.example") == "unsubscribed"
    assert here.listed(b"", b"u1499@y.example") == "bad-mailbox"
    assert here.listed(b"", b"u0@y.example") is None
    here.close()


def test_an_address_is_removed(here: SuppressionList) -> None:
    here.note([failure("bad-mailbox")])
    assert here.remove(b"", b"U2@y.example")
    assert here.listed(b"", ADDRESS) is None
    assert not here.remove(b"", ADDRESS)
    assert here.forget_expired() == 0


def test_a_file_that_is_none_of_ours_is_told(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"x" * 10000)
    with pytest.raises(SuppressionError, match=r"list: "):
        SuppressionList(tmp_path / "list", SuppressionOptions(), SECRET)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (b"Bob@Y.example", b"bob@y.example"),
        ("ÜBER@Bücher.example".encode(), "über@xn--bcher-kva.example".encode()),
        (b"u@[192.0.2.1]", b"u@[192.0.2.1]"),
        (b"\xff@y.example", b"\xff@y.example"),
        (b"a+b@y.example", b"a+b@y.example"),
    ],
)
def test_one_spelling_of_an_address(path: bytes, form: bytes) -> None:
    assert normal_form(path) == form


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    secret = read_or_make(path)
    assert len(secret) == 32
    assert read_or_make(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["secret.key"]
    path.write_bytes(b"short")
    with pytest.raises(SecretError, match="5 octets"):
        read_or_make(path)
    with pytest.raises(SecretError, match="No such file"):
        read_or_make(tmp_path / "nowhere" / "secret.key")


def test_the_page_shows_the_rules_that_hold_by_default(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    shown = page.partition("which then replace all of them:")[2].partition("```toml fragment")[2].partition("```")[0]
    path = tmp_path / "angarium.toml"
    path.write_text(shown + '[[listener]]\naddress = "127.0.0.1:2525"\n')
    assert load(path)[0].suppression.rules == SuppressionOptions().rules
