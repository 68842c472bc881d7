"""Several source addresses, and mail exchangers on port 25 of addresses of both families: a relay, and sinks on the
other end of a cable (namespaces.py), which see who connects.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from dns_server import DnsServer, Records
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from interop.namespaces import PREFIX, Host, cable
from relay_process import RelayProcess, wait_for

V4 = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
V6 = ("2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3")
FIRST, SECOND = "198.51.100.1", "198.51.100.2"
FIRST6 = "2001:db8:2::1"
# Of one domain each: over IPv4, over IPv6, over both.
RECORDS: Records = {
    "four.example": {"MX": ["10 mx.four.example."]},
    "mx.four.example": {"A": [FIRST]},
    "six.example": {"MX": ["10 mx.six.example."]},
    "mx.six.example": {"AAAA": [FIRST6]},
    "both.example": {"MX": ["10 mx.both.example."]},
    "mx.both.example": {"A": [FIRST], "AAAA": [FIRST6]},
    "apart.example": {"MX": ["10 mx.six.example.", "20 mx.four.example."]},
    "two.example": {"MX": ["10 mx1.two.example.", "20 mx2.two.example."]},
    "mx1.two.example": {"A": [FIRST]},
    "mx2.two.example": {"A": [SECOND]},
}
# Each message over a connection of its own: who would be dialled now is what these tests ask.
NOT_KEPT = "messages_per_connection = 1\n"


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Ours without a source address yet, the world with its mail exchangers'."""
    with cable() as (ours, world):
        world.add(FIRST, SECOND, FIRST6)
        yield ours, world


@contextlib.contextmanager
def relay_in(ours: Host, directory: Path, config: str, *, workers: int = 1) -> Iterator[RelayProcess]:
    with ours.entered(), DnsServer(RECORDS) as dns:
        resolver = f'[resolver]\nnameservers = ["{dns.address}"]\ntimeout = "3s"\n'
        relay = RelayProcess(directory, resolver + config, workers=workers)
        relay.prefix = PREFIX
        with relay:
            yield relay
            assert relay.stop() == 0
            assert not relay.events("error", "worker-died")


@contextlib.contextmanager
def hop_in(world: Host, address: str) -> Iterator[NextHop]:
    with contextlib.ExitStack() as stack:
        with world.entered():       # its thread is there for good
            hop = stack.enter_context(NextHop(address=address, port=25))
        yield hop


class RunningSink:
    """`angarium sink` in the world, and what it has counted by client address."""

    def __init__(self, world: Host, *options: str) -> None:
        listen = [word for address in (FIRST, f"[{FIRST6}]") for word in ("--listen", f"{address}:25")]
        self.process = world.spawn(sys.executable, "-m", "angarium.cli.main", "sink", *listen, "--json", *options)
        assert self.process.stderr is not None
        for _ in range(2):
            said = self.process.stderr.readline()
            assert "listening on" in said, said

    def end(self) -> dict[str, dict[str, int]]:
        """Client address -> its counts (measure/sources.py), once nothing more comes."""
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        sources: dict[str, dict[str, int]] = {}
        for receiver in json.loads(out.splitlines()[-1])["receivers"].values():
            for each in receiver["sources"]:
                assert each["source"] not in sources
                sources[each["source"]] = each
        return sources


@contextlib.contextmanager
def sink_in(world: Host, *options: str) -> Iterator[RunningSink]:
    sink = RunningSink(world, *options)
    try:
        yield sink
    finally:
        sink.process.kill()
        sink.process.communicate()


def sources(*names: str, addresses: dict[str, str]) -> str:
    return "".join(
        f'[source.{name}]\naddress = {addresses[name]}\nehlo = "{name}.relay.example"\n' for name in names
    )


def pool(**weights: int) -> str:
    return f"[pool.default]\nsources = {{ {', '.join(f'{name} = {weight}' for name, weight in weights.items())} }}\n"


DUAL = {
    f"mail{number}": json.dumps([v4, v6]) for number, (v4, v6) in enumerate(zip(V4, V6, strict=True), start=1)
}


def send(relay: RelayProcess, count: int, domain: str, reverse_path: str = "me@x.example") -> None:
    with SmtpClient(relay.port) as client:
        for number in range(count):
            client.send(MESSAGE, f"u{number}@{domain}", reverse_path=reverse_path)


