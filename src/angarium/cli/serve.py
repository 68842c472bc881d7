"""`angarium serve`: run the relay in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from angarium.config.location import find


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="run the relay",
        description="Runs the relay in the foreground. SIGTERM or Ctrl-C let it finish what it has in hand.\n"
        "Events go to stdout, one JSON line each. SIGHUP reloads the configuration. Exit status 2: it could\n"
        "not start, and stderr says why.",
        epilog="example:\n  angarium serve --config /etc/angarium/angarium.toml >>/var/log/angarium.log",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: ./angarium.toml, then /etc/angarium/angarium.toml",
    )


def run(args: argparse.Namespace) -> int:
    from angarium.daemon import serve

    return serve(find(args.config))
