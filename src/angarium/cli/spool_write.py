"""The orders of `angarium spool` that write a spool: import, repair, upgrade."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path

import msgspec

from angarium.cli.progress import messages_bar, octets_bar
from angarium.cli.spool import warn_of_format
from angarium.model.errors import AngariumError, SpoolBusy, SpoolError
from angarium.model.printable import json_line, printable
from angarium.spool.archive import ExportedMessage, read_directory, read_octets
from angarium.spool.contents import Contents
from angarium.spool.deposit import Deposit
from angarium.spool.directory import SpoolDirectory, shard_name
from angarium.spool.envelope import encode_id
from angarium.spool.salvage import Salvaged, salvage
from angarium.spool.shard import Shard


def import_messages(path: str, args: argparse.Namespace) -> int:
    if args.shard is not None and not re.fullmatch(r"[0-9a-f]{2}", args.shard):
        raise SpoolError(f"--shard: {args.shard!r} is not two hexadecimal digits")
    messages = read_directory(args.directory)
    for eml, exported in messages:  # before the first is written: nobody could tell what of it is there then
        read_octets(eml, is_binarymime=exported.is_binarymime)
    imported = _Imported()
    with _owned_or_beside(path, args.shard) as spool:
        number = int(args.shard or "00", 16)
        try:
            asyncio.run(_import(spool, number, messages, imported))
        finally:  # also of an import that failed or was interrupted: who imports those again has them twice
            for old, new in imported.renamed:
                print(json_line({"id": new, "was": old}) if args.json else f"{old} is now {new}")
    if not args.json:
        print(f"{len(imported.renamed)} messages imported into shard {shard_name(number)} of {path}")
    for line in imported.failed:
        print(f"angarium: {printable(line)}", file=sys.stderr)
    if len(imported.renamed) < len(messages):
        print(
            f"angarium: {len(messages) - len(imported.renamed)} of {len(messages)} messages were not imported; "
            "before another import move away those that were",
            file=sys.stderr,
        )
    if not imported.failed:
        return 0
    return 1 if imported.renamed else 2


class _Imported(msgspec.Struct):
    """renamed: old and new ids, all of them durable. failed: lines for the operator, which name the files."""

    renamed: list[tuple[str, str]] = []
    failed: list[str] = []


def _owned_or_beside(path: str, shard: str | None) -> SpoolDirectory:
    """The spool for ourselves; or, when a shard was named, beside a relay: the shard's own lock decides then."""
    try:
        return SpoolDirectory.open(path)
    except SpoolBusy:
        if shard is None:
            raise
        return SpoolDirectory.open_beside_owner(path)


async def _import(
    spool: SpoolDirectory, number: int, messages: list[tuple[Path, ExportedMessage]], imported: _Imported
) -> None:
    """Stops at the first that fails. `imported` is filled in whatever happens."""
    shard = Shard(spool.fd, shard_name(number), number)
    put: dict[int, tuple[Path, ExportedMessage]] = {}
    deposit = Deposit(shard)
    try:
        shard.attach(asyncio.get_running_loop())
        with messages_bar(len(messages)) as bar:
            for eml, exported in messages:
                try:
                    octets = read_octets(eml, is_binarymime=exported.is_binarymime)
                    envelope = exported.envelope(shard.new_id(), octets)
                    put[envelope.id] = (eml, exported)
                    await deposit.put(envelope, exported.states(), [octets])
                except (AngariumError, OSError, ValueError) as error:
                    if not deposit.failed:  # else it was one of those under way
                        imported.failed.append(_not_imported(eml, error))
                    break
                bar.update(1)
    finally:
        try:
            await deposit.drain()
        except SpoolError as error:
            if not deposit.failed:
                imported.failed.append(f"outcomes of messages may be missing: {error}")
        finally:
            shard.close()
            imported.failed += [_not_imported(put[message_id][0], error) for message_id, error in deposit.failed]
            for message_id in deposit.durable:
                imported.renamed.append((put[message_id][1].id, encode_id(message_id)))


def _not_imported(eml: Path, error: BaseException) -> str:
    reason = str(getattr(error, "strerror", None) or error)
    return f"not imported: {reason if reason.startswith(str(eml)) else f'{eml}: {reason}'}"


def repair(path: str, args: argparse.Namespace) -> int:
    with SpoolDirectory.open_damaged(path) as source:
        source.refuse_owner()
        warn_of_format(source)
        with SpoolDirectory.open(str(args.to)) as target, octets_bar("salvaging") as progress:
            found = asyncio.run(salvage(source, target, progress))
    if args.json:
        print(json_line(msgspec.to_builtins(found)))
    else:
        _tell(found, str(args.to))
    return 1 if found.lost or found.damage or found.not_copied else 0


def _tell(found: Salvaged, target: str) -> None:
    for old, new in found.renamed:
        print(f"{old} is now {new}: the old id might be given again")
    for message_id, reason in found.lost:
        print(f"LOST     {message_id}: {reason}")
    for damage in found.damage:
        print(f"DAMAGED  {damage}")
    for name in found.copied:
        print(f"copied   {printable(name)}")
    for name, reason in found.not_copied:
        print(f"NOT COPIED  {printable(name)}: {reason}")
    print(f"{found.message_count} messages saved into {target}, {len(found.lost)} lost")
    if found.damage:
        print(
            "What a damaged place held is not known: a message, or that one was delivered already (it is sent again).",
            file=sys.stderr,
        )


def upgrade(path: str) -> int:
    """A version 2 gets its step here: read the version, and rewrite what it says below a lock."""
    with SpoolDirectory.open_beside_owner(path) as spool:
        spool.refuse_owner()
        # Names every file of another version (SpoolVersion), as opening a shard would.
        contents = Contents(spool.fd, [shard_name(number) for number in spool.shards()])
        count = len(contents.free) + sum(len(contents.segments(number)) for number in contents.shards)
    print(f"spool {path} is of format version 1, the newest ({count} segments): nothing to be done")
    return 0