def delivered_by_source(relay: RelayProcess) -> Counter[str]:
    return Counter(event["source"] for event in relay.events("delivered"))


def family(address: str) -> int:
    return 6 if ":" in address else 4


def test_each_source_leaves_from_its_own_addresses_and_says_its_own_name(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    ours, world = hosts
    ours.add(*V4, *V6)
    names = ("mail1", "mail2", "mail3")
    config = sources(*names, addresses=DUAL) + pool(mail1=1, mail2=1, mail3=1) + NO_RETRY
    config += f"[shaping.default]\n{NOT_KEPT}"
    with hop_in(world, FIRST) as hop, hop_in(world, FIRST6) as hop6, relay_in(ours, tmp_path, config) as relay:
        for address, at, domain in ((V4, hop, "four.example"), (V6, hop6, "six.example")):
            expected = {
                (each, f"EHLO {name}.relay.example".encode()) for each, name in zip(address, names, strict=True)
            }
            # Drawn by the message's id: as many as it takes until each was.
            for _ in range(20):
                send(relay, 10, domain)
                wait_until_empty(relay)
                if set(at.hellos) == expected:
                    break
            assert set(at.hellos) == expected
        # What the log says of a source is what the other end sees of it.
        events = relay.events("delivered")
        for name, v4, v6 in zip(names, V4, V6, strict=True):
            own = [event for event in events if event["source"] == name]
            seen = Counter(address for address, _ in hop.hellos + hop6.hellos)
            assert seen[v4] + seen[v6] == len(own)


def test_a_sink_sees_each_source_as_often_as_its_weight_says(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    ours, world = hosts
    ours.add(*V4, *V6)
    config = sources("mail1", "mail2", "mail3", addresses=DUAL) + pool(mail1=6, mail2=3, mail3=1) + NO_RETRY
    with sink_in(world) as sink, relay_in(ours, tmp_path, config, workers=2) as relay:
        send(relay, 200, "four.example")
        send(relay, 200, "six.example")
        wait_until_empty(relay)
        by_source = delivered_by_source(relay)
        counts = sink.end()
    assert set(counts) == {*V4, *V6}
    for addresses in (V4, V6):
        first, second, third = (counts[each]["messages"] for each in addresses)
        assert first + second + third == 200
        # 120, 60 and 20 are expected; further off than six standard deviations is no chance.
        assert 78 <= first <= 162 and 21 <= second <= 99 and 1 <= third <= 46
    for name, v4, v6 in zip(("mail1", "mail2", "mail3"), V4, V6, strict=True):
        assert counts[v4]["messages"] + counts[v6]["messages"] == by_source[name]


def test_a_source_that_is_not_plumbed_is_out_until_its_address_comes(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    ours, world = hosts
    here, elsewhere = V4[0], V4[1]
    ours.add(here)
    addresses = {"mail1": f'"{here}"', "mail2": f'"{elsewhere}"'}
    config = sources("mail1", "mail2", addresses=addresses) + pool(mail1=1, mail2=3) + NO_RETRY
    config += f"[shaping.default]\n{NOT_KEPT}"
    reason = f"{elsewhere} is not an address of this machine"
    with hop_in(world, FIRST) as hop, relay_in(ours, tmp_path, config) as relay:
        send(relay, 30, "four.example")
        wait_until_empty(relay)
        assert {address for address, _ in hop.hellos} == {here}
        assert delivered_by_source(relay) == {"mail1": 30}
        assert {event["attempt"] for event in relay.events("delivered")} == {1}, "it was nobody's attempt"
        (event,) = relay.events("source-suspended")
        assert (event["source"], event["address"], event["reason"]) == ("mail2", elsewhere, reason)
        told = relay.command("sources")
        assert told.returncode == 1 and re.search(rf"{elsewhere} suspended for \S+: {reason}", told.stdout)
        told = relay.command("explain", "you@four.example")
        assert re.search(rf"source +mail2 \({elsewhere}\), weight 3.*suspended: {reason}", told.stdout), told.stdout
        assert re.search(r"source +mail1 .*weight 1: 100 % of the mail", told.stdout), told.stdout

        ours.add(elsewhere)
        wait_for(lambda: relay.events("source-resumed"), "it is found to be there again", 60)
        for _ in range(20):
            send(relay, 10, "four.example")
            wait_until_empty(relay)
            if elsewhere in {address for address, _ in hop.hellos}:
                break
        assert (elsewhere, b"EHLO mail2.relay.example") in hop.hellos
        assert relay.command("sources").returncode == 0

        ours.remove(elsewhere)
        before = relay.events("delivered")
        send(relay, 30, "four.example")
        wait_until_empty(relay)
        assert {event["source"] for event in relay.events("delivered")[len(before) :]} == {"mail1"}
        assert len(relay.events("source-suspended")) == 2
        assert not relay.events("deferred", "failed")


def test_mail_waits_when_no_source_is_plumbed_and_leaves_when_one_is(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    ours, world = hosts
    quick = '[queue.default]\nretry = { first = "1s", factor = 1.0, max = "1s", jitter = 0.0 }\n'
    config = sources("mail1", addresses={"mail1": f'"{V4[0]}"'}) + pool(mail1=1) + quick
    with hop_in(world, FIRST) as hop, relay_in(ours, tmp_path, config) as relay:
        send(relay, 3, "four.example")
        wait_for(lambda: len(relay.events("deferred")) >= 3, "all are deferred")
        for event in relay.events("deferred"):
            assert event["status"] == "4.3.5"
            assert f"source mail1 {V4[0]} is not an address of this machine" in event["reply"]
        ours.add(V4[0])
        hop.wait_for_count(3, 60)
        assert {address for address, _ in hop.hellos} == {V4[0]}
        wait_until_empty(relay)


def test_a_source_of_one_family_uses_hosts_of_that_family_only(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    ours, world = hosts
    ours.add(V4[0], V6[0])
    config = sources("four", "six", addresses={"four": f'"{V4[0]}"', "six": f'"{V6[0]}"'})
    for name in ("four", "six"):
        config += f'[pool.{name}]\nsources = {{ {name} = 1 }}\n[[egress]]\npool = "{name}"\nsender = "{name}.org"\n'
    config += NO_RETRY
    with hop_in(world, FIRST) as hop, hop_in(world, FIRST6) as hop6, relay_in(ours, tmp_path, config) as relay:
        # One host with addresses of both; two hosts with one each, of which IPv6 has the better preference.
        for domain in ("both.example", "apart.example"):
            send(relay, 5, domain, "me@four.org")
            send(relay, 5, domain, "me@six.org")
        wait_until_empty(relay)
        assert {address for address, _ in hop.hellos} == {V4[0]}
        assert {address for address, _ in hop6.hellos} == {V6[0]}
        assert len(hop.deliveries) == len(hop6.deliveries) == 10
        assert all(b"@four.org>" in each.mail for each in hop.deliveries)
        assert all(b"@six.org>" in each.mail for each in hop6.deliveries)

        # The only host has no address that the source could reach.
        send(relay, 1, "six.example", "me@four.org")
        send(relay, 1, "four.example", "me@six.org")
        wait_for(lambda: len(relay.events("deferred")) == 2, "both wait")
        assert {(event["source"], event["status"]) for event in relay.events("deferred")} == {
            ("four", "4.4.4"),
            ("six", "4.4.4"),
        }
        assert len(hop.deliveries) == len(hop6.deliveries) == 10


@pytest.mark.parametrize(
    ("wanted", "used", "when_gone"), [("prefer-ipv4", 4, 6), ("prefer-ipv6", 6, 4), ("ipv4", 4, 0), ("ipv6", 6, 0)]
)
def test_the_family_is_the_one_that_shaping_asks_for(
    hosts: tuple[Host, Host], tmp_path: Path, wanted: str, used: int, when_gone: int
) -> None:
    """when_gone: what is used when nothing leads to the address of that family any more; 0: nothing is."""
    ours, world = hosts
    ours.add(V4[0], V6[0])
    config = sources("mail1", addresses=DUAL) + pool(mail1=1) + NO_RETRY
    config += f'[shaping.default]\naddress_family = "{wanted}"\n{NOT_KEPT}'
    with hop_in(world, FIRST) as hop, hop_in(world, FIRST6) as hop6, relay_in(ours, tmp_path, config) as relay:
        send(relay, 6, "both.example")
        wait_until_empty(relay)
        assert {family(address) for address, _ in hop.hellos + hop6.hellos} == {used}
        ours.refuse({4: FIRST, 6: FIRST6}[used], "unreachable")
        before = len(hop.hellos + hop6.hellos)
        send(relay, 1, "both.example")
        wait_for(lambda: relay.events("deferred") or len(relay.events("delivered")) == 7, "an outcome")
        now = {family(address) for address, _ in (hop6.hellos if used == 4 else hop.hellos)}
        if when_gone:
            wait_until_empty(relay)
            assert now == {when_gone} and not relay.events("deferred")
        else:
            assert not now and relay.events("deferred")[0]["status"] == "4.4.1"
            assert len(hop.hellos + hop6.hellos) == before


def test_connections_of_each_source_to_a_site_are_as_many_as_it_may_have_over_two_workers(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    """The limit is as the site sees it: by address, whatever process connects."""
    ours, world = hosts
    ours.add(*V4[:2])
    addresses = {"mail1": f'"{V4[0]}"', "mail2": f'"{V4[1]}"'}
    config = sources("mail1", "mail2", addresses=addresses) + pool(mail1=1, mail2=1) + NO_RETRY
    config += "[shaping.source.mail1]\nconnections = 3\n[shaping.source.mail2]\nconnections = 1\n"
    # Replies come late, so that more connections would be of use all the time.
    with sink_in(world, "--delay", "*=0.01-0.03") as sink, relay_in(ours, tmp_path, config, workers=2) as relay:
        with contextlib.ExitStack() as stack:
            for client in [stack.enter_context(SmtpClient(relay.port)) for _ in range(16)]:
                for number in range(15):
                    client.send(MESSAGE, f"u{number}@four.example")
        wait_until_empty(relay, 60)
        assert len({event["id"][:2] for event in relay.events("delivered")}) == 2, "both workers had mail"
        counts = sink.end()
    assert {address: each["open"] for address, each in counts.items()} == {V4[0]: 3, V4[1]: 1}
    assert sum(each["messages"] for each in counts.values()) == 240


@pytest.mark.parametrize("kind", ["no route", "unreachable", "blackhole"])
def test_a_host_without_a_way_to_it_is_passed_over_and_comes_back(
    hosts: tuple[Host, Host], tmp_path: Path, kind: str
) -> None:
    ours, world = hosts
    ours.add(V4[0])
    config = sources("mail1", addresses={"mail1": f'"{V4[0]}"'}) + pool(mail1=1) + NO_RETRY
    config += f"[shaping.default]\n{NOT_KEPT}"

    def lose(address: str) -> None:
        if kind == "no route":
            ours.forget(address)
        else:
            ours.refuse(address, kind)

    with hop_in(world, FIRST) as first, hop_in(world, SECOND) as second, relay_in(ours, tmp_path, config) as relay:
        send(relay, 1, "two.example")
        first.wait_for_count(1)
        lose(FIRST)
        send(relay, 1, "two.example")
        second.wait_for_count(1)
        wait_until_empty(relay)
        assert [event["attempt"] for event in relay.events("delivered")] == [1, 1], "within one attempt"
        # It is remembered: nobody asks for it again at once, though it is there.
        ours.restore(FIRST)
        send(relay, 2, "two.example")
        second.wait_for_count(3)
        assert len(first.deliveries) == 1
        # Remembered as last, and not as gone: where there is nobody else it is tried, and is as good as before.
        lose(SECOND)
        send(relay, 1, "two.example")
        first.wait_for_count(2)
        ours.restore(SECOND)
        send(relay, 3, "two.example")
        first.wait_for_count(5)
        wait_until_empty(relay)
        assert len(second.deliveries) == 3
        assert not relay.events("deferred", "failed", "source-suspended")


def test_nothing_is_left_of_hosts_whose_test_is_killed(tmp_path: Path) -> None:
    """A process of a test's own makes two hosts with a program in one of them, and is killed: it takes both with it."""
    with cable():
        pass        # skips where there are none
    script = (
        "import sys\n"
        "from interop.namespaces import cable\n"
        "with cable() as (ours, world):\n"
        "    ours.add('192.0.2.1')\n"
        "    print(ours.spawn('sleep', '600').pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": tests},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        process.kill()
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "it is gone, and the namespace with it")
