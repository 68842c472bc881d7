"""`angarium sources`: from where mail leaves, what of it cannot be used now, and how far warm-ups are."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from angarium.cli.admin_client import AdminClient, add_options
from angarium.model.units import Duration


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "sources",
        help="show egress sources, suspended ones, and warm-ups",
        description="Shows every egress source of the running relay: addresses, connections, recipients that wait for\n"
        "it, and what of it is suspended and why. Exit status 1: something is suspended.",
        epilog="example:\n  angarium sources --json | jq '.sources[] | select(.suspended != [])'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="as the HTTP API gives it")


def run(args: argparse.Namespace) -> int:
    found = AdminClient.of(args).get("/v1/sources")
    sources = found["sources"]
    if args.json:
        print(json.dumps(found))
    else:
        names = max((len(source["name"]) for source in sources), default=0)
        addresses = {source["name"]: ", ".join(source["addresses"]) or "chosen by the kernel" for source in sources}
        width = max(map(len, addresses.values()), default=0)
        for source in sources:
            print(
                f"{source['name']:{names}}  {addresses[source['name']]:{width}}  {source['connections']:6} connections"
                f"  {source['waiting']:6} waiting"
            )
            for each in source["suspended"]:
                since = Duration(max(round(time.time() - each["since_utc_s"]), 0))
                of_workers = f" in {each['workers']} workers" if each["workers"] > 1 else ""
                print(f"{'':{names}}  {each['address']} suspended for {since}{of_workers}: {each['reason']}")
        for each in found["warmups"]:
            whom = each["provider"] or "others"
            volume = f"{each['sent']} of {each['limit']} messages of today to {whom}"
            print(f"{each['source']:{names}}  is warmed up: {volume}")
    return 1 if any(source["suspended"] for source in sources) else 0
