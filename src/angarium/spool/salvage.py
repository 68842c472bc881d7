"""`angarium spool repair`: everything valid of one spool into a fresh one, and what lies beside the mail. The old one
is only read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from angarium.model.errors import SpoolCorrupt, SpoolError
from angarium.spool.contents import Contents, Damage
from angarium.spool.deposit import Deposit
from angarium.spool.directory import SpoolDirectory, shard_name
from angarium.spool.envelope import encode_id
from angarium.spool.shard import Shard
from angarium.spool.side_files import copy_side_files


class Salvaged(msgspec.Struct):
    """What became of a spool's mail.

    lost     id and reason of messages whose envelope is there and whose octets are not.
    damage   places that could not be read, whatever they held.
    renamed  old and new ids.
    copied, not_copied  files beside the shards; why not.
    """

    message_count: int = 0
    lost: list[tuple[str, str]] = []
    damage: list[Damage] = []
    renamed: list[tuple[str, str]] = []
    copied: list[str] = []
    not_copied: list[tuple[str, str]] = []


async def salvage(
    source: SpoolDirectory,
    target: SpoolDirectory,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    segment_octets: int = 64 << 20,
) -> Salvaged:
    """Copies every live message that is whole, with its outcomes, shard by shard; all of it is durable when this
    returns.

    target    open and without shards. Nobody can open it again until this has returned, or after it has raised.
    progress  called with octets done and octets in all.
    Raises SpoolError when the target cannot be written.
    """
    if target.shards():
        raise SpoolError(f"spool {target.path} has mail already: repair wants a new directory")
    contents = Contents(source.fd, [shard_name(number) for number in source.shards()])
    # Until it is all there, nobody may take it for the spool: not a relay, not who repairs once more.
    target.mark_unfinished()
    try:
        result = await _salvage(contents, source, target, progress, segment_octets)
        target.mark_whole()
    except (SpoolError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpoolError(f"{reason}; the new spool {target.path} is unfinished: remove it") from error
    return result


async def _salvage(
    contents: Contents,
    source: SpoolDirectory,
    target: SpoolDirectory,
    progress: Callable[[int, int], None],
    segment_octets: int,
) -> Salvaged:
    # Without the orders mail would be sent that is suspended, without the counts a warm-up would begin anew.
    beside = copy_side_files(source.fd, target.fd)
    result = Salvaged(damage=contents.damage, copied=beside.copied, not_copied=beside.not_copied)
    total, done = contents.octets(), 0

    def looked_at(octets: int) -> None:
        nonlocal done
        done += octets
        progress(done, total)

    for number in contents.shards:
        shard = Shard(
            target.fd,
            shard_name(number),
            number,
            segment_octets=segment_octets,
            last_incarnation=contents.last_incarnation(number),
        )
        try:
            shard.attach(asyncio.get_running_loop())
            await _salvage_shard(contents, number, shard, result, looked_at)
        finally:
            shard.close()
    return result


async def _salvage_shard(
    contents: Contents, number: int, shard: Shard, result: Salvaged, looked_at: Callable[[int], None]
) -> None:
    deposit = Deposit(shard)
    first_new_incarnation = _incarnation(shard.new_id())
    for message in contents.messages(
        number, looked_at=lambda segment, file, scan: looked_at(segment.header.segment_octets)
    ):
        envelope = message.envelope
        try:
            pieces = contents.body(message)
        except SpoolCorrupt as error:
            result.lost.append((encode_id(envelope.id), str(error)))
            continue
        # Its header is lost and the clock was set back: an id that the fresh shard may give again.
        if _incarnation(envelope.id) >= first_new_incarnation:
            envelope = msgspec.structs.replace(envelope, id=shard.new_id())
            result.renamed.append((encode_id(message.envelope.id), encode_id(envelope.id)))
        await deposit.put(envelope, message.state, pieces)
        result.message_count += 1
    await deposit.drain()


def _incarnation(message_id: int) -> int:
    """docs/spool-format.md, "Message ids"."""
    return message_id >> 24 & 0xFFFFFFFF
