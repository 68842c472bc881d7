"""`angarium top`: the busiest sites of the running relay, anew every two seconds."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Any, Final

from angarium.cli.admin_client import AdminClient, NoAnswer, add_options
from angarium.model.printable import json_line, printable
from angarium.model.units import Duration

# As queue/top_sites.py has them: what `--help` says must load nothing.
_ORDERS: Final = ("depth", "rate", "deferral", "connections", "last")
_FIRST_S: Final = 1.0           # rates need two looks
_HOME: Final = "\x1b[H\x1b[2J"  # cursor to the corner, screen empty (ECMA-48)
_SITE_CHARACTERS: Final = 44


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "top",
        help="show the busiest sites, anew every two seconds",
        description="Shows the busiest sites over all workers: recipients that may go now, connections, outcomes a\n"
        "second, how many of them are deferrals, and the last reply that was no delivery. Ends with Ctrl-C.",
        epilog="examples:\n  angarium top\n  angarium top --sort deferral --limit 40\n  angarium top --once --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sort", choices=_ORDERS, default="depth", help="the most of it first (depth)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="so many sites (as fit the screen, or 20)")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two looks (2)")
    parser.add_argument("--once", action="store_true", help="one answer, after a second in which rates are measured")
    parser.add_argument("--json", action="store_true", help="one JSON object a look, as the HTTP API gives them")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.every < _FIRST_S / 2:
        raise NoAnswer("--every: 0.5 seconds or more")
    if args.limit < 0:
        raise NoAnswer("--limit: 1 or more")
    signal.signal(signal.SIGINT, signal.SIG_DFL)        # as trace does: there is nothing to clean up
    client = AdminClient.of(args)
    is_screen = sys.stdout.isatty() and not args.once and not args.json
    client.get("/v1/top", order=args.sort, limit=1)
    time.sleep(_FIRST_S)
    while True:
        found = client.get("/v1/top", order=args.sort, limit=args.limit or _lines(is_screen))
        if args.json:
            print(json_line(found), flush=True)
        else:
            print((_HOME if is_screen else "") + "\n".join(_table(found)), flush=True)
        if args.once:
            return 0
        time.sleep(args.every)


def _lines(is_screen: bool) -> int:
    return max(min(os.get_terminal_size().lines - 3, 1000), 1) if is_screen else 20


def _table(found: dict[str, Any]) -> list[str]:
    width = os.get_terminal_size().columns if sys.stdout.isatty() else 1000
    lines = [
        f"{found['sites']} live sites, {found['waiting']} recipients ready, {found['connections']} connections,"
        f" {found['rate']:.1f} outcomes/s",
        f"{'depth':>8} {'conn':>6} {'rate/s':>9} {'deferred':>8}  {'site':<{_SITE_CHARACTERS}}  last reply",
    ]
    for row in found["rows"]:
        site = printable(row["site"])
        if len(site) > _SITE_CHARACTERS:
            site = site[: _SITE_CHARACTERS - 3] + "..."
        figures = f"{row['waiting']:>8} {row['connections']:>6} {row['rate']:>9.1f} {100 * row['deferral']:>6.1f} %"
        lines.append(f"{figures}  {site:<{_SITE_CHARACTERS}}  {_last(row['last'])}".rstrip()[:width])
    return lines


def _last(reply: dict[str, Any] | None) -> str:
    if reply is None:
        return ""
    ago = Duration(max(round(time.time() - reply["utc_s"]), 0))
    code = f"{reply['code']} " if reply["code"] else ""
    return printable(f"{ago} ago: {code}{' '.join(reply['text'].split())}")
