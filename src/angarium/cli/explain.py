"""`angarium explain`: why mail waits, or what mail to somebody would meet, from the running relay."""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

from angarium.cli.admin_client import AdminClient, NoAnswer, add_options
from angarium.model.printable import json_line, printable
from angarium.model.units import Duration
from angarium.spool.envelope import decode_id

_RECIPIENTS: Final = 10         # in words; --json has more


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="say why mail waits, or what would become of it",
        description="Asks the running relay about a message of its queue (ID), or about mail for an address or\n"
        "domain, be there some or not: the reason in one line, then the way (route, mail exchangers, pool, source,\n"
        "TLS), every limit with its present use and the line that sets it, and what the site said last. Sends nothing.",
        epilog="examples:\n"
        "  angarium explain 02TR4P4JG0001\n"
        "  angarium explain user@example.com\n"
        "  angarium explain example.com --sender me@shop.example --tenant shop",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="ID|ADDRESS", help="id of `angarium queue list`, user@domain, or a domain")
    of_mail = parser.add_argument_group("of a message to the address (one in the queue has them)")
    of_mail.add_argument("--sender", metavar="ADDRESS", help="reverse-path; default: <>")
    of_mail.add_argument("--tenant", metavar="NAME", help="that a hook gives to the mail")
    of_mail.add_argument("--campaign", metavar="NAME", help="likewise")
    of_mail.add_argument("--pool", metavar="NAME", help="likewise")
    of_mail.add_argument("--source", metavar="NAME", help="tell the limits of this source of the pool")
    parser.add_argument("--all", action="store_true", help="limits that no file sets and nothing counts, too")
    parser.add_argument("--json", action="store_true", help="one JSON object, as the HTTP API gives it")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    of_mail = {key: getattr(args, key) for key in ("sender", "tenant", "campaign", "pool", "source")}
    client = AdminClient.of(args)
    if _is_id(args.what):
        if given := [key for key, value in of_mail.items() if value]:
            raise NoAnswer(f"--{given[0]}: a message in the queue has its own")
        found = client.get(f"/v1/explain/{args.what}")
    else:
        found = client.get("/v1/explain", address=args.what, **of_mail)
    if args.json:
        print(json_line(found))
    else:
        _print(found, args.all)
    return 0


def _is_id(text: str) -> bool:
    if "." in text or "@" in text:
        return False
    try:
        decode_id(text)
    except ValueError:
        return False
    return True


def _print(found: dict[str, Any], shows_all: bool) -> None:
    _say(f"{found['asked']}: {found['verdict']}")
    if (message := found.get("message")) is not None:
        age = Duration(max(round(time.time() - message["received_utc_s"]), 0))
        named = "".join(f", {key} {value}" for key, value in message["attributes"].items())
        _say(f"  from <{message['sender']}>, {message['octets']} octets, received {age} ago{named}")
    for each in found["recipients"][:_RECIPIENTS]:
        _print_recipient(each)
    left = len(found["recipients"]) - _RECIPIENTS
    if left > 0 or found["more_recipients"]:
        _say(f"  and {max(left, 0) + found['more_recipients']} recipients more")
    for subject in found["subjects"]:
        _print_subject(subject, shows_all)


def _print_recipient(view: dict[str, Any]) -> None:
    _say(f"\n{view['to']}  ({view['id']}, {view['place']}, {_attempts(view['attempts'])})")
    reason = view["reason"]
    _row("waits because", reason["text"] + (f" ({reason['set_by']})" if reason["set_by"] else ""))
    if (next_utc_s := view["next_attempt_utc_s"]) is not None:
        _row("next attempt", f"{_clock(next_utc_s)} (in {Duration(max(round(next_utc_s - time.time()), 0))})")
    if (last := view.get("last")) is not None:
        _row("last said", _reply(last))


def _attempts(count: int) -> str:
    return "not tried yet" if count == 0 else "1 attempt" if count == 1 else f"{count} attempts"


