"""`angarium spool`: look into a spool without a relay, take mail out, put mail in, save what a broken disk left.

The orders that only read are here; those that write are in spool_write.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from angarium.config.location import find, read_location
from angarium.model.errors import AngariumError, SpoolCorrupt, SpoolError
from angarium.model.printable import printable
from angarium.model.units import Duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from angarium.spool.archive import ExportedRecipient
    from angarium.spool.contents import Contents, Damage, StoredMessage
    from angarium.spool.directory import SpoolDirectory
    from angarium.spool.verification import SegmentReport, Verification

_ORDERS: Final = ("check", "ls", "cat", "export", "import", "repair", "upgrade")
_EXAMPLES: Final = """\
examples:
  angarium spool check && echo all good
  angarium spool ls --json | jq -r 'select(.octets > 10000000).id'
  angarium spool cat 02TR4P4JG0001 > message.eml
  angarium spool cat --envelope 02TR4P4JG0001
  angarium spool export --all --to /var/tmp/mail
  angarium spool import /var/tmp/mail
  angarium spool repair --spool /var/spool/angarium --to /var/spool/angarium.new

check, ls, cat and export only read, and work beside a running relay. import, repair and upgrade are refused while a
relay owns the spool, with its process id. Exit status 0: done, check: no damage. 1: check found damage, or a part could
not be read. 2: refused.
"""


class NoSuchMessage(AngariumError):
    """The spool has no live message of this id."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "spool",
        help="look into a spool, take mail out, put mail in, save one",
        description="Works on the spool's files, with or without a relay. `angarium spool ORDER --help` explains each.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    orders = parser.add_subparsers(dest="order", metavar="|".join(_ORDERS), required=True)

    check = orders.add_parser(
        "check",
        help="verify every record",
        description="Verifies every record with its body, and all records against each other. Changes nothing. Torn "
        "ends, as a crash leaves them, are told and are no damage.",
    )
    check.add_argument(
        "parts", nargs="*", metavar="SHARD|SEGMENT", help='"00", or "00/seg-0003.ang"; default: everything'
    )

    listing = orders.add_parser(
        "ls",
        help="list messages with their recipients",
        description="Lists the live messages: id, age, octets, sender; then each recipient with outcome, attempts, "
        "next attempt and what was said last.",
    )

    cat = orders.add_parser(
        "cat", help="print one message", description="Prints the octets of one message as they were received."
    )
    cat.add_argument("id", metavar="ID")
    cat.add_argument("--envelope", action="store_true", help="its envelope and recipients as JSON instead")

    export = orders.add_parser(
        "export",
        help="write messages as files",
        description="Writes ID.eml (the message) and ID.json (envelope, recipients, outcomes) for each message, "
        "synced, each file whole or not at all. The messages stay in the spool. An interrupted export is run again "
        "into the same directory: what is there already is left alone, and told when its content is another.",
    )
    _add_selection(export)
    export.add_argument("--to", required=True, type=Path, metavar="DIR", help="made when only its last part is missing")

    importing = orders.add_parser(
        "import",
        help="put exported messages into a spool",
        description="Puts the messages that export wrote into the spool, under new ids, with their age and outcomes; "
        "prints each old and new id that is on stable storage, also when it fails; the exit status is 1 then, or 2 "
        "when nothing was imported. A relay serves them from its next start.",
    )
    importing.add_argument("directory", type=Path, metavar="DIR")
    importing.add_argument(
        "--shard",
        metavar="NN",
        help="two hexadecimal digits (default 00). One that nobody serves may be written beside a running relay",
    )

    repair = orders.add_parser(
        "repair",
        help="salvage everything valid into a fresh spool",
        description="Copies every whole message with its outcomes and its id into a fresh spool, and the files beside "
        "them (orders, counts, the secret, databases); says what could not be had. The old spool is only read.",
    )
    repair.add_argument("--to", required=True, type=Path, metavar="NEWDIR", help="made; must hold no mail")

    upgrade = orders.add_parser(
        "upgrade",
        help="bring a spool to the newest format",
        description="Brings a spool to the newest format version. There is only version 1 so far: nothing to be done.",
    )

    for order in (check, listing, cat, export, importing, repair, upgrade):
        where = order.add_mutually_exclusive_group()
        where.add_argument(
            "--config", type=Path, metavar="FILE", help="whose node.spool is meant (default: that of `serve`)"
        )
        where.add_argument("--spool", type=Path, metavar="DIR", help="the spool's directory")
    for order in (check, listing, export, importing, repair):
        order.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    path = str(args.spool) if args.spool is not None else read_location(find(args.config)).node.spool
    match args.order:
        case "check":
            return _check(path, args)
        case "ls":
            return _ls(path, args)
        case "cat":
            return _cat(path, args)
        case "export":
            return _export(path, args)
    from angarium.cli import spool_write

    match args.order:
        case "import":
            return spool_write.import_messages(path, args)
        case "repair":
            return spool_write.repair(path, args)
    return spool_write.upgrade(path)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="these messages")
    parser.add_argument("--all", action="store_true", help="every message")


