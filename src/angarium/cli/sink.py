"""`angarium sink`: the options of the message sink, and what it prints. The sink itself is in
measure/sink.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from angarium.config.decode import decode_tables
from angarium.config.files import read_tree
from angarium.measure.endpoint import Endpoint, parse_endpoint
from angarium.measure.receiver_options import EXTENSIONS, ReceiverOptions, ReceiversFile, TlsFiles
from angarium.measure.receivers import DEFAULT, Receiver, Receivers, tls_context
from angarium.measure.recording import FLUSH_S, Maildir, Record, Seconds
from angarium.measure.rules import VERBS, Rule, parse_delay_rule, parse_disconnect_rule, parse_reply_rule
from angarium.measure.sink import Sink
from angarium.measure.sizes import parse_octets
from angarium.model.errors import ConfigError
from angarium.model.printable import printable
from angarium.model.units import Octets
from angarium.process.privileges import raise_descriptor_limit

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = f"""\
Take SMTP mail and throw it away, to see what an MTA sends and how fast. By default every command succeeds;
rules make commands fail, wait, or drop the connection, always or sometimes. A rule names a verb
({", ".join(VERBS)};
"." or "dot" is the end of the message, "*" each of them) and, behind "@", the percentage of cases it is for.
A file of receivers gives addresses, clients and recipient domains rules and limits of their own.
"""
EXAMPLES = """\
examples:
  angarium sink                     listen on 127.0.0.1:10026, show a counter, Ctrl-C for the sum
  angarium sink --reply rcpt=450    refuse every recipient for now
  angarium sink --reply 'rcpt@10=550 5.1.1 Unknown' --delay .@5=2 --disconnect data@1
                                    10 % of recipients unknown, 5 % of messages answered 2 s late,
                                    1 % of DATA commands answered by hanging up
  angarium sink --delay '*=0.1-0.3' each reply after 100 to 300 ms; '*=~0.2' after 200 ms on average
  angarium sink --listen 0.0.0.0:2525 --receivers receivers.toml --seconds seconds.jsonl --json
                                    what the file says; counts by receiver, client address and second
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
        action="append",
        metavar="ADDRESS",
        help="host:port or unix:/path (127.0.0.1:10026); with port 0 a free one is taken and told; may be repeated",
    )
    parser.add_argument(
        "--receivers",
        type=Path,
        metavar="FILE",
        help="rules and limits by address, client and recipient domain, in TOML (docs/sink.md)",
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
        help="wait before whatever the reply is; FROM-TO: anything between; ~MEAN: exponentially distributed",
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
    parser.add_argument("--auth", action="store_true", help="offer AUTH PLAIN and LOGIN, and believe everybody")
    parser.add_argument("--tls-certificate", metavar="FILE", help="PEM file; with it, STARTTLS is offered")
    parser.add_argument("--tls-key", metavar="FILE", help="PEM file of its key")
    parser.add_argument("--tls-implicit", action="store_true", help="TLS from the first octet, on all of --listen")
    parser.add_argument("--hostname", default="sink.example", help="name in greeting and EHLO (%(default)s)")
    parser.add_argument("--messages", type=int, default=0, metavar="N", help="end after so many messages")
    parser.add_argument(
        "--record",
        metavar="FILE",
        help='append a JSON line per message, with envelope, size and Message-ID ("-": stdout)',
    )
    parser.add_argument(
        "--seconds",
        metavar="FILE",
        help='append a JSON line per receiver, client address and second, with counts ("-": stdout)',
    )
    parser.add_argument("--maildir", metavar="DIR", help="keep whole messages there, as they came")
    parser.add_argument("--seed", type=int, help="of the dice, to see the same again")
    parser.add_argument(
        "--json", action="store_true", help="print the counters at the end as one JSON object"
    )


def run(args: argparse.Namespace) -> int:
    """Listens until SIGINT, SIGTERM or --messages; 2 when it cannot listen or record, or the file makes no sense."""
    with contextlib.ExitStack() as kept:
        try:
            record = Record(args.record) if args.record else None
            maildir = Maildir(args.maildir) if args.maildir else None
            seconds = Seconds(args.seconds) if args.seconds else None
            for lines in (record, seconds):
                if lines is not None:
                    kept.callback(lines.close)
            receivers = _receivers(args, seconds)
        except (OSError, ConfigError) as trouble:
            print(f"angarium sink: {printable(trouble)}", file=sys.stderr)
            return 2
        raise_descriptor_limit()
        sink = Sink(
            receivers, is_lmtp=args.lmtp, stop_after=args.messages, record=record, maildir=maildir
        )
        return uvloop.run(_serve(args, sink, seconds))


def _receivers(args: argparse.Namespace, seconds: Seconds | None) -> Receivers:
    """Those of the file and the default one. The rules of the command line come before each one's own.

    Raises ConfigError that names file and key, or option.
    """
    rules: list[Rule] = args.rules
    chance = random.Random(args.seed)
    tell = seconds.add if seconds is not None else None
    if bool(args.tls_certificate) != bool(args.tls_key):
        raise ConfigError("--tls-certificate and --tls-key: one without the other")
    if args.tls_implicit and not args.tls_certificate:
        raise ConfigError("--tls-implicit: needs --tls-certificate and --tls-key")
    of_all = ReceiverOptions(
        hostname=args.hostname,
        without=args.without,
        size=Octets(args.size),
        auth=args.auth,
        tls=TlsFiles(certificate=args.tls_certificate, key=args.tls_key) if args.tls_certificate else None,
    )
    try:
        tls = tls_context(of_all, Path())
    except OSError as trouble:
        raise ConfigError(f"--tls-certificate {args.tls_certificate}: {trouble.strerror or trouble}") from None
    default = Receiver(DEFAULT, of_all, rules=rules, chance=chance, is_lmtp=args.lmtp, tls=tls, tell=tell)
    found = []
    if args.receivers is not None:
        tree = read_tree(args.receivers)
        for name, options in decode_tables(tree, ReceiversFile).receiver.items():
            if name == DEFAULT:
                raise tree.complain(("receiver", name), "is the name of the one that the command line describes")
            try:
                tls = tls_context(options, args.receivers.parent)
            except OSError as trouble:
                raise tree.complain(("receiver", name, "tls"), str(trouble.strerror or trouble)) from None
            receiver = Receiver(name, options, rules=rules, chance=chance, is_lmtp=args.lmtp, tls=tls, tell=tell)
            found.append(receiver)
    return Receivers(found, default)


async def _listen(
    sink: Sink, endpoints: list[Endpoint], tls: ssl.SSLContext | None
) -> list[asyncio.AbstractServer]:
    """Listens, and tells where. Raises OSError with the endpoint as its filename."""
    loop = asyncio.get_running_loop()
    servers: list[asyncio.AbstractServer] = []
    for wanted in endpoints:
        where = wanted
        try:
            if wanted.path:
                servers.append(await loop.create_unix_server(sink.connection, wanted.path, backlog=BACKLOG, ssl=tls))
            else:
                server = await loop.create_server(
                    sink.connection, wanted.host, wanted.port, backlog=BACKLOG, ssl=tls
                )
                servers.append(server)
                if wanted.port == 0:
                    where = Endpoint(host=wanted.host, port=server.sockets[0].getsockname()[1])
        except OSError as trouble:
            for each in servers:
                each.close()
            words = os.strerror(trouble.errno) if trouble.errno else str(trouble)
            raise OSError(trouble.errno, words, str(wanted)) from None
        print(f"angarium sink: listening on {where}", file=sys.stderr, flush=True)
    return servers


async def _serve(args: argparse.Namespace, sink: Sink, seconds: Seconds | None) -> int:
    loop = asyncio.get_running_loop()
    try:
        tls = sink.receivers.default.tls if args.tls_implicit else None
        servers = await _listen(sink, args.listen or [parse_endpoint("127.0.0.1:10026")], tls)
    except OSError as trouble:
        print(f"angarium sink: {trouble.filename}: {trouble.strerror}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, sink.finished.set)
    tasks = [loop.create_task(_count(sink))] if sys.stderr.isatty() else []
    if seconds is not None:
        tasks.append(loop.create_task(_end_seconds(sink, seconds)))
    await sink.finished.wait()
    for task in tasks:
        task.cancel()
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for server in servers:
        server.close()
    if sink.statistics.open:
        # The last reply is still to be read by whoever sent the last message, who may then want to say QUIT.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while sink.statistics.open:
                    await asyncio.sleep(0.01)
    for receiver in sink.receivers:
        for source in receiver.sources.values():
            source.roll(int(time.time()) + 1)
    if args.json:
        print(json.dumps({**sink.statistics.report(), "receivers": sink.receivers.report()}))
    else:
        _print_report(sink)
    return 0


async def _end_seconds(sink: Sink, seconds: Seconds) -> None:
    """Writes the seconds that are over, of sources that have fallen silent too."""
    while True:
        await asyncio.sleep(FLUSH_S)
        second = int(time.time())
        for receiver in sink.receivers:
            for source in receiver.sources.values():
                source.roll(second)
        seconds.flush()


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
        counts = found[name]
        assert isinstance(counts, dict)
        print(f"{name}: " + ", ".join(f"{key} {count:,}" for key, count in sorted(counts.items())))
    for receiver in sink.receivers:
        if receiver.name != DEFAULT and receiver.sources:
            messages = sum(source.total().messages for source in receiver.sources.values())
            print(f"{receiver.name}: {messages:,} messages, at most {receiver.peak_open:,} connections at once")
