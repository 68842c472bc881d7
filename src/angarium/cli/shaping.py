"""`angarium shaping`: the limits in force for mail to a domain, and the line of the configuration that sets each."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from angarium.config.location import find
from angarium.model.errors import ConfigError

if TYPE_CHECKING:
    from angarium.config.explain_shaping import ShapingLine
    from angarium.config.schema import Config
    from angarium.model.plan import Site


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "shaping",
        help="show the limits for a domain, and what sets them",
        description="Shows what [shaping] comes to for mail to a domain: each key, its value, and the file, line\n"
        "and key that set it. The configuration file is asked, and DNS where the domain goes to its mail exchangers;\n"
        "the running relay is not.",
        epilog="examples:\n  angarium shaping example.com\n  angarium shaping example.com --source ip-1 --tenant shop",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("domain", metavar="DOMAIN", help="of recipients")
    parser.add_argument("--source", default="", metavar="NAME", help="of [source.NAME]; default: the only one")
    parser.add_argument("--tenant", default="", metavar="NAME", help="that a hook gives to the mail")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: ./angarium.toml, then /etc/angarium/angarium.toml",
    )


def run(args: argparse.Namespace) -> int:
    from angarium.config.explain_shaping import explain_shaping
    from angarium.config.schema import load

    config, tree = load(find(args.config))
    if args.source and args.source not in config.source:
        known = ", ".join(config.source) or "none is configured"
        raise ConfigError(f"there is no [source.{args.source}]; there are: {known}")
    source = args.source or (next(iter(config.source)) if len(config.source) == 1 else "")
    site = asyncio.run(_site(config, args.domain))
    lines = explain_shaping(config, tree, site, args.domain, source=source, tenant=args.tenant)
    if args.json:
        print(msgspec.json.encode(_table(site, lines)).decode())
    else:
        print(f"{args.domain} goes to {site.name}" + (f" from {source}" if source else ""))
        _print(lines)
    return 0


async def _site(config: Config, domain: str) -> Site:
    """Raises ConfigError: no mail goes there, or not now."""
    from angarium.model.plan import RoutingTrouble
    from angarium.resolver.caching_resolver import CachingResolver
    from angarium.routing.ourselves import Ourselves
    from angarium.routing.router import Router

    addresses = [listener.address for listener in config.listener if not listener.address.is_unix]
    names = [config.node.own_hostname(), *(source.ehlo for source in config.source.values() if source.ehlo)]
    resolver = CachingResolver(config.resolver)
    router = Router(
        config.all_routes(), resolver, Ourselves(names, [(address.host, address.port) for address in addresses])
    )
    try:
        return (await router.plan(domain.lower().encode())).site
    except RoutingTrouble as trouble:
        raise ConfigError(f"{domain}: {trouble.text}") from None
    finally:
        await resolver.close()


def _print(lines: list[ShapingLine]) -> None:
    from angarium.config.explain_shaping import OF_ROUTE

    values = max(len(line.value) for line in lines)
    for line in lines:
        where = str(line.place) if line.place is not None else "" if line.note == OF_ROUTE else "built in"
        note = f"({line.note})" if line.note else ""
        print(f"  {line.key:<26} {line.value:<{values}}  {' '.join(filter(None, (where, note)))}")


def _table(site: Site, lines: list[ShapingLine]) -> dict[str, object]:
    keys = [
        {
            "key": line.key,
            "value": line.value,
            "file": str(line.place.file) if line.place is not None else None,
            "line": line.place.line if line.place is not None else None,
            "set_by": line.place.key if line.place is not None else None,
            "note": line.note,
        }
        for line in lines
    ]
    return {"site": site.name, "shaping": keys}
