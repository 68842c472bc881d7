"""`angarium reload`: have the running relay read its configuration again, and hear what it says."""

from __future__ import annotations

import argparse
from typing import Any

from angarium.cli.admin_client import AdminClient, add_options


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "reload",
        help="apply the configuration file to the running relay",
        description="The running relay reads its configuration file again and applies all of it; or it\n"
        "refuses, says why, and goes on with the old one (exit status 2). No connection is dropped.\n"
        "SIGHUP does the same without an answer.",
        epilog="example:\n  angarium reload --config /etc/angarium/angarium.toml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    AdminClient.of(args).post("/v1/reload", {})
    print("reloaded")
    return 0
