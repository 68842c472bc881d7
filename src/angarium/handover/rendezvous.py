"""Which worker is the home of a site: rendezvous hashing; a worker that comes or goes moves no home but its own.

Nothing is agreed upon: who asks with the same name and the same workers gets the same answer.
"""

from __future__ import annotations

import hashlib


def home_of(name: str, living: int) -> int:
    """The number of the home worker.

    name    under which the site's connections are counted (queue/shares.pyx): what is counted together has one home.
    living  the workers to choose among, bit by number; not 0.
    """
    encoded = name.encode("utf-8", "surrogateescape")
    return max(_numbers(living), key=lambda number: (_weight(number, encoded), number))


def _numbers(living: int) -> list[int]:
    return [number for number in range(living.bit_length()) if living >> number & 1]


def _weight(number: int, name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=8, key=number.to_bytes(2, "little")).digest()