# --- check ---


def _check(path: str, args: argparse.Namespace) -> int:
    from angarium.cli.progress import octets_bar
    from angarium.spool.contents import Damage
    from angarium.spool.directory import SpoolDirectory
    from angarium.spool.verification import verify

    with SpoolDirectory.open_damaged(path) as spool:
        directories, wants = _parts(spool, args.parts)
        with octets_bar("checking") as progress:
            found = verify(spool.fd, directories, wants, progress)
        if spool.format_trouble:
            found.damage.append(Damage("format", f"the file {spool.format_trouble}; the shards are read all the same"))
    if args.json:
        _print_json_of(found)
    else:
        for report in found.segments:
            print(_line_of(report))
        for damage in found.damage:
            print(f"DAMAGED  {damage}")
        print(_summary_of(found))
    return 1 if found.damage else 0


def _parts(spool: SpoolDirectory, parts: list[str]) -> tuple[list[str], Callable[[str], bool]]:
    """The shard directories to look into, and which segments are asked for."""
    from angarium.spool.directory import shard_name

    existing = [shard_name(number) for number in spool.shards()]
    if not parts:
        return existing, lambda segment: True
    for part in parts:
        directory = part.partition("/")[0]
        if directory not in existing or ("/" in part and not (Path(spool.path) / part).is_file()):
            raise SpoolError(f"spool {spool.path} has no {part}")
    wanted = frozenset(parts)
    directories = sorted({part.partition("/")[0] for part in parts})
    return directories, lambda segment: segment in wanted or segment.partition("/")[0] in wanted


def _line_of(report: SegmentReport) -> str:
    start = f"{report.segment:<15}  serial {report.serial:<6}"
    if report.is_free:
        return f"{start}  free"
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.records.items())) or "no records"
    end = "sealed" if report.is_sealed else "open"
    torn = f"; torn end, {report.torn_pieces} pieces: normal after a crash" if report.torn_pieces else ""
    good = f"{len(report.damage)} DAMAGED" if report.damage else "good"
    return f"{start}  {end:<6}  {good}: {kinds}; {report.messages} live messages{torn}"


def _summary_of(found: Verification) -> str:
    records = sum(sum(report.records.values()) for report in found.segments)
    octets = sum(report.record_octets for report in found.segments)
    start = f"{len(found.segments)} segments, {records} records, {octets} octets, {found.message_count} live messages"
    return f"{start}: {f'{len(found.damage)} damaged places' if found.damage else 'no damage'}"


def _print_json_of(found: Verification) -> None:
    import msgspec

    from angarium.model.printable import json_line

    for report in found.segments:
        print(json_line(msgspec.to_builtins(report)))
    known = {report.segment for report in found.segments}
    for damage in found.damage:
        if damage.segment not in known:
            print(json_line({"segment": damage.segment, "damage": [msgspec.to_builtins(damage)]}))
    print(json_line({"messages": found.message_count, "damaged": len(found.damage)}))


# --- ls, cat, export ---


def _ls(path: str, args: argparse.Namespace) -> int:
    from angarium.spool.archive import ExportedMessage

    with _opened(path) as spool:
        contents = _contents(spool)
        now_s = time.time()
        for message in _messages(contents):
            exported = ExportedMessage.of(message)
            if args.json:
                print(exported.json())
                continue
            age = Duration(max(0, int(now_s - exported.received_utc_ms / 1000)))
            print(f"{exported.id}  {age!s:>8}  {exported.octets:>9}  from {_shown(exported.reverse_path) or '<>'}")
            for recipient in exported.recipients:
                print(f"    {_recipient_line(recipient)}")
        return _tell_damage(contents.damage)


def _recipient_line(recipient: ExportedRecipient) -> str:
    """waiting    you@example.org  3 attempts, next 2026-11-23T22:13:06Z  451 4.7.1 greylisted"""
    attempts = f"{recipient.attempts} attempts" if recipient.attempts else "not tried yet"
    if recipient.outcome == "waiting" and recipient.next_attempt_utc_s:
        attempts += f", next {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(recipient.next_attempt_utc_s))}"
    code = str(recipient.reply_code) if recipient.reply_code else ""
    said = " ".join(filter(None, (code, recipient.enhanced_status, _shown(recipient.reply))))
    return f"{recipient.outcome:<9}  {_shown(recipient.forward_path)}  {attempts}  {said}".rstrip()


