"""Time of one command line and of one reply, one core, in cache, without Python (the loop is in C).

    .venv/bin/python -m pytest benchmarks/micro/test_command_machine.py -n 0
"""

import pytest

from angarium.smtp import machines

COUNT = 100_000

LINES = {
    "EHLO": b"EHLO client.example.net\r\n",
    "MAIL": b"MAIL FROM:<sender.name@example.com> SIZE=4096 BODY=8BITMIME\r\n",
    "RCPT": b"RCPT TO:<recipient.name@example.org>\r\n",
    "DATA": b"DATA\r\n",
}
REPLIES = {
    "250": b"250 2.1.5 Ok\r\n",
    "250-queued": b"250 2.0.0 Ok: queued as 4XyZ1234567890\r\n",
    "EHLO": b"250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
}


@pytest.mark.parametrize("name", LINES)
def test_command_parsed(benchmark, name):
    assert benchmark(machines.repeat_command, LINES[name], COUNT) == COUNT
    print(f"\n{name}: {benchmark.stats.stats.median / COUNT * 1e9:.0f} ns (median)")


@pytest.mark.parametrize("name", REPLIES)
def test_reply_read(benchmark, name):
    assert benchmark(machines.repeat_reply, REPLIES[name], COUNT) == COUNT
    print(f"\n{name}: {benchmark.stats.stats.median / COUNT * 1e9:.0f} ns (median)")
