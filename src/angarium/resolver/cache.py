"""Answers kept until their time is up. Bounded, least recently used out first; knows nothing of DNS."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class _Expiring(Protocol):
    @property
    def expires_mono_s(self) -> float: ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=_Expiring)


class ExpiringCache(Generic[Key, Value]):
    """Values with an `expires_mono_s`, at most `entries` of them.

    clock  monotonic seconds.
    """

    __slots__ = ("_clock", "_entries", "_values")

    def __init__(self, entries: int, clock: Callable[[], float]) -> None:
        self._entries = entries
        self._clock = clock
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value, or None when there is none that still holds."""
        value = self._values.get(key)
        if value is None:
            return None
        if value.expires_mono_s <= self._clock():
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._entries:
            self._values.popitem(last=False)
