"""`angarium suppress`: looks into the suppression list and changes it. Works beside a running relay and without one."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from angarium.bounces.classes import CLASSES
from angarium.config.location import find
from angarium.model.errors import AngariumError

if TYPE_CHECKING:
    from angarium.bounces.suppression import Entry, SuppressionList

_DAY_S: Final = 86400


class Impossible(AngariumError):
    """What was asked cannot be done; the text says why."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "suppress",
        help="look into the suppression list, add to it, remove from it",
        description="Keeps the list of addresses that are not sent to. The list holds hashes: it can say of an\n"
        "address whether it is on it, and not which addresses are. A running relay sees a change at once.\n"
        "Exit status of check: 0 the address is listed, 1 it is not. Of remove: 1 when nothing was known of it.",
        epilog="examples:\n"
        "  angarium suppress check u2@y.example\n"
        "  angarium suppress add --days 365 --class unsubscribed u2@y.example\n"
        "  angarium suppress remove --tenant acme u2@y.example\n"
        "  angarium suppress export > list.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, line in (
        ("list", "prints what is listed: hash, class, since when, until when"),
        ("add", "lists an address"),
        ("remove", "forgets an address"),
        ("check", "says whether an address is listed, and why"),
        ("export", "prints everything, counted failures included, one JSON object a line"),
    ):
        each = actions.add_parser(action, help=line, description=line)
        if action in ("add", "remove", "check"):
            each.add_argument("address", metavar="MAILBOX")
            each.add_argument("--tenant", metavar="NAME", default="", help="whose list (default: everybody's)")
        if action == "add":
            each.add_argument(
                "--class", dest="name", metavar="CLASS", default="unsubscribed", help="default: unsubscribed"
            )
            each.add_argument("--days", type=float, metavar="N", default=365.0, help="how long (default: 365)")
        if action in ("check", "add", "remove"):
            each.add_argument("--json", action="store_true", help="as JSON")
        each.add_argument(
            "--config", type=Path, metavar="FILE", help="default: ./angarium.toml, then /etc/angarium/angarium.toml"
        )


def run(args: argparse.Namespace) -> int:
    address = _address(args.address) if "address" in args else b""
    if args.action == "add":
        if args.name not in CLASSES:
            raise Impossible(f'--class: there is no class "{args.name}"; `angarium classify --list` has them')
        if not 0 < args.days <= 3650:
            raise Impossible("--days: more than 0 and at most 3650")
    suppression = _open(args)
    try:
        if args.action in ("list", "export"):
            for entry in suppression.entries():
                if args.action == "export":
                    print(json.dumps(_table(entry)))
                elif entry.is_listed:
                    print(_told(entry))
            return 0
        tenant = args.tenant.encode()
        if args.action == "remove":
            is_gone = suppression.remove(tenant, address)
            print(json.dumps({"removed": is_gone}) if args.json else "removed" if is_gone else "nothing is known of it")
            return 0 if is_gone else 1
        if args.action == "add":
            suppression.add(tenant, address, args.name, args.days * _DAY_S)
        found = suppression.entry(tenant, address)
        if args.json:
            print(json.dumps(None if found is None else _table(found)))
        else:
            print("not listed" if found is None else _told(found))
        return 0 if found is not None and found.is_listed else 1
    finally:
        suppression.close()


def _address(text: str) -> bytes:
    from angarium.recipients.mailbox import parse_target

    mailbox = parse_target(text.encode())
    if mailbox is None:
        raise Impossible(f'"{text}" is not a mailbox')
    return mailbox


def _open(args: argparse.Namespace) -> SuppressionList:
    from angarium.bounces.secret import read_or_make, secret_path
    from angarium.bounces.suppression import FILE_NAME, SuppressionList
    from angarium.config.schema import load

    config, tree = load(find(args.config))
    if config.suppression.action == "off":
        raise Impossible(f"{tree.files[0]}: suppression.action is off: there is no list")
    if "tenant" in args and args.tenant and config.suppression.scope != "tenant":
        raise Impossible(f"{tree.files[0]}: suppression.scope is global: there are no lists of tenants")
    secret = read_or_make(secret_path(config.node.spool, config.bounces.secret_file))
    return SuppressionList(Path(config.node.spool) / FILE_NAME, config.suppression, secret)


def _table(entry: Entry) -> dict[str, object]:
    return {
        "hash": entry.hash,
        "class": entry.name,
        "listed": entry.is_listed,
        "hits": entry.hits,
        "since": _time(entry.first_utc_s),
        "until": _time(entry.expires_utc_s),
    }


def _told(entry: Entry) -> str:
    state = "listed" if entry.is_listed else f"not listed, {entry.hits} counted"
    return f"{entry.hash}  {state}  {entry.name}  {_time(entry.first_utc_s)}  until {_time(entry.expires_utc_s)}"


def _time(utc_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(utc_s))
