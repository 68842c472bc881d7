"""Message sizes a load generator draws from: one size, a range, or a weighted mix. Text of an option to a
value.
"""

from __future__ import annotations

import random
import re

import msgspec

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmM]?)(?:i?[bB])?")
SMALLEST_OCTETS = 300  # the header section of a made message must fit


class SizeRange(msgspec.Struct, frozen=True):
    """Any size from `low` to `high` octets, both included, with `weight` against the other ranges."""

    low: int
    high: int
    weight: float = 1.0


class Sizes(msgspec.Struct, frozen=True):
    """A mix of ranges; one range of one size is the usual case."""

    ranges: tuple[SizeRange, ...]

    def draw(self, chance: random.Random) -> int:
        """The next message's size in octets."""
        one = self.ranges[0]
        if len(self.ranges) > 1:
            one = chance.choices(self.ranges, [each.weight for each in self.ranges])[0]
        return one.low if one.low == one.high else chance.randint(one.low, one.high)


def parse_octets(text: str) -> int:
    """`4096`, `4k`, `1.5M`: k is 1024 octets, M is 1024 k. ValueError otherwise."""
    if not (found := _SIZE.fullmatch(text.strip())):
        raise ValueError(f"{text!r} is no size; write 4096, 4k or 1M")
    return int(float(found[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[found[2].lower()])


def parse_sizes(text: str) -> Sizes:
    """`4k`, `1k-100k`, or a mix with weights, `4k:90,100k-1M:10`. ValueError says what is wrong."""
    ranges = []
    for part in text.split(","):
        span, colon, weight_text = part.partition(":")
        low_text, dash, high_text = span.partition("-")
        low = parse_octets(low_text)
        high = parse_octets(high_text) if dash else low
        if high < low:
            raise ValueError(f"{span!r}: the larger size comes second")
        if low < SMALLEST_OCTETS:
            raise ValueError(f"{span!r}: a message has at least {SMALLEST_OCTETS} octets")
        try:
            weight = float(weight_text) if colon else 1.0
        except ValueError:
            raise ValueError(f"{weight_text!r} is no weight") from None
        if weight <= 0:
            raise ValueError(f"{weight_text!r}: a weight is above 0")
        ranges.append(SizeRange(low, high, weight))
    return Sizes(tuple(ranges))
