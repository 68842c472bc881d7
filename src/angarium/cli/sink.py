"""`angarium sink`: the options of the message sink, and what it prints. The sink itself is in
measure/sink.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvloop

from angarium.measure.endpoint import Endpoint, parse_endpoint
from angarium.measure.recording import Maildir, Record
from angarium.measure.rules import (
    VERBS,
    Rule,
    Rules,
    parse_delay_rule,
    parse_disconnect_rule,
    parse_reply_rule,
)
from angarium.measure.sink import EXTENSIONS, Sink
from angarium.measure.sizes import parse_octets
from angarium.model.printable import printable

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = f"""\
Take SMTP mail and throw it away, to see what an MTA sends and how fast. By default every command succeeds;
rules make commands fail, wait, or drop the connection, always or sometimes. A rule names a verb
({", ".join(VERBS)};
"." is the end of the message) and, behind "@", the percentage of cases it is for.
"""
EXAMPLES = """\
examples:
  angarium sink                     listen on 127.0.0.1:10026, show a counter, Ctrl-C for the sum
  angarium sink --reply rcpt=450    refuse every recipient for now
  angarium sink --reply 'rcpt@10=550 5.1.1 Unknown' --delay .@5=2 --disconnect data@1
                                    10 % of recipients unknown, 5 % of messages answered 2 s late,
                                    1 % of DATA commands answered by hanging up
  angarium sink --listen 127.0.0.1:0 --lmtp --record mail.jsonl --maildir ./inbox --json
"""
BACKLOG = 4096


def _option(parse: Callable[[str], object]) -> Callable[[str], object]:
    """argparse shows the words of an ArgumentTypeError, not those of a ValueError."""

    def read(text: str) -> object:
        try:
            return parse(text)
        except ValueError as trouble:
            raise argparse.ArgumentTypeError(str(trouble)) from None

    return read


def _extension(text: str) -> str:
    if text.upper() not in EXTENSIONS:
        raise ValueError(f"{text!r} is none of {', '.join(EXTENSIONS)}")
    return text.upper()


def add_parser(subparsers: SubParsers) -> None:
    """Adds the command and its options."""
    parser = subparsers.add_parser(
        "sink",
        help="swallow mail, with settable replies, delays and counters",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        type=_option(parse_endpoint),
        default="127.0.0.1:10026",
        metavar="ADDRESS",
        help="host:port or unix:/path (%(default)s); with port 0 a free one is taken and told",
    )
    parser.add_argument("--lmtp", action="store_true", help="speak LMTP: one reply per recipient (RFC 2033)")
    parser.add_argument(
        "--reply",
        type=_option(parse_reply_rule),
        action="append",
        default=[],
        dest="rules",
        metavar="VERB[@PERCENT]=CODE[ TEXT]",
        help="answer so; 421 also closes; may be repeated: the "
        r'first that applies is taken; "\n" begins another line of the reply',
    )
    parser.add_argument(
        "--delay",
        type=_option(parse_delay_rule),
        action="append",
        dest="rules",
        metavar="VERB[@PERCENT]=SECONDS",
        help="wait before whatever the reply is",
    )
    parser.add_argument(
        "--disconnect",
        type=_option(parse_disconnect_rule),
        action="append",
        dest="rules",
        metavar="VERB[@PERCENT]",
        help="close the connection without a reply",
    )
    parser.add_argument(
        "--without",
        type=_option(_extension),
        action="append",
        default=[],
        metavar="EXTENSION",
        help=f"do not offer it: {', '.join(EXTENSIONS)}",
    )
    parser.add_argument(
        "--size",
        type=_option(parse_octets),
        default=0,
        metavar="OCTETS",
        help="announce SIZE (it is not enforced)",
    )
    parser.add_argument("--hostname", default="sink.example", help="name in greeting and EHLO (%(default)s)")
    parser.add_argument("--messages", type=int, default=0, metavar="N", help="end after so many messages")
    parser.add_argument(
        "--record",
        metavar="FILE",
        help='append a JSON line per message, with envelope, size and Message-ID ("-": stdout)',
    )
    parser.add_argument("--maildir", metavar="DIR", help="keep whole messages there, as they came")
    parser.add_argument("--seed", type=int, help="of the dice, to see the same again")
    parser.add_argument(
        "--json", action="store_true", help="print the counters at the end as one JSON object"
    )


def run(args: argparse.Namespace) -> int:
    """Listens until SIGINT, SIGTERM or --messages; 2 when it cannot listen or record."""
    with contextlib.ExitStack() as kept:
        try:
            record = Record(args.record) if args.record else None
            maildir = Maildir(args.maildir) if args.maildir else None
        except OSError as trouble:
            print(f"angarium sink: {printable(trouble)}", file=sys.stderr)
            return 2
        if record is not None:
            kept.callback(record.close)
        rules: list[Rule] = args.rules
        return uvloop.run(_serve(args, Rules(rules, args.seed), record, maildir))


async def _serve(
    args: argparse.Namespace, rules: Rules, record: Record | None, maildir: Maildir | None
) -> int:
    loop = asyncio.get_running_loop()
    extensions = tuple(name for name in EXTENSIONS if name not in args.without)
    sink = Sink(
        rules,
        is_lmtp=args.lmtp,
        hostname=args.hostname,
        extensions=extensions,
        size_octets=args.size,
        stop_after=args.messages,
        record=record,
        maildir=maildir,
    )
    where: Endpoint = args.listen
    try:
        if where.path:
            server = await loop.create_unix_server(sink.connection, where.path, backlog=BACKLOG)
        else:
            server = await loop.create_server(sink.connection, where.host, where.port, backlog=BACKLOG)
    except OSError as trouble:
        print(
            f"angarium sink: {where}: {os.strerror(trouble.errno) if trouble.errno else trouble}",
            file=sys.stderr,
        )
        return 2
    if not where.path and where.port == 0:
        where = Endpoint(host=where.host, port=server.sockets[0].getsockname()[1])
    print(f"angarium sink: listening on {where}", file=sys.stderr, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, sink.finished.set)
    counting = loop.create_task(_count(sink)) if sys.stderr.isatty() else None
    await sink.finished.wait()
    if counting is not None:
        counting.cancel()
        print(file=sys.stderr)
    server.close()
    if sink.statistics.open:
        # The last reply is still to be read by whoever sent the last message, who may then want to say QUIT.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while sink.statistics.open:
                    await asyncio.sleep(0.01)
    if args.json:
        print(json.dumps(sink.statistics.report()))
    else:
        _print_report(sink)
    return 0


async def _count(sink: Sink) -> None:
    """A line that is rewritten twice a second, for people."""
    before, then = 0, time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        s, now = sink.statistics, time.monotonic()
        print(
            f"\r{s.messages:,} messages, {(s.messages - before) / (now - then):,.0f}/s, "
            f"{s.open:,} of {s.connections:,} connections open \x1b[K",
            end="",
            file=sys.stderr,
            flush=True,
        )
        before, then = s.messages, now


def _print_report(sink: Sink) -> None:
    found = sink.statistics.report()
    print(
        f"{found['messages']:,} messages for {found['recipients']:,} recipients over "
        f"{found['connections']:,} connections, {found['octets']:,} octets; "
        f"{found['messages_per_s']:,} messages/s"
    )
    for name in ("commands", "replies"):
        counts = getattr(sink.statistics, name)
        print(f"{name}: " + ", ".join(f"{key} {count:,}" for key, count in sorted(counts.items())))
