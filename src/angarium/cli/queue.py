"""`angarium queue list|show` and the orders of queue_orders.py: queued mail, through the HTTP API."""

from __future__ import annotations

import argparse
import time
from typing import Any

from angarium.cli import queue_orders
from angarium.cli.admin_client import AdminClient, NoAnswer, add_options
from angarium.cli.selection import message_id
from angarium.model.printable import json_line, printable
from angarium.model.units import Duration

_PAGE = 500


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "queue",
        help="list and show queued mail; suspend, bounce, delete, retry, re-route it",
        description="Looks into the queue of the running relay and gives it orders.",
        epilog="examples:\n"
        "  angarium queue list --domain example.org\n"
        "  angarium queue show 02TR4P4JG0001\n"
        "  angarium queue retry --domain example.org\n"
        "  angarium queue suspend --provider google --campaign spring --for 4h --name spring\n"
        "  angarium queue bounce --domain gmial.com --older-than 1d --dry-run\n"
        "  angarium queue delete 02TR4P4JG0001",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    orders = parser.add_subparsers(dest="order", metavar="list|show|" + "|".join(queue_orders.NAMES), required=True)

    listing = orders.add_parser(
        "list",
        help="one line per message",
        description="Lists queued messages: id, age, size, recipients, domains, why.",
    )
    listing.add_argument("--domain", help="only messages with recipients there")
    listing.add_argument(
        "--state", help='only messages with recipients in this state: "ready", "deferred", "in hand" ...'
    )
    listing.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many (default: all)")

    show = orders.add_parser(
        "show", help="everything about one message", description="Shows envelope, recipients, replies."
    )
    show.add_argument("id", metavar="ID", type=message_id)

    queue_orders.add_parsers(orders)
    for order in (listing, show):
        order.add_argument(
            "--json", action="store_true", help="one JSON object per line, as the HTTP API gives them"
        )
        add_options(order)


def run(args: argparse.Namespace) -> int:
    if args.order in queue_orders.NAMES:
        return queue_orders.run(args, _print_line)
    client = AdminClient.of(args)
    match args.order:
        case "list":
            return _list(client, args)
        case "show":
            message = client.get(f"/v1/queue/{args.id}")
            _print_json(message) if args.json else _print_message(message)
    return 0


def _list(client: AdminClient, args: argparse.Namespace) -> int:
    if args.limit < 0:
        raise NoAnswer("--limit: 0 (all) or more")
    after, left = "", args.limit or None
    while after is not None:
        limit = _PAGE if left is None else min(left, _PAGE)
        page = client.get("/v1/queue", after=after or None, limit=limit, domain=args.domain, state=args.state)
        for message in page["messages"]:
            _print_json(message) if args.json else _print_line(message)
        after = page["next"]
        if left is not None:
            left -= len(page["messages"])
            if left <= 0:
                break
    return 0


def _print_json(value: object) -> None:
    print(json_line(value))


def _print_line(message: dict[str, Any]) -> None:
    """02TR4P4JG0001  1h2m  4096  2/3  deferred  example.org  450 4.2.0 try later"""
    age = Duration(max(0, int(time.time() - message["received_utc_s"])))
    waiting = f"{message['waiting']}/{message['recipients']}"
    places, domains = ",".join(message["places"]), ",".join(message["domains"])
    trouble = message.get("last_trouble") or ""
    start = f"{message['id']}  {age!s:>8}  {message['octets']:>9}  {waiting:>7}"
    print(printable(f"{start}  {places:<9}  {domains}  {trouble}".rstrip()))


def _print_message(message: dict[str, Any]) -> None:
    for key, value in message.items():
        if key == "recipients" or value in (None, "", []):
            continue
        shown = (
            _moment(value)
            if key.endswith("_utc_s")
            else ", ".join(value)
            if isinstance(value, list)
            else value
        )
        print(printable(f"{key.removesuffix('_utc_s').replace('_', ' '):<14} {shown}"))
    for recipient in message["recipients"]:
        print("\n" + printable(recipient.get("to") or recipient["domain"]))
        for key, value in recipient.items():
            if key in ("to", "domain") or value in (None, "", []):
                continue
            shown = _moment(value) if key.endswith("_utc_s") else value
            print(printable(f"  {key.removesuffix('_utc_s').replace('_', ' '):<14} {shown}"))


def _moment(utc_s: float) -> str:
    away = Duration(abs(int(utc_s - time.time())))
    when = f"in {away}" if utc_s > time.time() else f"{away} ago"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(utc_s))} ({when})"
