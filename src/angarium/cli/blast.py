"""`angarium blast`: the options of the load generator, its progress bar, and what it prints. It runs
measure/load.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from angarium.cli import progress
from angarium.measure.endpoint import parse_endpoint
from angarium.measure.load import Load, Order
from angarium.measure.sizes import parse_sizes

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = """\
Send made mail to any SMTP or LMTP server as fast as it goes, or at a set rate, and tell how fast each message
was accepted. Use it on servers you run: it is a load generator.
"""
EXAMPLES = """\
examples:
  angarium blast --server 127.0.0.1:2525 --messages 20000 --sessions 100
  angarium blast --server 127.0.0.1:25 --duration 60 --rate 500 --size 1k-64k --to 'user{n}@test.example'
  angarium blast --server 127.0.0.1:2525 --messages 5000 --new-connection --json
  angarium blast --server 127.0.0.1:2525 --messages 20000 --size 4k:90,200k:10 --pipelining --bdat

latency is that of each message from its MAIL command to the reply to its data. With --rate it is also told
counted from the moment the message was due ("since due"): what a stalling server delays shows there.
Exit status: 0 all sent, 1 something failed, 2 wrong usage.
"""
PROGRESS_S = 0.2


def _option(parse: Callable[[str], object]) -> Callable[[str], object]:
    """argparse shows the words of an ArgumentTypeError, not those of a ValueError."""

    def read(text: str) -> object:
        try:
            return parse(text)
        except ValueError as trouble:
            raise argparse.ArgumentTypeError(str(trouble)) from None

    return read


def _path(text: str) -> str:
    if any(c in text for c in "\r\n\0<>"):
        raise ValueError(f"{text!r} cannot stand in a path")
    return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number above 0")
    return int(text)


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(f"{text!r} is not a number of 0 or more")
    return number


def _paths(name: str) -> tuple[str, ...]:
    try:
        lines = Path(name).read_text(encoding="utf-8").split()
    except OSError as trouble:
        raise ValueError(f"{name}: {trouble.strerror}") from None
    except UnicodeDecodeError as trouble:
        raise ValueError(f"{name}: not UTF-8 at octet {trouble.start}") from None
    if not lines:
        raise ValueError(f"{name}: no path in it")
    return tuple(_path(line) for line in lines)


def add_parser(subparsers: SubParsers) -> None:
    """Adds the command and its options."""
    parser = subparsers.add_parser(
        "blast",
        help="load generator: measure any SMTP server",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--server",
        type=_option(parse_endpoint),
        default="127.0.0.1:2525",
        metavar="ADDRESS",
        help="host:port or unix:/path (%(default)s)",
    )
    parser.add_argument("--lmtp", action="store_true", help="speak LMTP")
    parser.add_argument(
        "--sessions",
        type=_option(_positive),
        default=10,
        metavar="N",
        help="connections at a time (%(default)s)",
    )
    parser.add_argument(
        "--messages",
        type=_option(_positive),
        default=0,
        metavar="N",
        help="how many altogether (1000, if --duration does not say otherwise)",
    )
    parser.add_argument(
        "--duration",
        type=_option(_not_negative),
        default=0.0,
        metavar="SECONDS",
        help="begin no message after so long",
    )
    parser.add_argument(
        "--size",
        type=_option(parse_sizes),
        default="4k",
        metavar="SIZES",
        help="of the whole message: 4k, a range 1k-100k, or a mix with weights 4k:90,1M:10 (%(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=_option(_not_negative),
        default=0.0,
        metavar="N",
        help="at most so many messages a second",
    )
    parser.add_argument(
        "--recipients", type=_option(_positive), default=1, metavar="N", help="of each message (%(default)s)"
    )
    parser.add_argument(
        "--from",
        type=_option(_path),
        default="from@source.example",
        dest="reverse_path",
        metavar="PATH",
        help="{n} becomes the number of the message (%(default)s)",
    )
    parser.add_argument(
        "--to",
        type=_option(_path),
        default="to@sink.example",
        dest="forward_path",
        metavar="PATH",
        help="likewise, and {r} the number of the recipient (%(default)s)",
    )
    parser.add_argument(
        "--to-file",
        type=_option(_paths),
        default=(),
        metavar="FILE",
        help="instead of --to: a path in each line, taken in turn, from the first again when they are used up",
    )
    parser.add_argument(
        "--helo", type=_option(_path), default="source.example", metavar="NAME", help="(%(default)s)"
    )
    parser.add_argument("--new-connection", action="store_true", help="connect anew for every message")
    parser.add_argument(
        "--pipelining", action="store_true", help="MAIL, RCPT and DATA in one write, if offered"
    )
    parser.add_argument("--bdat", action="store_true", help="BDAT instead of DATA, if offered")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="for each reply (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of sizes, to send the same again")
    parser.add_argument(
        "--no-progress", action="store_true", help="no progress bar (there is none off a terminal)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Sends, prints, and says by its status whether all went through."""
    messages = args.messages or (0 if args.duration > 0 else 1000)
    order = Order(
        server=args.server,
        sizes=args.size,
        sessions=args.sessions,
        messages=messages,
        duration_s=args.duration,
        rate=args.rate,
        recipients=args.recipients,
        reverse_path=args.reverse_path,
        forward_path=args.forward_path,
        forward_paths=args.to_file,
        helo=args.helo,
        protocol="lmtp" if args.lmtp else "smtp",
        data="bdat" if args.bdat else "data",
        is_pipelined=args.pipelining,
        is_connection_per_message=args.new_connection,
        timeout_s=args.timeout,
        seed=args.seed,
    )
    report = uvloop.run(_send(order, shows_progress=progress.is_wanted() and not args.no_progress))
    if args.json:
        print(json.dumps(report))
    else:
        _print_report(report)
    is_good = report["sent"] and not (report["failed"] or report["refused_recipients"] or report["unsent"])
    return 0 if is_good else 1


