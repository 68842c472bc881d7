"""`angarium status`: how the running relay is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from angarium.cli.admin_client import AdminClient, add_options
from angarium.model.units import Duration


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "status",
        help="show how the running relay is",
        description="Shows version, listeners, workers and the size of the queue of the running relay.\n"
        "Exit status 1: not all workers serve.",
        epilog="example:\n  angarium status --json | jq .messages",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="as the HTTP API gives it")


def run(args: argparse.Namespace) -> int:
    status = AdminClient.of(args).get("/v1/status")
    if args.json:
        print(json.dumps(status))
    else:
        print(f"angarium {status['version']} on {status['hostname']}, up {Duration(round(status['up_s']))}")
        print(f"spool      {status['spool']}")
        print(f"listens on {', '.join(listener['actual'] for listener in status['listeners'])}")
        print(f"queue      {status['messages']} messages, {status['recipients']} recipients")
        for worker in status["workers"]:
            state = "serves" if worker["is_ready"] else "starting"
            up = Duration(round(worker["up_s"]))
            print(f"worker {worker['number']:<3} {worker['error'] or state}, pid {worker['pid']}, up {up}")
        # Each worker finds out by itself: one line for all that have.
        found = [each for worker in status["workers"] for each in worker["figures"].get("suspended", [])]
        for source, reason in sorted({(each["source"], each["reason"]) for each in found}):
            print(f"suspended  source {source}: {reason}")
    return 0 if all(worker["is_ready"] and not worker["error"] for worker in status["workers"]) else 1
