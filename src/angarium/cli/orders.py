"""`angarium orders list|cancel`: the standing orders of the running relay. They are given with `angarium queue`."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import msgspec

from angarium.cli.admin_client import AdminClient, NoAnswer, add_options
from angarium.model.printable import json_line, printable
from angarium.model.units import Duration
from angarium.queue.recovering import spoken
from angarium.queue.standing import Order


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "orders",
        help="list and cancel standing orders",
        description="Shows and ends what was ordered with `angarium queue suspend`, `reroute` and so on.",
        epilog="examples:\n  angarium orders list\n  angarium orders cancel suspend-1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="list|cancel", required=True)
    listing = actions.add_parser(
        "list", help="one line per order", description="Shows the orders that hold, the oldest first."
    )
    cancel = actions.add_parser("cancel", help="end orders", description="Ends orders. What they did stays done.")
    cancel.add_argument("name", nargs="+", help="as listed")
    for action in (listing, cancel):
        action.add_argument("--json", action="store_true", help="the answer of the HTTP API")
        add_options(action)


def run(args: argparse.Namespace) -> int:
    client = AdminClient.of(args)
    if args.action == "list":
        found = client.get("/v1/orders")
        if args.json:
            print(json_line(found))
            return 0
        for order in msgspec.convert(found["orders"], list[Order]):
            print(printable(_line(order)))
        return 0
    status = 0
    for name in args.name:
        try:
            answer = client.delete(f"/v1/orders/{name}")
        except NoAnswer as error:
            if error.status != 404:
                raise
            print(f"angarium: {error}")
            status = 1
            continue
        print(json.dumps(answer)) if args.json else print(f'order "{name}" is cancelled')
    return status


def _line(order: Order) -> str:
    """closed  suspend  domain example.com  since 3m, for 3h57m more: their postmaster asked us to"""
    now = time.time()
    since = f"since {Duration(max(0, int(now - order.made_utc_s)))}"
    left = Duration(max(0, int(order.ends_utc_s - now)))
    ends = f"for {left} more" if order.until_utc_s else "until it is cancelled"
    what = (f" to {order.next_hop}" if order.next_hop else "") + (f" by pool {order.pool}" if order.pool else "")
    what += f" every {Duration(order.every_s)}" if order.action == "retry" else ""
    action: str = order.action
    if step := order.step(now):
        action = f"{spoken(order.strength(now))} (step {step} of {order.steps})"
    only = "" if order.meets_later else ", mail from before"
    by = "" if order.by == "operator" else f", by {order.by}"
    reason = f": {order.reason}" if order.reason else ""
    return f"{order.name}  {action}{what}  {order.where}{only}  {since}, {ends}{by}{reason}"