def _print_subject(subject: dict[str, Any], shows_all: bool) -> None:
    _say(f"\nmail for {subject['domain']}: {subject['waiting']} recipients wait")
    for note in subject["notes"]:
        _row("in force", note["text"])
    route = subject["route"]
    by = "the route" if route["said_by"] == "" else route["said_by"]
    if route["next_hop"] == "mx" and not route["said_by"]:
        _row("route", "no [[route]] matches: to its mail exchangers")
    elif route["next_hop"]:
        _row("route", f"{route['next_hop']} ({by})")
    if "site" not in subject:
        _row("no way", subject["trouble"])
        return
    site = subject["site"]
    secure = "" if not site["hosts"] or route["next_hop"] != "mx" else (
        "; DNSSEC vouches for them" if site["is_secure"] else "; DNSSEC does not vouch for them"
    )
    _row("site", f"{site['name']} ({site['protocol']}{secure})")
    for host in site["hosts"]:
        _print_host(host)
    if (sts := site.get("sts")) is not None:
        _row("MTA-STS", f"{sts['mode']}: mx {' '.join(sts['mx'])}")
    if subject["provider"]:
        _row("provider", subject["provider"])
    pool = subject["pool"]
    _row("pool", pool["name"] + (f" ({pool['said_by']})" if pool["said_by"] else " (built in: all sources)"))
    for source in pool["sources"]:
        state = source["why_not"] or f"{source['percent']:g} % of the mail"
        drawn = "; this message's" if source["is_drawn"] else ""
        addresses = ", ".join(source["addresses"]) or "address chosen by the kernel"
        _row("  source", f"{source['name']} ({addresses}), weight {source['weight']}: {state}{drawn}")
    _print_limits(subject, shows_all)
    for queue in subject["queues"]:
        _print_queue(queue)


def _print_host(host: dict[str, Any]) -> None:
    policy = f"not used: {host['refused']}" if "refused" in host else (
        f"TLS {host['policy']}, said by {host['origin']}: {host['meaning']}"
    )
    tlsa = host.get("tlsa")
    dane = "" if tlsa is None else f"; TLSA {tlsa['state']}" + (f" ({tlsa['reason']})" if tlsa["reason"] else "")
    _row("  host", f"{host['preference']} {host['host']} {' '.join(host['addresses'])}{dane}")
    _row("", policy)


def _print_limits(subject: dict[str, Any], shows_all: bool) -> None:
    lines = [each for each in subject["limits"] if shows_all or each["use"] or each["file"] is not None]
    if not lines:
        return
    _row("limits", f"for source {subject['limits_for_source']}")
    keys = max(len(each["key"]) for each in lines)
    values = max(len(each["value"]) for each in lines)
    for each in lines:
        where = f"{each['file']}:{each['line']} {each['set_by']}" if each["file"] else each["set_by"] or "built in"
        notes = "; ".join(filter(None, (each["use"], each["note"])))
        _say(f"    {each['key']:<{keys}}  {each['value']:<{values}}  {where}{f'  ({notes})' if notes else ''}")


def _print_queue(queue: dict[str, Any]) -> None:
    kind = f", {queue['kind']}" if queue["kind"] else ""
    behind = f", {queue['behind']} behind them" if queue["behind"] else ""
    _row("queue", f"worker {queue['worker']}, source {queue['source']}{kind}: {queue['waiting']} ready to go{behind}")
    allowed = f", {int(queue['window'])} allowed by feedback" if queue["window"] else ""
    _row(
        "  connections",
        f"{queue['busy']} busy, {queue['idle']} idle, {queue['dialling']} being opened{allowed};"
        f" {queue['connections']} of {queue['connections_limit']} over all workers",
    )
    if queue["home"] >= 0:
        _row("  home", f"worker {queue['home']} sends for this site; {queue['handed']} are handed to it")
    elif queue["guests"]:
        _row("  home", f"this worker sends for the others, too; {queue['guests']} of theirs are ready besides")
    since = "" if queue["delivered_s"] is None else f", the last {Duration(round(queue['delivered_s']))} ago"
    _row("  so far", f"{queue['delivered']} delivered{since}; {queue['deferred']} deferred, {queue['failed']} failed")
    for reply in reversed(queue["replies"]):
        ago = Duration(max(round(time.time() - reply["utc_s"]), 0))
        times = f", {reply['count']} times in a row" if reply["count"] > 1 else ""
        _row("  last reply", f"{ago} ago{times}: {_reply(reply)}")


def _reply(reply: dict[str, Any]) -> str:
    head = f"{reply['code']} {reply['status']} " if reply["code"] else ""
    if reply["code"] and reply["text"].startswith(reply["status"]):
        head = f"{reply['code']} "
    whose = f" ({reply['remote']})" if reply["remote"] else ""
    return f"{head}{' '.join(reply['text'].split())}{whose}"


def _clock(utc_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(utc_s))


def _row(key: str, text: str) -> None:
    _say(f"  {key:<14} {text}")


def _say(line: str) -> None:
    """Replies and names are anybody's: nothing of them may move the cursor."""
    head = "\n" if line.startswith("\n") else ""
    print(head + printable(line.removeprefix("\n")))
