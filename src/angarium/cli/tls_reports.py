"""`angarium tls-reports`: what will be reported to other domains about TLS with their hosts (RFC 8460).

Looks into the file that the workers count into; what they have seen in the last minute is not there yet. Works beside a
running relay and without one; a relay is needed to send.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from angarium.config.location import find
from angarium.model.errors import AngariumError

if TYPE_CHECKING:
    from angarium.config.schema import Config
    from angarium.tls.report_store import Summary, TlsReportStore


class Impossible(AngariumError):
    """What was asked cannot be done; the text says why."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "tls-reports",
        help="show what will be reported to domains about TLS with their hosts, send it now",
        description="Shows the outcomes of TLS that wait to be reported (RFC 8460), by day and domain, and makes\n"
        "reports due before their time. Whether a domain wants reports is asked when one is due\n"
        "(_smtp._tls.DOMAIN TXT). Exit status 1: there is nothing.",
        epilog="examples:\n"
        "  angarium tls-reports list\n"
        "  angarium tls-reports show y.example\n"
        "  angarium tls-reports send-now y.example",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, line in (
        ("list", "prints day, domain, good and bad sessions, and when the report is due"),
        ("show", "prints the reports for a domain as they would be sent now"),
        ("send-now", "makes reports due, today's too: worker 0 of a running relay sends them within a minute"),
    ):
        each = actions.add_parser(action, help=line, description=line)
        each.add_argument("domain", metavar="DOMAIN", nargs=None if action == "show" else "?", default="")
        if action == "list":
            each.add_argument("--json", action="store_true", help="one JSON object a line")
        each.add_argument(
            "--config", type=Path, metavar="FILE", help="default: ./angarium.toml, then /etc/angarium/angarium.toml"
        )


def run(args: argparse.Namespace) -> int:
    import sqlite3

    from angarium.config.schema import load
    from angarium.resolver.domain_name import to_a_labels
    from angarium.tls.report_store import FILE_NAME, TlsReportStore

    config, tree = load(find(args.config))
    if not config.tls_reports.enabled:
        raise Impossible(f"{tree.files[0]}: tls_reports.enabled is false: nothing is counted")
    path = Path(config.node.spool) / FILE_NAME
    if not path.exists():
        return 1                    # made by the first outcome
    try:
        domain = to_a_labels(args.domain.encode()) if args.domain else ""
    except ValueError:
        raise Impossible(f'"{args.domain}" is not a domain') from None
    store = TlsReportStore(str(path))
    actions: dict[str, Callable[[], int]] = {
        "list": lambda: _list(store, domain, as_json=args.json),
        "show": lambda: _show(store, domain, config),
        "send-now": lambda: _send_now(store, domain),
    }
    try:
        return actions[args.action]()
    except sqlite3.Error as error:
        raise Impossible(f"{path}: {error}") from None
    finally:
        store.close()


def _list(store: TlsReportStore, domain: str, *, as_json: bool) -> int:
    found = store.summaries(domain)
    for each in found:
        print(json.dumps(_table(each)) if as_json else _told(each))
    return 0 if found else 1


def _show(store: TlsReportStore, domain: str, config: Config) -> int:
    from angarium.tls.report_text import compose

    found = store.summaries(domain)
    for each in found:
        report = compose(
            config.tls_reports,
            domain=domain,
            day=each.day,
            now_utc_s=int(time.time()),
            unique="not-sent",
            counted=store.outcomes(each.day, domain),
        )
        print(gzip.decompress(report.content).decode())
    return 0 if found else 1


def _send_now(store: TlsReportStore, domain: str) -> int:
    count = store.hurry(domain, int(time.time()))
    print(f"{count} due now")
    return 0 if count else 1


def _table(each: Summary) -> dict[str, object]:
    return {
        "day": _day(each.day),
        "domain": each.domain,
        "good": each.good,
        "bad": each.bad,
        "due": _time(each.due_utc_s) if each.due_utc_s else None,
        "tries": each.tries,
    }


def _told(each: Summary) -> str:
    when = f"due {_time(each.due_utc_s)}" if each.due_utc_s else "due when the day is over"
    tries = f", {each.tries} tries failed" if each.tries else ""
    return f"{_day(each.day)}  {each.domain}  {each.good} good, {each.bad} bad  {when}{tries}"


def _day(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86400))


def _time(utc_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(utc_s))
