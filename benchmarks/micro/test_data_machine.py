"""Throughput of the data machine, one core, message in cache.

What this does not show: the cache misses of a message that just came from the network, the copy into the
spool, Python. The loop is in C (machines.repeat_data), so that a call costs nothing.

    .venv/bin/python -m pytest benchmarks/micro/test_data_machine.py -n 0
"""

import random

import pytest

from angarium.smtp import machines

COUNT = 2000


def message(octets: int, line_octets: tuple[int, int]) -> bytes:
    """A header section and lines of letters, of lengths (with CRLF) drawn between the two given."""
    draw = random.Random(4096)
    parts = [b"Received: from a.example by b.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
             b"From: a@b.example\r\nTo: c@d.example\r\nSubject: benchmark\r\n\r\n"]
    size = len(parts[0])
    while size < octets:
        length = min(max(draw.randint(*line_octets), 2), max(octets - size, 2))
        parts.append(bytes(draw.choices(range(97, 123), k=length - 2)) + b"\r\n")
        size += length
    return b"".join(parts)


MESSAGES = {
    "4KiB-lines-78": message(4096, (78, 78)),
    "4KiB-lines-40..118": message(4096, (40, 118)),
    "4KiB-lines-2..20": message(4096, (2, 20)),
    "100KiB-lines-78": message(102400, (78, 78)),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_data_read(benchmark, name):
    data = machines.stuff([MESSAGES[name]])
    benchmark.extra_info["octets"] = len(data) * COUNT
    assert benchmark(machines.repeat_data, data, 1000, COUNT) == len(MESSAGES[name]) * COUNT
    print(f"\n{name}: {len(data) * COUNT / benchmark.stats.stats.median / 1e9:.2f} GB/s (median)")


@pytest.mark.parametrize("name", MESSAGES)
def test_data_stuffed(benchmark, name):
    data = MESSAGES[name]
    benchmark.extra_info["octets"] = len(data) * COUNT
    assert benchmark(machines.repeat_stuff, data, COUNT) == len(machines.stuff([data])) * COUNT
    print(f"\n{name}: {len(data) * COUNT / benchmark.stats.stats.median / 1e9:.2f} GB/s (median)")
