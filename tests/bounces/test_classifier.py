"""Which class a reply belongs to, and that the rule and the line that said so are found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from angarium.bounces import classifier as module
from angarium.bounces.classes import CLASSES, PHASES
from angarium.bounces.classifier import Classifier, attempts_total, mx_of
from angarium.bounces.rules import OWN_RULES, Reply, RuleError, read_file, read_rules, words_of
from angarium.cli.classify import parse
from angarium.model.outcome import Trouble
from angarium.outbound import trouble

OWN = Classifier()
REPLIES = [
    line.split("|", 3)
    for line in Path(__file__).with_name("replies.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize(("name", "phase", "mx", "reply"), REPLIES, ids=[each[3][:50] for each in REPLIES])
def test_a_reply_has_its_class(name: str, phase: str, mx: str, reply: str) -> None:
    code, status, text = parse(reply)
    verdict = OWN.verdict(code, status, text, phase=phase, mx=mx)
    where = verdict.rule and f"{verdict.rule.file}:{verdict.line}"
    assert verdict.name == name, where


def test_most_classes_are_met_by_the_replies_of_this_test() -> None:
    """A class that nothing leads to is a word in a table; those left have no reply: somebody's action."""
    assert set(CLASSES) - {rule.name for rule in OWN.rules} == {"complaint", "unclassified"}
    assert {each[0] for each in REPLIES} <= set(CLASSES)


REGISTRY = {
    # subject.detail of the IANA registry (RFC 3463, 4468, 4865, 4954, 5248, 6531, 6710, 7293, 7372, 7505, 8616, 8689)
    **dict.fromkeys(["1.1", "1.4"], "bad-mailbox"),
    **dict.fromkeys(["1.2", "1.10"], "bad-domain"),
    "1.3": "bad-address",
    "1.6": "moved-mailbox",
    **dict.fromkeys(["1.7", "1.8", "7.27"], "bad-sender"),
    "1.9": "protocol-error",
    "2.1": "inactive-mailbox",
    "2.2": "mailbox-full",
    "2.3": "message-too-large",
    "2.4": "mailbox-trouble",
    "3.1": "system-full",
    "3.2": "host-unavailable",
    "3.3": "unsupported",
    "3.4": "message-too-large",
    "3.5": "system-trouble",
    "3.6": "unsupported",
    "4.1": "connection-failed",
    "4.2": "connection-failed",
    "4.3": "dns-failure",
    "4.4": "routing-error",
    "4.5": "host-unavailable",
    "4.6": "routing-error",
    "4.7": "expired",
    "5.1": "protocol-error",
    "5.2": "protocol-error",
    "5.3": "too-many-recipients",
    "5.4": "protocol-error",
    "5.5": "protocol-error",
    "5.6": "protocol-error",
    **{f"6.{n}": "unsupported" for n in (1, 2, 3, 4, 5, 7, 8, 9, 10)},
    "6.6": "bad-content",
    "7.1": "policy",
    "7.2": "not-allowed",
    **{f"7.{n}": "unsupported" for n in (3, 4, 5, 6, 7)},
    "7.8": "login-required",
    "7.9": "login-required",
    "7.10": "tls-failure",
    "7.11": "tls-failure",
    "7.12": "login-required",
    "7.13": "inactive-mailbox",
    "7.14": "not-allowed",
    "7.15": "policy",
    "7.16": "policy",
    **{f"7.{n}": "moved-mailbox" for n in (17, 18, 19)},
    **{f"7.{n}": "authentication-failed" for n in (20, 21, 22, 23, 24, 26, 29)},
    "7.25": "sender-dns",
    "7.28": "rate-limited",
    "7.30": "tls-failure",
}


@pytest.mark.parametrize("class_", [4, 5])
@pytest.mark.parametrize("registered", sorted(REGISTRY))
def test_an_enhanced_code_without_words_has_the_class_of_its_registration(registered: str, class_: int) -> None:
    verdict = OWN.verdict(class_ * 100 + 50, f"{class_}.{registered}", "", phase="rcpt")
    assert verdict.name == REGISTRY[registered]
    assert verdict.rule is not None
    assert verdict.rule.file == str(OWN_RULES[1])


@pytest.mark.parametrize("phase", ["greeting", "mail", "rcpt", "end"])
def test_every_code_for_now_has_a_class_without_words(phase: str) -> None:
    for code in range(400, 500):
        assert OWN.verdict(code, "", "qqqq", phase=phase).name in set(CLASSES) - {"unclassified"}, code


def test_what_we_say_ourselves_is_known() -> None:
    """All that trouble.py can make of a connection has a class."""
    stages = [stage for stage in trouble.Stage if stage is not trouble.Stage.QUIT]
    judgements = [
        *(trouble.of_loss(stage, "mx[192.0.2.1]:25", "") for stage in stages),
        *(trouble.of_loss(stage, "mx[192.0.2.1]:25", "", is_timeout=True) for stage in stages),
        *(trouble.of_protocol_error(stage, "mx[192.0.2.1]:25", "x") for stage in stages),
        trouble.of_connect(TimeoutError(), "mx[192.0.2.1]:25"),
        trouble.of_connect(OSError(24, "x"), "mx[192.0.2.1]:25"),
        trouble.of_no_address("s", "t"),
        trouble.of_loop("mx[192.0.2.1]:25", "h"),
        trouble.of_shutdown(7, "r"),
        trouble.of_handshake("r", "x"),
        trouble.no_starttls("r"),
        trouble.no_requiretls("r"),
        trouble.not_located("s"),
        trouble.no_material("x"),
        trouble.of_spool(5),
        trouble.too_large(1, 2, "r"),
        trouble.needs_8bitmime("r"),
        trouble.needs_binarymime("r"),
        trouble.too_late("r"),
        trouble.needs_deliverby("r"),
        trouble.needs_smtputf8("r"),
    ]
    for judgement in judgements:
        assert Classifier.name_of(OWN, judgement.trouble) != "unclassified", judgement
    assert {trouble.PHASE[stage] for stage in trouble.Stage} <= set(PHASES)


