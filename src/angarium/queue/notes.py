"""Sentences about what is in force for mail: whoever keeps something back gives them to `angarium explain`.

An explanation asks each of its speakers about every subject (outbound/explanation.py, Explainer.speakers) and shows
what they say; who has nothing to say says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec


class Asked(msgspec.Struct, frozen=True):
    """About whom: given to everybody who may have something to say."""

    address: str
    domain: str
    sender: str = ""
    tenant: str = ""
    campaign: str = ""
    site: str = ""
    sources: tuple[str, ...] = ()


class Note(msgspec.Struct):
    """Something that is in force. text: a whole sentence. holds_back: mail does not leave, or fails, because of it.
    is_aside: mail that waits is as if it were not there."""

    text: str
    holds_back: bool = False
    is_aside: bool = False


Speaker = Callable[[Asked], Iterable[Note]]
