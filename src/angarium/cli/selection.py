"""The filters of `angarium queue` as options; what they mean is queue/selection.py's."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import msgspec

from angarium.model.units import Duration, Octets
from angarium.queue.selection import selection
from angarium.spool.envelope import decode_id


def unit(kind: type[Any]) -> Callable[[str], Any]:
    """For argparse: reads a Duration or Octets; "512" is octets."""

    def read(text: str) -> Any:
        try:
            return kind.decode(int(text) if kind is Octets and text.isascii() and text.isdigit() else text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def message_id(text: str) -> str:
    """As the spool spells it. An empty one, of a script's unset variable, must never stand for more."""
    try:
        decode_id(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an id: 13 digits and letters as listed") from None
    return text


def _filled(text: str) -> str:
    """Nor an empty filter."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Those of Selection, an id, and --all."""
    parser.set_defaults(parser=parser)
    group = parser.add_argument_group("filters", "of several all must hold; at least one, or --all, is needed")
    group.add_argument("id", nargs="?", metavar="ID", type=message_id, help="one message")
    for name, metavar, text in (
        ("domain", "DOMAIN", 'of the recipient; ".example.com": all below it, "@example.com": both'),
        ("site", "SITE", "as shown by `queue show`, or one of its hosts"),
        ("provider", "NAME", "of [shaping.provider.NAME]"),
        ("source", "NAME", "by which it would leave now"),
        ("pool", "NAME", "likewise"),
        ("tenant", "NAME", "as a hook gave it"),
        ("campaign", "NAME", "likewise"),
        ("sender", "PATH", 'reverse-path: a mailbox, a domain, ".domain", or "<>"'),
        ("recipient", "PATH", "forward-path, likewise"),
    ):
        group.add_argument(f"--{name}", metavar=metavar, type=_filled, help=text)
    group.add_argument("--without-tenant", action="store_true", default=None, help="of no tenant")
    group.add_argument("--older-than", metavar="TIME", type=unit(Duration), help='since it came: "2d"')
    group.add_argument("--younger-than", metavar="TIME", type=unit(Duration))
    group.add_argument("--larger-than", metavar="SIZE", type=unit(Octets), help='"1MiB"')
    group.add_argument("--smaller-than", metavar="SIZE", type=unit(Octets))
    group.add_argument("--all", action="store_true", help="the whole queue")


def selected(args: argparse.Namespace) -> dict[str, Any]:
    """`where` and `all` of an order. Ends as wrong usage does when a filter is wrong, or when there is none."""
    parser: argparse.ArgumentParser = args.parser
    names = ("id", "domain", "site", "provider", "source", "pool", "tenant", "campaign", "without_tenant", "sender",
             "recipient", "older_than", "younger_than", "larger_than", "smaller_than")  # fmt: skip
    try:
        where = selection(**{name: getattr(args, name) for name in names})
    except ValueError as error:
        parser.error(f"--{error}")
    if where.is_all != args.all:
        parser.error("which mail? Give filters, or --all for the whole queue, and not both")
    return {"where": msgspec.to_builtins(where), "all": args.all}
