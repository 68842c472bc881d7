"""The `angarium` command: finds the sub-command, loads only that one's module, and ends with one line on any
refusal.

A sub-command is a module with `add_parser(subparsers)` and `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from angarium import __version__
from angarium.model.errors import AngariumError
from angarium.model.printable import printable

# name -> (module, one line). The lines stand here so that `angarium --help` loads none of the modules.
COMMANDS: Final = {
    "serve": ("angarium.cli.serve", "run the relay"),
    "check": ("angarium.cli.check", "check a configuration file"),
    "status": ("angarium.cli.status", "show how the running relay is"),
    "sources": ("angarium.cli.sources", "show egress sources, suspended ones, and warm-ups"),
    "queue": ("angarium.cli.queue", "list and show queued mail; suspend, bounce, delete, retry, re-route it"),
    "orders": ("angarium.cli.orders", "list and cancel standing orders"),
    "automation": ("angarium.cli.automation", "show, explain and cancel what automation does"),
    "explain": ("angarium.cli.explain", "say why mail waits, or what would become of it"),
    "top": ("angarium.cli.top", "show the busiest sites, anew every two seconds"),
    "auth": ("angarium.cli.auth", "keep the file of credentials: add, passwd, list, delete"),
    "policy": ("angarium.cli.policy", "play a message or a dialogue against a listener"),
    "shaping": ("angarium.cli.shaping", "show the limits for a domain, and what sets them"),
    "spool": ("angarium.cli.spool", "look into a spool, take mail out, put mail in, save one"),
    "explain-reject": ("angarium.cli.explain_reject", "say why something was refused"),
    "tls-policy": ("angarium.cli.tls_policy", "say how mail to a domain would be protected, and who says so"),
    "tls-reports": ("angarium.cli.tls_reports", "show what will be reported to domains about TLS, send it now"),
    "classify": ("angarium.cli.classify", "say which class a reply belongs to, and why"),
    "suppress": ("angarium.cli.suppress", "look into the suppression list, add to it, remove from it"),
    "trace": ("angarium.cli.trace", "show dialogues with clients or next hops as they happen"),
    "reload": ("angarium.cli.reload", "apply the configuration file to the running relay"),
    "send": ("angarium.cli.send", "send one message"),
    "sink": ("angarium.cli.sink", "an SMTP server that takes mail and forgets it, for tests"),
    "blast": ("angarium.cli.blast", "a load generator for any mail server"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 done, 1 not wholly done, 2 refused."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _Parser(
        prog="angarium",
        description="A mail transfer agent whose 250 means stable storage, and fast.",
        epilog="commands:\n"
        + "".join(f"  {name:8} {line}\n" for name, (_, line) in COMMANDS.items())
        + "\n`angarium COMMAND --help` explains each, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="angarium [--version] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"angarium {__version__}")
    command = next((word for word in words if not word.startswith("-")), None)
    if command not in COMMANDS:
        parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS, choices=COMMANDS)
        parser.parse_args(words)
        parser.error(f"no such command: {command}")
    module = importlib.import_module(COMMANDS[command][0])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog="angarium")
    module.add_parser(commands)
    args = parser.parse_args(words)
    try:
        status: int = module.run(args)
        sys.stdout.flush()
    except (AngariumError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # `angarium queue list | head`: what the reader did not want is not an error of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        # A path, a key or a reply in it may be anybody's.
        print(f"angarium: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
