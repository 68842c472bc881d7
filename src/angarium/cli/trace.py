"""`angarium trace`: what clients and relay say to each other, as it happens."""

from __future__ import annotations

import argparse
import ipaddress
import signal
import sys
from typing import Any, Final

import msgspec

from angarium.cli.admin_client import AdminClient, add_options
from angarium.events.dialogue import DATA_OCTETS, DATA_OCTETS_MOST
from angarium.model.printable import json_line, printable

_ARROWS: Final = {"command": "C:", "reply": "S:", "data": "C>", "noise": "C?", "message": "C>"}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "trace",
        help="show dialogues with clients or next hops as they happen",
        description="Shows what clients of a network, or next hops, and the running relay say to each other, over all\n"
        "workers.\n"
        "Sessions under way are shown from their next command on, TLS sessions in clear. Secrets of AUTH are masked.\n"
        "When more happens than can be shown, events are dropped and counted. Ends with Ctrl-C.",
        epilog="examples:\n"
        "  angarium trace --client 192.0.2.0/24\n"
        "  angarium trace --client 2001:db8::25 --data\n"
        "  angarium trace --domain example.com\n"
        "  angarium trace --next-hop 192.0.2.25 --data 2000\n"
        "  angarium trace --client 0.0.0.0/0 --json | jq -r 'select(.event == \"reply\").text'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--client", type=_network, metavar="NETWORK", help="address or network of clients")
    whom.add_argument("--site", metavar="NAME", help="next hops of a site, by its name or that of one of its hosts")
    whom.add_argument("--domain", metavar="NAME", help="next hops of the site that mail for this domain goes to now")
    whom.add_argument("--next-hop", type=_network, metavar="NETWORK", help="address or network of next hops")
    parser.add_argument(
        "--data",
        type=_octets,
        nargs="?",
        const=DATA_OCTETS,
        metavar="OCTETS",
        help=f"message data, too: the first {DATA_OCTETS} octets of each message, or as many; without it only its size",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line, as the HTTP API gives them")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    # Python's own handler only leaves a note, which nobody reads while the next line is waited for: a Ctrl-C that comes
    # just before that would be lost. There is nothing to clean up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    whom = {"client": args.client, "site": args.site, "domain": args.domain, "next_hop": args.next_hop}
    key, value = next((key, value) for key, value in whom.items() if value is not None)
    query = {key: value, "data": None if args.data is None else str(args.data)}
    for line in AdminClient.of(args).stream("/v1/trace", **query):
        if not line:
            of_whom = f"clients of {value}" if key == "client" else f"next hops ({key.replace('_', ' ')} {value})"
            print(f"looking on at {of_whom}; Ctrl-C ends it", file=sys.stderr, flush=True)
            continue
        event = msgspec.json.decode(line)
        print(json_line(event) if args.json else printable(_shown(event)), flush=True)
    return 0


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; expected such as 192.0.2.1 or 192.0.2.0/24") from None


def _octets(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= DATA_OCTETS_MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of octets from 1 to {DATA_OCTETS_MOST}")
    return int(text)


def _shown(event: dict[str, Any]) -> str:
    """13:10:02.117 0.17 192.0.2.1 C: EHLO client.example"""
    clock = event["time"][11:23]
    if event["event"] == "dropped":
        return f"{clock} ({event['count']} events dropped)"
    who = f"{clock} {event['session']:<6} {event.get('remote') or event.get('client') or 'unix'}"
    if (arrow := _ARROWS.get(event["event"])) is None:
        return f"{who} -- {event['event']} {event.get('text', '')}".rstrip()
    text = event.get("text", "")
    return f"{who} {arrow} ({text})" if event["event"] == "message" else f"{who} {arrow} {text}".rstrip()
