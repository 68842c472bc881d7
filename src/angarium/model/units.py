"""Quantities as operators write them: "5m", "100/s", "50MiB". Values only; who reads them is not known here.

Each is a float or an int with its unit in the class, so arithmetic needs no unwrapping. A TOML number stands
for itself where that cannot be misread (octets), and is refused where it can (is 5 seconds or minutes?). A
class with a `decode(value)` class method is all that config/ needs to know to read one of these from a file.
"""

from __future__ import annotations

import math
import re
from typing import Final, Self

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_OCTETS: Final = {
    "": 1, "B": 1,
    "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip

_LONGEST_S: Final = 3660 * 86400.0
_FASTEST_PER_S: Final = 1e6

_NUMBER_AND_UNIT: Final = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", re.ASCII)
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?) ?/ ?(\d+)?(s|m|h|d)", re.ASCII)


class Duration(float):
    """Seconds, written "90s", "5m", "1h30m", "5d" (ms, s, m, h, d, w)."""

    @classmethod
    def decode(cls, value: object) -> Self:
        """Raises ValueError for anything that is not such a text."""
        if isinstance(value, str) and value:
            parts = _DURATION_PART.findall(value)
            if parts and "".join(number + unit for number, unit in parts) == value:
                seconds = math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)
                if seconds > _LONGEST_S:
                    raise ValueError(f"longer than ten years: {_shown(value)}")
                return cls(seconds)
        raise ValueError(f'expected a duration such as "90s", "5m", "1h30m" or "5d", got {_shown(value)}')

    def __str__(self) -> str:
        rest_ms = round(self * 1000)
        if rest_ms == 0:
            return "0s"
        text = ""
        for unit, size_ms in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
            count, rest_ms = divmod(rest_ms, size_ms)
            if count:
                text += f"{count}{unit}"
        return text


class Rate(float):
    """Events per second, written "100/s", "600/m", "5000/h", "20/10s"; "none" is no limit (infinity)."""

    @classmethod
    def decode(cls, value: object) -> Self:
        """Raises ValueError for anything that is not such a text, and for a rate of nothing."""
        if value == "none":
            return cls(math.inf)
        if isinstance(value, str) and (match := _RATE.fullmatch(value)):
            count, times, unit = match.groups()
            try:
                per_s = float(count) / (int(times or 1) * _SECONDS[unit] or math.inf)
            except (OverflowError, ValueError):
                per_s = 0.0
            if per_s > _FASTEST_PER_S:
                raise ValueError(f'more than a million a second is no limit, write "none": {_shown(value)}')
            if per_s > 0:
                return cls(per_s)
        raise ValueError(f'expected a rate such as "100/s", "5000/h" or "none", got {_shown(value)}')

    @property
    def is_limited(self) -> bool:
        return self != math.inf


class Octets(int):
    """A size, written "50MiB", "10kB" or as a plain number of octets."""

    @classmethod
    def decode(cls, value: object) -> Self:
        """Raises ValueError for anything else."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(value)
        if isinstance(value, str) and (match := _NUMBER_AND_UNIT.fullmatch(value)):
            number, unit = match.groups()
            if unit in _OCTETS and len(number) <= 20:
                return cls(float(number) * _OCTETS[unit])
        raise ValueError(f'expected a size such as "50MiB", "10kB" or 65536, got {_shown(value)}')


def decode_unit(kind: type, value: object) -> object:
    """msgspec's dec_hook: reads any class that has `decode`. Errors become msgspec's, with the path."""
    decode = getattr(kind, "decode", None)
    if decode is None:
        raise NotImplementedError(f"{kind.__name__} cannot be read from a file")
    return decode(value)


def _shown(value: object) -> str:
    """A value in an error text: as TOML would spell it, and not a page of it."""
    text = (
        f'"{value}"'
        if isinstance(value, str)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."
