"""`angarium auth`: keeps the file of credentials that `auth.credentials = "file:..."` names. Needs no running relay."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from angarium.config.location import find
from angarium.model.errors import AngariumError


class Impossible(AngariumError):
    """What was asked cannot be done; the text says why."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "auth",
        help="keep the file of credentials",
        description="Keeps who may authenticate. A running relay sees a change within a second.\n"
        "The password is asked for, or is the first line of stdin when that is no terminal.",
        epilog="examples:\n"
        "  angarium auth add alice@example.net\n"
        "  pwgen -s 20 1 | angarium auth passwd alice@example.net --file /etc/angarium/credentials",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, line in (
        ("add", "adds an identity; makes the file when there is none"),
        ("passwd", "gives an identity another password"),
        ("list", "prints the identities, one a line"),
        ("delete", "removes an identity; its open sessions stay"),
    ):
        each = actions.add_parser(action, help=line, description=line)
        if action != "list":
            each.add_argument("identity", metavar="IDENTITY")
        which = each.add_mutually_exclusive_group()
        which.add_argument("--file", type=Path, metavar="FILE", help="default: what the configuration names")
        which.add_argument("--config", type=Path, metavar="FILE", help="the configuration to look into")


def run(args: argparse.Namespace) -> int:
    from angarium.sasl.credential_file import changing, make_entry, read

    path = args.file or _configured(args.config)
    if args.action == "list":
        for identity in read(path).entries:
            print(identity)
        return 0
    identity = _prepared(args.identity)
    if args.action == "delete":
        with changing(path) as credentials:
            if credentials.entries.pop(identity, None) is None:
                raise Impossible(f"{path}: there is no {identity}")
        return 0
    if args.action == "passwd" and identity not in read(path).entries:
        raise Impossible(f"{path}: there is no {identity}")
    entry = make_entry(_password())
    with changing(path, may_make=args.action == "add") as credentials:
        if args.action == "add" and identity in credentials.entries:
            raise Impossible(f"{path}: {identity} is there already")
        credentials.entries[identity] = entry
    return 0


def _configured(config: Path | None) -> Path:
    from angarium.config.schema import load

    path = find(config)
    credentials = load(path)[0].auth.credentials
    if credentials.kind != "file":
        raise Impossible(f'{path}: auth.credentials is not "file:..."; name a file with --file')
    return Path(credentials.path)


def _prepared(text: str) -> str:
    from angarium.sasl.preparation import identity_of

    try:
        identity = identity_of(text)
    except ValueError as error:
        raise Impossible(f"{text!r}: {error}") from None
    if identity == "*":
        raise Impossible("\"*\" stands for all identities in the configuration, and for none here")
    return identity


def _password() -> str:
    from angarium.sasl.preparation import password_of

    if sys.stdin.isatty():
        text = getpass.getpass("Password: ")
        if getpass.getpass("The same again: ") != text:
            raise Impossible("the passwords differ")
    else:
        text = sys.stdin.readline().removesuffix("\n")
    try:
        return password_of(text)
    except ValueError as error:
        raise Impossible(f"password: {error}") from None
