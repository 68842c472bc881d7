"""`angarium policy test`: plays a message or a dialogue against a listener, its client checks, hooks and services.

Needs no running relay, stores nothing and sends nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ipaddress
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from angarium.config.location import find
from angarium.model.errors import AngariumError
from angarium.model.printable import json_line, printable

if TYPE_CHECKING:
    from angarium.inbound.options import ListenerOptions
    from angarium.rehearsal import Rehearsal, Step, Taken

MESSAGE = b"Subject: test\r\n\r\ntest\r\n"


class Impossible(AngariumError):
    """What was asked cannot be done; the text says why."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "policy",
        help="try what a listener decides",
        description="Tries rules, client checks, hooks and policy services on mail that does not count.",
        epilog="example:\n  angarium policy test --from a@x.example --to b@y.example",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    test = actions.add_parser(
        "test",
        help="play a message or a dialogue against policy",
        description="Says what each hook decides about a message or a dialogue, what the client would hear, and\n"
        "what would be queued: by all that holds on the listener. Sends nothing, and what is stored goes\n"
        "with the trial. DNS is asked, and next hops for recipients. What goes wrong is told on stderr.\n"
        "Exit status 0: a message would be taken. 1: none would.",
        epilog="examples:\n"
        "  angarium policy test --from a@x.example --to b@y.example --client 192.0.2.1\n"
        "  angarium policy test --to b@y.example --message mail.eml --json\n"
        "  angarium policy test --dialogue session.txt --services",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    test.add_argument(
        "--config", type=Path, metavar="FILE", help="default: ./angarium.toml, then /etc/angarium/angarium.toml"
    )
    test.add_argument("--listener", metavar="ADDRESS", help="whose rules hold (default: the first)")
    test.add_argument("--client", metavar="ADDRESS", default="127.0.0.1", help="default: 127.0.0.1")
    test.add_argument("--user", metavar="IDENTITY", help="authenticates as this one; any password is right")
    test.add_argument("--tls", action="store_true", help="after STARTTLS")
    test.add_argument(
        "--services", action="store_true", help="ask policy services, too; some remember what they are asked"
    )
    test.add_argument("--helo", metavar="NAME", default="client.example", help="default: client.example")
    test.add_argument("--from", dest="reverse_path", metavar="MAILBOX", default="", help="default: the null one")
    test.add_argument("--to", dest="paths", metavar="MAILBOX", action="append", default=[], help="may be repeated")
    test.add_argument("--message", metavar="FILE", help='a message, "-" for stdin (default: a short one)')
    test.add_argument(
        "--dialogue", metavar="FILE", help='what the client sends, "-" for stdin; of a transcript what follows "C: "'
    )
    test.add_argument("--json", action="store_true", help="one JSON object per command and per message taken")


def run(args: argparse.Namespace) -> int:
    if args.dialogue is not None and (args.paths or args.reverse_path or args.message):
        raise Impossible("--dialogue says it all: no --from, --to or --message beside it")
    if args.dialogue is None and not args.paths:
        raise Impossible("--to or --dialogue is needed")
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(args))


async def _run(args: argparse.Namespace) -> int:
    from angarium.config.schema import load, read_hooks
    from angarium.rehearsal import Rehearsal

    config, tree = load(find(args.config))
    source = read_hooks(config, tree)
    listener = _listener(config.listener, args.listener)
    try:
        host = str(ipaddress.ip_address(args.client))
    except ValueError:
        raise Impossible(f"--client: {args.client!r} is not an address") from None
    with tempfile.TemporaryDirectory(prefix="angarium-trial-") as folder:
        rehearsal = await Rehearsal.open(config, listener, source, folder=Path(folder), services=args.services)
        try:
            await rehearsal.connect(host)
            hello = (b"LHLO " if listener.protocol == "lmtp" else b"EHLO ") + args.helo.encode()
            if args.dialogue is not None:
                if args.tls or args.user is not None:
                    await _introduce(rehearsal, hello, args, listener)
                await _play(rehearsal, _client_lines(_read(args.dialogue)))
            else:
                await _introduce(rehearsal, hello, args, listener)
                await _play(rehearsal, _commands(args))
        finally:
            for line in await rehearsal.close():
                print(line, file=sys.stderr)
    for step in rehearsal.steps:
        print(_json("command", step) if args.json else _told(step))
    for taken in rehearsal.taken:
        print(_json("message", taken) if args.json else _told_message(taken))
    return 0 if rehearsal.taken else 1


