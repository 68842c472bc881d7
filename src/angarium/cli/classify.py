"""`angarium classify`: which class a reply belongs to, and which rule says so. Needs no running relay."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from angarium.bounces.classes import CLASSES, PHASES
from angarium.bounces.classifier import Classifier, Verdict
from angarium.config.location import find
from angarium.model.errors import ConfigError

# "550 5.7.1 text", "550-5.7.1 text", "550 text", or text alone.
_REPLY: Final = re.compile(
    r"(?:(?P<code>[2-5][0-9]{2})(?:[ -]|$))?\s*"
    r"(?:(?P<status>[245]\.[0-9]{1,3}\.[0-9]{1,3})(?=\s|$))?(?P<text>.*)",
    re.DOTALL,
)
_REPEATED: Final = re.compile(r"(?:\r?\n)[2-5][0-9]{2}[ -](?:[245]\.[0-9]{1,3}\.[0-9]{1,3} )?")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "classify",
        help="say which class a reply belongs to",
        description="Says which class a reply of another host belongs to, and which rule of which file says so.\n"
        "Rules are those of the configuration (bounces.rules), where there is one, and behind them our own.\n"
        'Without REPLY, or with "-", replies are read from stdin, one a line.\n'
        "Exit status 1: no rule knows one of them.",
        epilog="examples:\n"
        '  angarium classify "550 5.7.1 Service unavailable; client host blocked using Spamhaus"\n'
        '  angarium classify --phase rcpt --mx mx1.example.net "450 4.2.0 Greylisted"\n'
        "  angarium classify --rules new.toml < replies.txt\n"
        "  angarium classify --list",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "reply", nargs="?", metavar="REPLY", default="-", help="as it stands in the log, or with its code before it"
    )
    parser.add_argument(
        "--phase", choices=PHASES, default="", metavar="PHASE", help=f"where it was said: {', '.join(PHASES)}"
    )
    parser.add_argument("--mx", default="", metavar="NAME", help="of the host that said it")
    parser.add_argument(
        "--rules",
        type=Path,
        action="append",
        metavar="FILE",
        help="instead of those of the configuration; may be repeated",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="default: ./angarium.toml, then /etc/angarium/angarium.toml"
    )
    parser.add_argument("--list", action="store_true", help="all classes and what they mean")
    parser.add_argument("--json", action="store_true", help="one JSON object a reply")


def run(args: argparse.Namespace) -> int:
    if args.list:
        for name, meaning in CLASSES.items():
            print(json.dumps({"class": name, "meaning": meaning}) if args.json else f"{name:<22} {meaning}")
        return 0
    classifier = _classifier(args)
    replies: Iterable[str] = [args.reply] if args.reply != "-" else (line for line in sys.stdin if line.strip())
    is_known = True
    for reply in replies:
        code, status, text = parse(reply)
        verdict = classifier.verdict(code, status, text, phase=args.phase, mx=args.mx)
        is_known = is_known and verdict.rule is not None
        print(json.dumps(_table(verdict)) if args.json else _told(verdict))
    return 0 if is_known else 1


def parse(reply: str) -> tuple[int, str, str]:
    """Code (0: none), enhanced status code ("" when there is none) and text of a reply, its lines joined."""
    match = _REPLY.fullmatch(reply.strip())
    assert match is not None
    text = _REPEATED.sub("\n", match["text"]).strip()
    return int(match["code"] or 0), match["status"] or "", text


def _classifier(args: argparse.Namespace) -> Classifier:
    from angarium.bounces.options import BouncesOptions, make_classifier

    if args.rules is not None:
        return make_classifier(BouncesOptions(rules=[str(path.absolute()) for path in args.rules]))
    try:
        path = find(args.config)
    except ConfigError:
        return Classifier()
    from angarium.config.schema import load

    return make_classifier(load(path)[0].bounces)


def _table(verdict: Verdict) -> dict[str, object]:
    rule = verdict.rule
    return {
        "class": verdict.name,
        "meaning": CLASSES[verdict.name],
        "file": None if rule is None else rule.file,
        "line": None if rule is None else verdict.line or None,
        "rule": None if rule is None else rule.line or None,
    }


def _told(verdict: Verdict) -> str:
    if verdict.rule is None:
        return f"{verdict.name}\n  {CLASSES[verdict.name]}"
    where = verdict.rule.file + (f":{verdict.line}" if verdict.line else "")
    begins = ""
    if verdict.rule.line not in (0, verdict.line):
        begins = f", in the rule that begins in line {verdict.rule.line}"
    return f"{verdict.name}\n  {CLASSES[verdict.name]}\n  {where}{begins}"
