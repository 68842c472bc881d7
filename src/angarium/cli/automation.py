"""`angarium automation list|explain|cancel|restore|rules`: what rules on replies have the running relay do now."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from angarium.cli.admin_client import AdminClient, NoAnswer, add_options
from angarium.model.printable import json_line, printable
from angarium.model.units import Duration


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "automation",
        help="show, explain and cancel what automation does",
        description="Shows what rules of [automation] have made of the replies of remote hosts, and ends it.",
        epilog="examples:\n  angarium automation list\n  angarium automation explain yahoo-ts/yahoo/mail1\n"
        "  angarium automation cancel yahoo-ts/yahoo/mail1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="list|explain|cancel|restore|rules", required=True)
    made = [
        actions.add_parser("list", help="one line per measure", description="Shows what is in force, oldest first."),
        actions.add_parser("explain", help="why, since when, until when", description="Shows all about one measure."),
        actions.add_parser(
            "cancel",
            help="end a measure",
            description="Ends it at once; its rule may begin it anew. What holds for as long as the configuration\n"
            "says so holds no more until it is restored, or its rule is changed.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        ),
        actions.add_parser(
            "restore", help="undo the cancelling of what is permanent", description="Has it hold again."
        ),
        actions.add_parser("rules", help="the rules that are on", description="Shows the rules of the running relay."),
    ]
    for action in made[1:4]:
        action.add_argument("name", help="as listed")
    for action in made:
        action.add_argument("--json", action="store_true", help="as the HTTP API gives it")
        add_options(action)


def run(args: argparse.Namespace) -> int:
    client = AdminClient.of(args)
    if args.action == "cancel":
        answer = client.delete(f"/v1/automation/{args.name}")
        print(json.dumps(answer) if args.json else f'"{args.name}" is cancelled')
        return 0
    if args.action == "restore":
        answer = client.put(f"/v1/automation/{args.name}")
        print(json.dumps(answer) if args.json else f'"{args.name}" holds again')
        return 0
    found = client.get("/v1/automation")
    if args.action == "rules":
        _print_rules(found["rules"], args.json)
        return 0
    measures = found["measures"]
    if args.action == "explain":
        measures = [each for each in measures if each["name"] == args.name]
        if not measures:
            raise NoAnswer(f'automation does nothing that is called "{args.name}"', 404)
        if not args.json:
            _print_all(measures[0], found["rules"])
            return 0
    if args.json:
        for each in measures:
            print(json_line(each))
    else:
        for each in measures:
            print(printable(f"{each['name']}  {each['effect']}  {_times(each)}: {each['why']}"))
    return 0


def _times(measure: dict[str, Any]) -> str:
    now = time.time()
    since = Duration(max(0, int(now - measure["made_utc_s"])))
    if measure.get("is_permanent"):
        return f"since {since}, for as long as the rule is there"
    left = Duration(max(0, int(measure["ends_utc_s"] - now)))
    step = f" (going back, step {measure['step']} of {measure.get('steps', 1)})" if measure.get("step") else ""
    return f"since {since}, for {left} more{step}"


def _print_all(measure: dict[str, Any], rules: dict[str, Any]) -> None:
    print(measure["name"])
    of = [f"{key} {measure[key]}" for key in ("site", "provider", "source", "tenant", "campaign") if measure.get(key)]
    of += [f"{key} {' or '.join(names)}" for key, names in measure.get("whom", {}).items()]
    lines = [
        ("rule", measure["rule"] + ("" if measure["rule"] in rules else " (which is there no more)")),
        ("for", ", ".join(of) or "all mail"),
        ("does", measure["effect"]),
        ("since", _moment(measure["made_utc_s"])),
    ]
    if measure.get("is_permanent"):
        cancelled_utc_s = measure.get("cancelled_utc_s", 0.0)
        lines += [("cancelled", _moment(cancelled_utc_s))] if cancelled_utc_s else [("ends", "with its rule")]
        lines.append(("so far", f"{measure['count']} replies"))
    else:
        lines.append(("in full until", _moment(measure["until_utc_s"])))
        lines.append(("gone at", _moment(measure["ends_utc_s"])))
    lines.append(("why", measure["why"]))
    for label, text in lines:
        print(printable(f"  {label:<14} {text}"))
    for reply in measure["replies"]:
        print(printable(f"  {'reply':<14} {_moment(reply['at_utc_s'])}  {reply['remote']}: {reply['reply']}"))


def _print_rules(rules: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json_line(rules))
        return
    for name, rule in rules.items():
        rate = next((f"{key} {rule[key]:g}" for key in ("deferral_rate", "bounce_rate") if rule[key]), "")
        when = rate or f"{rule['count']} replies"
        if rule["duration"] is None:
            print(f"{name}  {rule['action']}, for as long as it is there")
            continue
        print(f"{name}  {rule['action']} {rule['scope']} for {Duration(rule['duration'])}, after {when} in "
              f"{Duration(rule['within'])}{' (dry run)' if rule['dry_run'] else ''}")  # fmt: skip


def _moment(utc_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(utc_s))