async def _introduce(rehearsal: Rehearsal, hello: bytes, args: argparse.Namespace, listener: ListenerOptions) -> None:
    """As a mail program does: TLS when it is asked for or AUTH needs it, then AUTH."""
    await rehearsal.send(hello)
    needs_auth = args.user is not None and not _offers(rehearsal, "AUTH")
    begins_with_tls = listener.tls is not None and listener.tls.implicit
    if (args.tls or needs_auth) and not begins_with_tls and not rehearsal.is_over:
        if _offers(rehearsal, "STARTTLS"):
            await rehearsal.send(b"STARTTLS")
            await rehearsal.send(hello)
        elif args.tls:
            raise Impossible(f"--tls: {listener.address} offers no STARTTLS")
    if args.user is not None and not rehearsal.is_over:
        if not _offers(rehearsal, "AUTH"):
            raise Impossible(f"--user: {listener.address} offers no AUTH")
        await rehearsal.send(b"AUTH PLAIN " + base64.b64encode(f"\0{args.user}\0trial".encode()))


def _offers(rehearsal: Rehearsal, keyword: str) -> bool:
    return any(line.split(" ")[0] == keyword for line in rehearsal.offers)


async def _play(rehearsal: Rehearsal, lines: Iterator[bytes]) -> None:
    for line in lines:
        if rehearsal.is_over:
            return
        reply = await rehearsal.send(line)
        if line.upper() == b"DATA" and not reply.startswith("354"):
            # A client would not send the message now.
            for rest in lines:
                if rest == b".":
                    break


def _commands(args: argparse.Namespace) -> Iterator[bytes]:
    message = MESSAGE if args.message is None else _read(args.message)
    parameters = b"" if message.isascii() else b" BODY=8BITMIME"
    if not all(map(str.isascii, (args.reverse_path, *args.paths))):
        parameters += b" SMTPUTF8"
    yield b"MAIL FROM:<%s>%s SIZE=%d" % (args.reverse_path.encode(), parameters, len(message))
    for forward_path in args.paths:
        yield b"RCPT TO:<%s>" % forward_path.encode()
    yield b"DATA"
    for line in message.removesuffix(b"\n").removesuffix(b"\r").replace(b"\r\n", b"\n").split(b"\n"):
        yield b"." + line if line.startswith(b".") else line
    yield b"."
    yield b"QUIT"


def _client_lines(octets: bytes) -> Iterator[bytes]:
    lines = octets.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    is_transcript = any(line.startswith(b"C: ") for line in lines)
    for line in lines:
        if not is_transcript:
            yield line
        elif line.startswith(b"C:"):
            yield line[2:].removeprefix(b" ")


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _listener(listeners: list[ListenerOptions], wanted: str | None) -> ListenerOptions:
    if wanted is None:
        return listeners[0]
    for listener in listeners:
        if str(listener.address) == wanted:
            return listener
    known = ", ".join(str(listener.address) for listener in listeners)
    raise Impossible(f"--listener: none listens on {wanted}; there are {known}")


def _json(kind: str, value: Step | Taken) -> str:
    fields = msgspec.to_builtins(value)
    if kind == "command":
        fields["decisions"] = [{"by": by, "decision": decision} for by, decision in fields.get("decisions", ())]
        if "printed" in fields:
            fields["printed"] = [{"by": by, "text": text} for by, text in fields["printed"]]
    return json_line({"kind": kind, **fields})


def _told(step: Step) -> str:
    lines = [f"C: {step.command}"]
    lines += [f"   {where} prints: {text}" for where, text in step.printed]
    lines += [f"   {who}: {what}" for who, what in step.decisions]
    lines += [f"S: {line}" for line in step.reply.splitlines()]
    return "\n".join(map(printable, lines))


def _told_message(taken: Taken) -> str:
    recipients = ", ".join(f"<{each}>" for each in taken.recipients)
    lines = ["", f"would be queued from <{taken.reverse_path}> to {recipients}"]
    lines += [f"   {name} {value}" for name, value in taken.attributes.items()]
    lines += [f"   {line}" for line in taken.header.splitlines()]
    return "\n".join(map(printable, lines))