async def _send(order: Order, *, shows_progress: bool) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    load = Load(order)
    # The first signal lets what is under way finish; the loop's own handling of a second one ends everything.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, loop, load, number)
    showing = loop.create_task(_show_progress(load)) if shows_progress else None
    try:
        await load.run()
    finally:
        if showing is not None:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing
    return load.report()


def _stop(loop: asyncio.AbstractEventLoop, load: Load, number: int) -> None:
    loop.remove_signal_handler(number)
    load.stop()


async def _show_progress(load: Load) -> None:
    with progress.messages_bar(load.order.messages or None) as bar:
        while True:
            await asyncio.sleep(PROGRESS_S)
            bar.update(load.tally.sent + load.tally.failed - bar.n)
            if load.tally.failed:
                bar.set_postfix(failed=load.tally.failed)


def _print_report(report: dict[str, object]) -> None:
    octets_per_s = report["octets_per_s"]
    assert isinstance(octets_per_s, int)
    print(
        f"{report['sent']:,} messages sent, {report['failed']:,} failed, in {report['seconds']:,} s over "
        f"{report['connections']:,} connections: {report['messages_per_s']:,} messages/s, "
        f"{octets_per_s / 2**20:,.1f} MiB/s"
    )
    if report["unsent"]:
        print(f"{report['unsent']:,} not tried")
    for title, key in (
        ("latency", "latency_ms"),
        ("since due", "latency_since_due_ms"),
        ("connecting", "connecting_ms"),
    ):
        values = report.get(key)
        if isinstance(values, dict) and values:
            print(f"{title}, ms: " + ", ".join(f"{name} {value:,.2f}" for name, value in values.items()))
    failures = report["failures"]
    if isinstance(failures, dict):
        for why, count in failures.items():
            print(f"{count:,} x {why}")
