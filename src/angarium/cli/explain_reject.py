"""`angarium explain-reject`: why something was refused, by the id of the refusal or by its reason word.

An id is asked of the running relay, which remembers its last refusals; a word is explained without one.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any, Final

from angarium.cli.admin_client import AdminClient, NoAnswer, add_options
from angarium.model.printable import json_line
from angarium.smtp import reasons
from angarium.smtp.reasons import Reason

_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{8}")
# Of the event, in the order in which they are shown.
_SHOWN: Final = ("time", "listener", "client", "helo", "user", "verb", "from", "to")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "explain-reject",
        help="say why something was refused",
        description="Explains a refusal: what happened, to whom, and which keys of the configuration decide it.\n"
        "The id stands in the `rejected` line of the log, and in the reply where listener.tell_refusal_ids is set.\n"
        "Exit status 1: no such reason, or no worker remembers the refusal.",
        epilog="examples:\n"
        "  angarium explain-reject 4GK2V9QX\n"
        "  angarium explain-reject relay-denied\n"
        "  angarium explain-reject --list",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("what", nargs="?", metavar="ID|REASON", help="as in the log: fields id and reason of `rejected`")
    what.add_argument("--list", action="store_true", help="all reasons")
    parser.add_argument("--json", action="store_true", help="as the HTTP API gives it")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.list:
        known = [reason for word in reasons.words() if (reason := reasons.of_word(word)) is not None]
        for reason in known:
            _print_json(_table(reason)) if args.json else print(f"{reason.word:<25} {reason.sentence}")
        return 0
    given = args.what.strip().strip("[]")
    if (reason := reasons.of_word(given.lower())) is not None:
        _print_json(_table(reason)) if args.json else _print_reason(reason)
        return 0
    if _ID.fullmatch(given.upper()) is None:
        print(f"{given}: neither the id of a refusal nor a reason; `angarium explain-reject --list` has the reasons")
        return 1
    try:
        answer = AdminClient.of(args).get(f"/v1/refusals/{given.upper()}")
    except NoAnswer as error:
        if error.status != 404:
            raise
        print(error)
        return 1
    _print_json(answer) if args.json else _print_refusal(answer)
    return 0


def _table(reason: Reason) -> dict[str, object]:
    return {"reason": reason.word, "sentence": reason.sentence, "keys": list(reason.keys)}


def _print_json(value: object) -> None:
    print(json_line(value))


def _print_reason(reason: Reason) -> None:
    print(reason.word)
    print(f"  {reason.sentence}")
    print(f"  decided by  {', '.join(reason.keys) or 'nothing that can be set'}")


def _print_refusal(answer: dict[str, Any]) -> None:
    """Values come from peers: they are printed as JSON strings, so that no terminal obeys them."""
    event = answer["event"]
    print(f"{event.get('code', '')} {_plain(event.get('reply', ''))}")
    for key in _SHOWN:
        if key in event:
            print(f"  {key:<11} {_plain(event[key])}")
    print(f"  {'reason':<11} {_plain(event['reason'])}: {answer['sentence']}")
    print(f"  {'decided by':<11} {', '.join(answer['keys']) or 'nothing that can be set'}")


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else json.dumps(text)
