"""`angarium tls-policy`: what DNS and the domain itself say about TLS, and what this relay makes of it, host by host.

Asks anew, by the configuration's name servers; the running relay may still hold an older answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from angarium.config.files import spell
from angarium.config.location import find
from angarium.model.errors import ConfigError
from angarium.model.printable import json_line

_WISHES: Final = {"none": "NONE", "requiretls": "REQUIRED", "tls-required-no": "OPTIONAL"}
_USAGES: Final = {0: "PKIX-TA", 1: "PKIX-EE", 2: "DANE-TA", 3: "DANE-EE"}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "tls-policy",
        help="say how mail to a domain would be protected, and who says so",
        description="Looks a domain up as the relay would: route, MX hosts and whether DNS vouches for them, TLSA\n"
        "records, MTA-STS policy; and prints what a connection to each host must be. Sends nothing. The\n"
        "configuration file is read, and the policies of MTA-STS that the relay keeps in its spool; it need not run.\n"
        "Exit status 1: mail cannot go there now, and why.",
        epilog="examples:\n"
        "  angarium tls-policy example.net\n"
        "  angarium tls-policy --message requiretls --json example.net",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("domain", metavar="DOMAIN", help="of a recipient")
    parser.add_argument(
        "--message",
        choices=_WISHES,
        default="none",
        help="what the message itself says (RFC 8689); default: nothing",
    )
    parser.add_argument("--source", default="", metavar="NAME", help="of [source.NAME]; default: the only one")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: ./angarium.toml, then /etc/angarium/angarium.toml",
    )


def run(args: argparse.Namespace) -> int:
    from angarium.config.schema import load

    config, _ = load(find(args.config))
    if args.source and args.source not in config.source:
        known = ", ".join(config.source) or "none is configured"
        raise ConfigError(f"there is no [source.{args.source}]; there are: {known}")
    source = args.source or (next(iter(config.source)) if len(config.source) == 1 else "")
    answer = asyncio.run(_answer(config, args.domain, source, _WISHES[args.message]))
    if args.json:
        print(json_line(answer))
    else:
        _print(answer)
    hosts = answer.get("hosts", ())
    return 1 if "reason" in answer or (hosts and not any("policy" in host for host in hosts)) else 0


async def _answer(config: Any, domain: str, source: str, wish_name: str) -> dict[str, Any]:
    """Keys: domain, and either reason and status, or next_hop, secure, dane, mta_sts, sts, login, hosts."""
    from angarium.model.plan import RoutingTrouble, TlsWish
    from angarium.outbound.tls_view import host_view
    from angarium.queue.shaping import Shaping
    from angarium.resolver.caching_resolver import CachingResolver
    from angarium.routing.ourselves import Ourselves
    from angarium.routing.router import Router
    from angarium.tls.sts_policies import StsPolicies

    shaping = Shaping(config.shaping)
    looked_up = shaping.ever_looked_up()
    resolver = CachingResolver(config.resolver)
    sts = None
    if looked_up.sts:
        kept = Path(config.node.spool).absolute() / "mta-sts.db"
        sts = StsPolicies(
            resolver,
            str(kept) if kept.exists() else None,
            config.shaping.default.tls_ca,
            lambda _, reason: print(reason, file=sys.stderr),
            is_read_only=True,
        )
    addresses = [listener.address for listener in config.listener if not listener.address.is_unix]
    ourselves = Ourselves([config.node.own_hostname()], [(each.host, each.port) for each in addresses])
    with_tlsa = looked_up.tlsa and config.resolver.trust_ad
    router = Router(
        config.all_routes(), resolver, ourselves, with_tlsa=with_tlsa, sts=sts, published=shaping.looked_up
    )
    try:
        site = (await router.plan(domain.encode())).site
        found: dict[str, Any] = {"domain": domain, "next_hop": site.name, "secure": site.is_located_securely}
        limits = shaping.limits(site, source, shaping.kind_of(site, domain.lower().encode()))
        found["dane"] = f"off: {_said_by(limits, 'dane')}"
        if limits.options.dane:
            found["dane"] = "on" if config.resolver.trust_ad else "off: resolver.trust_ad"
        found["mta_sts"] = "on" if limits.options.mta_sts else f"off: {_said_by(limits, 'mta_sts')}"
        if sts is not None and limits.options.mta_sts:
            found["sts"] = _sts(await sts.find(domain.lower()))
        name = site.login or limits.options.login
        if name and site.hosts:
            found["login"] = name
        wish, login = TlsWish[wish_name], (name, config.login.get(name))
        found["hosts"] = [host_view(site, host, wish, limits.options, login) for host in site.hosts]
        return found
    except RoutingTrouble as trouble:
        return {"domain": domain, "status": ".".join(map(str, trouble.status)), "reason": trouble.text}
    finally:
        if sts is not None:
            await sts.close()
        await resolver.close()


def _said_by(limits: Any, key: str) -> str:
    """The key in the file that decides; in [shaping.default] where nobody has said anything."""
    table = limits.set_by.get(key)
    return spell((*(table.path if table is not None else ("shaping", "default")), key))


def _sts(found: Any) -> dict[str, Any]:
    if found.kept is None:
        return {"mode": "", "reason": found.detail}
    policy = found.kept.policy
    return {
        "mode": policy.mode, "id": found.kept.id, "mx": list(policy.patterns), "max_age": policy.max_age_s,
        "reason": found.detail,
    }  # fmt: skip


def _print(answer: dict[str, Any]) -> None:
    """Names and reasons come from DNS: printable, or as JSON strings."""
    print(_plain(answer["domain"]))
    if "reason" in answer:
        _row("no way", f"{answer['status']} {answer['reason']}")
        return
    if not answer["hosts"]:
        _row("next hop", f"{answer['next_hop']} (mail leaves this machine by no network)")
        return
    how = "DNS vouches for it, or a route names it" if answer["secure"] else "DNS does not vouch for it"
    _row("next hop", f"{answer['next_hop']} ({how})")
    _row("DANE", answer["dane"])
    sts = answer.get("sts")
    if sts is None:
        _row("MTA-STS", answer["mta_sts"])
    elif sts["mode"]:
        _row("MTA-STS", f"{sts['mode']}, id {sts['id']}, max_age {sts['max_age']} s, mx {' '.join(sts['mx'])}")
    else:
        _row("MTA-STS", f"none{': ' if sts['reason'] else ''}{sts['reason']}")
    if "login" in answer:
        _row("login", answer["login"])
    for host in answer["hosts"]:
        print(f"\n  {_plain(host['host'])} (preference {host['preference']})")
        _row("  addresses", " ".join(host["addresses"]))
        tlsa = host.get("tlsa")
        if tlsa is not None:
            _row("  TLSA", tlsa["state"] + (f": {tlsa['reason']}" if tlsa["reason"] else f", of {tlsa['base']}"))
            for record in tlsa["records"]:
                words = f"{record[0:5]} ({_USAGES.get(int(record[0]), '?')}) {record[6:]}"
                _row("", words if len(words) <= 110 else words[:107] + "...")
        if "refused" in host:
            _row("  not used", host["refused"])
        else:
            _row("  policy", f"{host['policy']} from {host['origin']}: {host['meaning']}")


def _plain(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _row(key: str, value: str) -> None:
    print(f"  {key:<12} {_plain(value)}")
