"""What the home worker has to know of another's ready queue, and what of a failure goes back: as values on the wire."""

from __future__ import annotations

import msgspec

from angarium.model.errors import RemoteProtocolError
from angarium.model.outcome import Trouble
from angarium.model.plan import Site, Source


class Lodging(msgspec.Struct, frozen=True):
    """A ready queue. wish: model.plan.TlsWish; kind: queue.shaping.Kind; apart: queue.adjustments.Apart.

    planned_by  what its owner's configuration is known by. Who works by another one takes nothing in: it would say
                otherwise how well a connection has to be protected, or for whom it is.
    """

    site: Site
    source: Source
    wish: int
    kind: tuple[str, str, str] | None
    apart: tuple[str, str] | None = None
    planned_by: str = ""


def decode_lodging(octets: bytes) -> Lodging:
    """Raises RemoteProtocolError."""
    try:
        lodging = msgspec.msgpack.decode(octets, type=Lodging)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a ready queue cannot be read: {error}") from error
    if lodging.wish not in (0, 1, 2) or lodging.site.protocol == "maildir":
        raise RemoteProtocolError("a ready queue makes no sense")
    return lodging


def decode_trouble(octets: bytes) -> Trouble:
    """Raises RemoteProtocolError."""
    try:
        trouble = msgspec.msgpack.decode(octets, type=Trouble)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"an outcome cannot be read: {error}") from error
    if not all(0 <= number <= 999 for number in (trouble.code, *trouble.status)) or not 0 <= trouble.delay_s < 1e9:
        raise RemoteProtocolError("an outcome makes no sense")
    return trouble
