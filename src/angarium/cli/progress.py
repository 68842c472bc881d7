"""Progress bars on stderr for long work: there is none off a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm  # type: ignore[import-untyped]


def is_wanted() -> bool:
    """Whether somebody looks."""
    return sys.stderr.isatty()


@contextmanager
def octets_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over octets; it is moved by calls with octets done and octets in all."""
    with tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=not is_wanted()) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move


def messages_bar(total: int | None) -> tqdm:
    """A bar over messages; `update(count)` moves it. It is a context manager."""
    return tqdm(total=total, unit=" messages", smoothing=0.1, leave=False, disable=not is_wanted())