def _shown(text: str) -> str:
    """For a terminal: what octets of a stranger may do there, they do not."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _cat(path: str, args: argparse.Namespace) -> int:
    from angarium.spool.archive import ExportedMessage

    with _opened(path) as spool:
        contents = _contents(spool)
        for message in _selected(contents, [args.id]):
            if args.envelope:
                print(ExportedMessage.of(message).json())
                return 0
            try:
                pieces = contents.body(message)
            except SpoolCorrupt:
                pieces = _second_look(spool, args.id)
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    return 0


def _second_look(spool: SpoolDirectory, id: str) -> list[bytes]:
    """The octets of a message that could not be read. A relay may have moved it meanwhile, or be done with it:
    NoSuchMessage. Raises SpoolCorrupt when it is damaged."""
    contents = _contents(spool)
    message = next(_selected(contents, [id]))
    try:
        return contents.body(message)
    except SpoolCorrupt as error:
        raise SpoolCorrupt(f"{id}: {error}") from None


def _export(path: str, args: argparse.Namespace) -> int:
    import os

    from angarium.cli.progress import messages_bar
    from angarium.model.printable import json_line
    from angarium.spool.archive import NameTaken, write_message
    from angarium.spool.envelope import encode_id

    if bool(args.ids) == args.all:
        raise SpoolError("export: either some IDs or --all")
    with _opened(path) as spool, messages_bar(None) as bar:
        contents = _contents(spool)
        args.to.mkdir(mode=0o700, exist_ok=True)
        exported: list[str] = []
        lost: list[str] = []
        suspects: set[int] = set()
        for message in _messages(contents) if args.all else _selected(contents, args.ids):
            try:
                write_message(args.to, message, contents.body(message))
            except SpoolCorrupt:
                suspects.add(message.envelope.id)
                continue
            except NameTaken as error:
                lost.append(str(error))
                continue
            exported.append(encode_id(message.envelope.id))
            bar.update(1)
        # A relay may have moved them meanwhile, or be done with them: who is not there any more is not lost.
        again = _contents(spool) if suspects else contents
        there = _messages(again) if args.all else _selected(again, [encode_id(each) for each in suspects])
        for message in there if suspects else ():
            if message.envelope.id not in suspects:
                continue
            name = encode_id(message.envelope.id)
            try:
                write_message(args.to, message, again.body(message))
            except SpoolCorrupt as error:
                lost.append(f"{name}: {error}")
                continue
            except NameTaken as error:
                lost.append(str(error))
                continue
            exported.append(name)
            bar.update(1)
        fd = os.open(args.to, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(fd)
        os.close(fd)
    if args.json:
        for name in exported:
            print(json_line({"id": name}))
    else:
        print(f"{len(exported)} messages in {args.to}")
    for line in lost:
        print(f"angarium: not exported: {printable(line)}", file=sys.stderr)
    return max(_tell_damage(contents.damage), 1 if lost else 0)


def _opened(path: str) -> SpoolDirectory:
    from angarium.spool.directory import SpoolDirectory

    spool = SpoolDirectory.open_damaged(path)
    warn_of_format(spool)
    return spool


def warn_of_format(spool: SpoolDirectory) -> None:
    if spool.format_trouble:
        print(
            f"angarium: spool {printable(spool.path)}: its file `format` {spool.format_trouble}; "
            "the shards are read all the same",
            file=sys.stderr,
        )


def _contents(spool: SpoolDirectory) -> Contents:
    from angarium.spool.contents import Contents
    from angarium.spool.directory import shard_name

    return Contents(spool.fd, [shard_name(number) for number in spool.shards()])


def _messages(contents: Contents) -> Iterator[StoredMessage]:
    for shard in contents.shards:
        yield from contents.messages(shard)


def _selected(contents: Contents, texts: list[str]) -> Iterator[StoredMessage]:
    """The messages of these ids; the search ends with the last of them. Raises NoSuchMessage behind them."""
    from angarium.spool.envelope import decode_id, encode_id

    try:
        wanted = {decode_id(text) for text in texts}
    except ValueError as error:
        raise NoSuchMessage(str(error)) from None
    # The first eight bits of an id are the number of its shard.
    shards = sorted(contents.shards, key=lambda shard: (all(each >> 56 != shard for each in wanted), shard))
    for shard in shards:
        for message in contents.messages(shard):
            if message.envelope.id in wanted:
                wanted.discard(message.envelope.id)
                yield message
            if not wanted:
                return
    if wanted:
        raise NoSuchMessage(f"no live message {', '.join(sorted(map(encode_id, wanted)))}")


def _tell_damage(damage: list[Damage]) -> int:
    """The exit status."""
    if damage:
        print(
            f"angarium: {len(damage)} damaged places were met, the first: {damage[0]}; "
            "`angarium spool check` tells all",
            file=sys.stderr,
        )
    return 1 if damage else 0