def test_the_first_rule_that_holds_decides_and_says_where_it_stands(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '# of ours\n[[rule]]\nclass = "policy"\ncode = "5xx"\nmx = "*.Example.NET"\ntext = [\n  "other words",\n'
        "  \"user   Unknown\",\n]\n\n[[rule]]\nclass = 'virus'\nmatch = 'code [0-9]+ of \\d'\n"
    )
    mixed = Classifier(read_rules([mine, *OWN_RULES]))
    verdict = mixed.verdict(550, "5.1.1", "User  unknown\nhere", mx="mx1.example.net.")
    assert (verdict.name, verdict.line) == ("policy", 8)
    assert verdict.rule is not None
    assert (verdict.rule.file, verdict.rule.line) == (str(mine), 2)
    # any condition that does not hold lets the next rules speak
    assert mixed.verdict(550, "5.1.1", "User unknown", mx="mx1.example.org").name == "bad-mailbox"
    assert mixed.verdict(450, "4.1.1", "User unknown", mx="mx1.example.net").name == "bad-mailbox"
    verdict = mixed.verdict(550, "", "CODE 12 of 3")
    assert (verdict.name, verdict.line) == ("virus", 13)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[rule]]\nclass = 'no-such'\ncode = '550'\n", '{}:1: class: there is no class "no-such"'),
        ("\n[[rule]]\nclass = 'virus'\n", "{}:2: a rule without a condition would match everything"),
        ("[[rule]]\nclass = 'virus'\ntext = ['']\n", "{}:1: text: empty, it would match everything"),
        (
            "[[rule]]\nclass = 'virus'\nmatch = '('\n",
            "{}:1: match: '(': missing ), unterminated subpattern at position 0",
        ),
        (
            "[[rule]]\nclass = 'virus'\ncode = '350'\n",
            '{}:1: code: "350" is neither a reply code ("550", "55x", "5xx") nor "none"',
        ),
        (
            "[[rule]]\nclass = 'virus'\nstatus = '5.1'\n",
            '{}:1: status: "5.1" is no enhanced status code ("5.1.1", "*.7.*")',
        ),
        ("[[rule]]\nclass = 'virus'\nphase = 'rcpt-to'\n", f'{{}}:1: phase: "rcpt-to" is none of {", ".join(PHASES)}'),
        ("[[rule]]\nclass = 'virus'\nwords = 'x'\n", "{}:1: Object contains unknown field `words`"),
        ("[rule]\nclass = 'virus'\n", "{}: rule: write [[rule]], an array of tables"),
        ("[[rules]]\nclass = 'virus'\n", "{}: rules: only [[rule]] may stand in a rule file"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(RuleError) as refused:
        read_file(path)
    assert str(refused.value) == reason.format(path)


def test_a_heading_inside_a_string_costs_the_line_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nclass = "virus"\ntext = """\n[[rule]]\n"""\n')
    verdict = Classifier(read_file(path)).verdict(550, "", "say [[Rule]] again")
    assert (verdict.name, verdict.line) == ("virus", 0)


def test_the_index_leaves_out_no_rule_that_holds() -> None:
    """Against asking all of them, one after the other."""
    for _, phase, mx, reply in REPLIES:
        code, status, text = parse(reply)
        asked = Reply(code, status, phase, mx, words_of(text))
        slow = next((rule.name for rule in OWN.rules if rule.holds(asked) is not None), "unclassified")
        assert OWN.verdict(code, status, text, phase=phase, mx=mx).name == slow, reply


def test_words_are_found_over_the_ends_of_lines_that_repeat_the_code() -> None:
    text = "5.1.1 The email account that you tried to reach does\n5.1.1 not\n5.1.1 exist. gsmtp"
    assert words_of(text) == "the email account that you tried to reach does not exist. gsmtp"
    assert OWN.name_of(Trouble(550, (5, 0, 0), text)) == "bad-mailbox"
    assert words_of("5.1.1") == ""


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 10)
    here = Classifier()
    for number in range(50):
        assert here.name_of(Trouble(550, (5, 1, 1), f"id {number}")) == "bad-mailbox"
    assert len(here._known) == 10
    assert here.name_of(Trouble(550, (5, 1, 1), "id 49")) == "bad-mailbox"


def test_the_same_words_of_another_host_are_another_answer(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nclass = "policy"\nmx = "*.a.example"\ntext = "go away"\n')
    here = Classifier(read_file(path))
    said = [Trouble(550, (5, 0, 0), "go away", f"mx.{name}.example[192.0.2.1]:25") for name in ("a", "b", "a")]
    assert [here.name_of(each) for each in said] == ["policy", "unclassified", "policy"]


def test_attempts_are_counted_by_class() -> None:
    before = attempts_total["virus"].value
    Classifier().count(Trouble(554, (5, 7, 1), "malware found"))
    assert attempts_total["virus"].value == before + 1


@pytest.mark.parametrize(
    ("remote", "mx"),
    [("MX1.example.net[192.0.2.1]:25", "mx1.example.net"), ("[192.0.2.1]:25", ""), ("/run/lmtp", ""), ("", "")],
)
def test_the_hosts_name_is_what_stands_before_its_address(remote: str, mx: str) -> None:
    assert mx_of(remote) == mx
