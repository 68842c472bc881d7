"""The timer wheel of a worker: 100 ms ticks, embedded nodes (Cython callers only)."""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import final

@final
class Wheel:
    """One per worker. Without a loop nothing moves by itself: tests call advance_by_ms()."""

    now: int
    count: int
    def __init__(self, loop: AbstractEventLoop | None = None) -> None: ...
    def turn(self) -> None: ...
    def close(self) -> None:
        """Fires nothing any more."""
    def pass_ms(self, milliseconds: int) -> None:
        """Moves time for tests; what is due is found by the next turn."""
    def advance_by_ms(self, milliseconds: int) -> None:
        """Moves time for tests: as if that much had passed."""

@final
class Alarm:
    """A timer for Python callers. Keep a reference while it is armed."""

    def __init__(self, wheel: Wheel, callback: Callable[[], object]) -> None: ...
    def arm(self, seconds: float) -> None:
        """Calls back once, not before that much time has passed and at most two ticks later; rearms when armed."""
    def disarm(self) -> None: ...
    @property
    def remaining_s(self) -> float:
        """0.0 when not armed."""
