"""`angarium check`: say whether a configuration would be taken, without touching anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from angarium.config.location import find


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        help="check a configuration file",
        description="Reads a configuration and all it includes as `serve` would, and changes nothing.\n"
        "The hook file (policy.file) is run, as each worker will.\n"
        "Exit status 0: it is good. 2: it is not, and stderr names file, key and reason.\n"
        "What may not be meant, though it would be taken, is said on stderr too: warning: ...",
        epilog="example:\n  angarium check --config /etc/angarium/angarium.toml && systemctl reload angarium",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: ./angarium.toml, then /etc/angarium/angarium.toml",
    )


def run(args: argparse.Namespace) -> int:
    from angarium.config.schema import check_certificates, check_rules, check_secrets, load, read_hooks
    from angarium.config.tls_warnings import tls_warnings
    from angarium.policy.hook_file import load_hooks

    path = find(args.config)
    config, tree = load(path)
    check_certificates(config, tree)
    check_secrets(config, tree)
    check_rules(config, tree)
    hooks = read_hooks(config, tree)
    if hooks is not None:
        load_hooks(hooks)
    for warning in tls_warnings(config.shaping, tree):
        print(f"warning: {warning}", file=sys.stderr)
    node = config.node
    listeners = ", ".join(listener.address for listener in config.listener)
    print(f"{', '.join(map(str, tree.files))}: good")
    print(f"{node.own_hostname()}, {node.worker_count()} workers, spool {node.spool}, listens on {listeners}")
    return 0
