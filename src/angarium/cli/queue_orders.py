"""The orders of `angarium queue`: suspend, resume, bounce, delete, retry, reroute."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, Final

from angarium.cli.admin_client import AdminClient, NoAnswer, add_options
from angarium.cli.selection import add_filters, selected, unit
from angarium.model.printable import json_line
from angarium.model.units import Duration

# A queue of millions is gone through while mail goes on: longer than steward.WALK_TIMEOUT_S, or who waits would not
# learn that the order holds.
_WALK_S: Final = 3630.0

_RULE: Final = (
    "Without --for and --name it is about mail that is queued now. With one of them it is a standing order, which\n"
    "meets later mail too, is shown by `angarium orders list` and ended by `angarium orders cancel NAME`."
)

# name -> (one line, description, past participle)
_ORDERS: Final = {
    "suspend": (
        "try some mail no more until told",
        "Holds mail back: nothing of it is tried.\n" + _RULE,
        "are suspended",
    ),
    "resume": (
        "try suspended mail again",
        "Ends suspensions of just what the filters say, or with --all every one; for part of what is suspended it is\n"
        "an exception to that. With --for it is an exception for so long, and what was suspended is so again.",
        "are tried again",
    ),
    "bounce": (
        "give mail back to its senders",
        "Gives mail up and tells its senders, as NOTIFY of each recipient says.\n" + _RULE,
        "are given back",
    ),
    "delete": (
        "drop mail without a report",
        "Drops mail for good, without a report. What a connection has in hand is not touched.\n" + _RULE,
        "deleted",
    ),
    "retry": (
        "try deferred recipients now",
        "Has deferred recipients tried now instead of when they are due. Suspended ones stay suspended.\n"
        "With --for, whom the filters mean is tried again --every so often for so long, also what comes later.",
        "are tried now",
    ),
    "reroute": (
        "send mail by another next hop or pool",
        "Has mail go to another next hop, or leave by another pool, from its next attempt on. When the order ends,\n"
        "what is still there goes as routes say again.\n" + _RULE,
        "go another way",
    ),
}  # fmt: skip

NAMES: Final = tuple(_ORDERS)


def add_parsers(orders: Any) -> None:
    for name, (line, description, _) in _ORDERS.items():
        parser = orders.add_parser(
            name, help=line, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_filters(parser)
        parser.add_argument(
            "--for", dest="for_", metavar="TIME", type=unit(Duration), help='it holds so long: "4h"'
        )
        with_name = "with --for" if name == "retry" else "without --for it holds until cancelled"
        parser.add_argument("--name", default="", help=f"of a standing order; {with_name}")
        parser.add_argument(
            "--reason", default="", metavar="TEXT", help="shown with the order; in reports of bounce"
        )
        if name == "retry":
            parser.add_argument(
                "--every", metavar="TIME", type=unit(Duration), help='with --for: "2m" (default: 1m, at least 30s)'
            )
        if name == "suspend":
            parser.add_argument(
                "--recovery", metavar="TIME", type=unit(Duration),
                help="with --for: connections and rates come back in steps, for so long",
            )  # fmt: skip
            parser.add_argument("--steps", type=int, default=4, help="of --recovery (default: 4)")
        if name == "bounce":
            parser.add_argument("--code", type=int, default=0, metavar="550", help="reply code for the report")
            parser.add_argument("--status", default="5.7.1", help="enhanced status code (default: 5.7.1)")
        if name == "reroute":
            parser.add_argument("--to", default="", metavar="HOP", help='as in [[route]]: "smtp://host:25", "mx"')
            parser.add_argument("--to-pool", default="", metavar="NAME", help="of [pool.NAME]")
        parser.add_argument("--dry-run", action="store_true", help="only count, and show some of it")
        parser.add_argument("--json", action="store_true", help="the answer of the HTTP API")
        add_options(parser)


def run(args: argparse.Namespace, print_line: Callable[[dict[str, Any]], None]) -> int:
    """Raises NoAnswer."""
    request = selected(args) | {"action": args.order, "dry_run": args.dry_run}
    for key, value in (
        ("name", getattr(args, "name", "")),
        ("for_s", getattr(args, "for_", None)),
        ("reason", getattr(args, "reason", "")),
        ("code", getattr(args, "code", 0)),
        ("status", getattr(args, "status", "")),
        ("next_hop", getattr(args, "to", "")),
        ("pool", getattr(args, "to_pool", "")),
        ("every_s", getattr(args, "every", None)),
        ("recovery_s", getattr(args, "recovery", None)),
        ("steps", getattr(args, "steps", 0)),
    ):
        if value:
            request[key] = value
    answer = AdminClient.of(args).post("/v1/orders", request, timeout_s=_WALK_S)
    is_done_once = args.order in ("bounce", "delete") and not args.dry_run and answer["order"] is None
    if is_done_once and args.id and not answer["recipients"]:
        raise NoAnswer(f"{args.id} is not in the queue, or a connection has it in hand", 404)
    if args.json:
        print(json_line(answer))
        return 0
    recipients = f"{answer['recipients']} recipients of {answer['messages']} messages"
    if unknown := answer["unknown_domains"]:
        what = f"where the mail of {unknown} domains goes could not be looked up in time: none of theirs is met"
        print(what, file=sys.stderr)
    if incomplete := answer["incomplete"]:
        print(f"not all of the queue was gone through: {incomplete}", file=sys.stderr)
        recipients = f"at least {recipients}"
    if args.dry_run:
        print(f"{recipients} are meant; nothing was done")
        for message in answer["sample"]:
            print_line(message)
        return 0
    print(f"{recipients} {_ORDERS[args.order][2]}")
    if (order := answer["order"]) is not None:
        ends = f"for {Duration(args.for_)}" if getattr(args, "for_", None) else "until it is cancelled"
        later = f", and what comes later, {ends}" if order.get("meets_later", True) else ""
        print(f'order "{order["name"]}" holds{later}')
    for name in answer["cancelled"]:
        print(f'order "{name}" is cancelled')
    return 0
