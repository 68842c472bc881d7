"""MTA-STS: texts, fetching over HTTPS, and what is known of a domain over time, restarts and workers (RFC 8461)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from dns_table import DnsTable
from tls import authority

from angarium.model.plan import Published, StsRule
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router
from angarium.tls.sts_fetch import POLICY_OCTETS
from angarium.tls.sts_policies import Finding, StsPolicies
from angarium.tls.sts_policy import StsPolicy, id_of_records, parse_policy

RECORDS: list[tuple[list[str], str | None]] = [
    (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
    (["v=STSv1;id=1"], "1"),
    (["v=STSv1 ; x=y; id=1; z=w;"], "1"),
    (["v=spf1 -all", "v=STSv1; id=1;"], "1"),
    (["v=STSv1; id=1;", "v=STSv1; id=2;"], None),       # §3.1: more than one: none
    (["v=STSv1"], None), (["v=STSv1; id=;"], None), (["v=STSv1; id=a-b;"], None), (["v=STSv1; id=" + "1" * 33], None),
    (["v=STSv2; id=1;"], None), (["id=1; v=STSv1;"], None), (["V=STSv1; id=1;"], None), ([], None),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "expected"), RECORDS)
def test_what_a_txt_record_announces(texts: list[str], expected: str | None) -> None:
    assert id_of_records(texts) == expected


POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.d.example\r\nmx: *.mail.example\r\nmax_age: 86400\r\n"
READ: list[tuple[str, bytes, StsPolicy]] = [
    ("as in the RFC", POLICY, StsPolicy("enforce", ("mx.d.example", "*.mail.example"), 86400)),
    ("LF alone, no end of line", POLICY.replace(b"\r", b"").rstrip(),
     StsPolicy("enforce", ("mx.d.example", "*.mail.example"), 86400)),
    ("any order, unknown keys, blanks", b"max_age:1\nx: y\nmx:\tMX.D.Example \nmode:testing\nversion:STSv1\n\n",
     StsPolicy("testing", ("mx.d.example",), 1)),
    ("§3.2: the first counts", b"version: STSv1\nmode: none\nmode: enforce\nmax_age: 9\nmax_age: 8\n",
     StsPolicy("none", (), 9)),
    ("a year at most", b"version: STSv1\nmode: none\nmax_age: 9999999999\n", StsPolicy("none", (), 31_557_600)),
]
REFUSED = [
    (b"", "version is not STSv1"), (POLICY.replace(b"STSv1", b"STSv2"), "version is not STSv1"),
    (POLICY.replace(b"enforce", b"strict"), "mode is none of"),
    (POLICY.replace(b"86400", b"1d"), "max_age is no number"),
    (POLICY.replace(b"86400", b"-1"), "max_age is no number"),
    (b"version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx"),
    (POLICY.replace(b"*.mail", b"a*.mail"), "neither a name"), (POLICY + b"<html>\n", 'line 6 is no "key: value"'),
    (POLICY + b"\xff", "not UTF-8"), (POLICY + b"mx: a.example\n" * 99, "more than 100 mx"),
]  # fmt: skip


@pytest.mark.parametrize(("octets", "expected"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_a_policy_is_read(octets: bytes, expected: StsPolicy) -> None:
    assert parse_policy(octets) == expected


@pytest.mark.parametrize(("octets", "words"), REFUSED)
def test_a_policy_that_is_none_is_refused_with_the_reason(octets: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_policy(octets)


class Web:
    """An HTTPS server that says whatever it is told to. requests: first line and Host of each."""

    def __init__(self) -> None:
        self.content = POLICY
        self.head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
        self.requests: list[str] = []
        self.is_silent = False
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            host = next(line for line in lines if line.lower().startswith("host:"))
            self.requests.append(f"{lines[0]} {host.partition(' ')[2]}")
            if self.is_silent:
                await reader.read()
            writer.write(self.head + b"Content-Length: %d\r\n\r\n" % len(self.content) + self.content)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def web(name: str = "mta-sts.d.example", ca: str = "authority") -> AsyncIterator[Web]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.certificate(name, ca=ca).configure_cert(tls)
    self = Web()
    server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls)
    self.port = server.sockets[0].getsockname()[1]
    try:
        yield self
    finally:
        server.close()


class Time:
    mono, utc = 1000.0, 1_700_000_000.0

    def advance(self, seconds: float) -> None:
        self.mono += seconds
        self.utc += seconds


class Bench:
    """Policies over a table of DNS and a web server; more() is another worker, or one after a restart."""

    def __init__(self, folder: Path, server: Web) -> None:
        self.folder, self.server = folder, server
        self.time = Time()
        self.dns = DnsTable({"mta-sts.d.example A": "127.0.0.1"})
        self.reports: list[str] = []
        self.all: list[StsPolicies] = []
        self.policies = self.more()
        self.announce("1")

    def announce(self, id_: str | None) -> None:
        self.dns.rows.pop("_mta-sts.d.example TXT", None)
        if id_ is not None:
            self.dns.rows["_mta-sts.d.example TXT"] = id_ if id_.isupper() else f"v=STSv1; id={id_};"

    def more(self, *, is_read_only: bool = False) -> StsPolicies:
        self.all.append(
            StsPolicies(
                self.dns, str(self.folder / "mta-sts.db"), authority.write_authority(self.folder),
                lambda domain, reason: self.reports.append(f"{domain}: {reason}"), port=self.server.port,
                clock=lambda: self.time.mono, utc=lambda: self.time.utc, is_read_only=is_read_only,
            )
        )  # fmt: skip
        return self.all[-1]

    async def find(self) -> Finding:
        return await self.policies.find("d.example")


def on_a_bench(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test, assigned=("__name__", "__doc__"), updated=())
    def wrapper(tmp_path: Path) -> None:
        async def main() -> None:
            async with asyncio.timeout(30), web() as server:
                bench = Bench(tmp_path, server)
                try:
                    await test(bench)
                finally:
                    for each in bench.all:
                        await each.close()

        uvloop.run(main())

    del wrapper.__wrapped__  # type: ignore[attr-defined]
    return wrapper


ENFORCE = StsRule("enforce", ("mx.d.example", "*.mail.example"))


@on_a_bench
async def test_a_policy_is_fetched_once_and_kept(bench: Bench) -> None:
    for _ in range(3):
        assert (await bench.find()).rule == ENFORCE
    assert bench.server.requests == ["GET /.well-known/mta-sts.txt HTTP/1.1 mta-sts.d.example"]


@on_a_bench
async def test_look_ups_that_meet_are_one_fetch(bench: Bench) -> None:
    found = await asyncio.gather(*(bench.find() for _ in range(20)))
    assert {each.rule for each in found} == {ENFORCE}
    assert len(bench.server.requests) == 1


@on_a_bench
async def test_without_a_record_nothing_is_fetched(bench: Bench) -> None:
    for answer in (None, "NODATA", "SERVFAIL", "TIMEOUT"):
        bench.announce(answer)
        assert (await bench.find()).rule is None
    assert not bench.server.requests


@on_a_bench
async def test_a_known_policy_holds_when_its_record_cannot_be_had(bench: Bench) -> None:
    """§3.1, §10.2: or whoever can take the record away has taken the policy away."""
    await bench.find()
    for answer in (None, "NODATA", "SERVFAIL"):
        bench.announce(answer)
        assert (await bench.find()).rule == ENFORCE
    bench.time.advance(86_401)
    assert (await bench.find()).rule is None        # max_age is over


@on_a_bench
async def test_a_new_id_is_a_new_policy(bench: Bench) -> None:
    await bench.find()
    bench.server.content = POLICY.replace(b"enforce", b"none")
    bench.announce("2")
    assert (await bench.find()).rule is None
    assert len(bench.server.requests) == 2


@on_a_bench
async def test_a_known_policy_holds_while_the_new_one_cannot_be_fetched(bench: Bench) -> None:
    await bench.find()
    bench.server.content = b"nonsense"
    bench.announce("2")
    found = await bench.find()
    assert found.rule == ENFORCE
    assert 'line 1 is no "key: value"' in found.detail
    assert len(bench.reports) == 1
    await bench.find()
    assert len(bench.server.requests) == 2          # not for every message
    bench.time.advance(301)
    bench.server.content = POLICY.replace(b"enforce", b"testing")
    rule = (await bench.find()).rule
    assert rule is not None
    assert rule.mode == "testing"


@on_a_bench
async def test_once_a_day_it_is_fetched_behind_the_mail(bench: Bench) -> None:
    bench.server.content = POLICY.replace(b"86400", b"604800")
    await bench.find()
    bench.time.advance(86_399)
    await bench.find()
    await asyncio.sleep(0)
    assert len(bench.server.requests) == 1
    bench.time.advance(2)
    bench.server.content = POLICY.replace(b"enforce", b"testing")
    assert (await bench.find()).rule == ENFORCE
    async with asyncio.timeout(10):
        while (await bench.find()).rule == ENFORCE:
            await asyncio.sleep(0.01)
    assert len(bench.server.requests) == 2


@on_a_bench
async def test_another_worker_and_a_restart_find_it(bench: Bench) -> None:
    other = bench.more()
    await bench.find()
    assert (await other.find("d.example")).rule == ENFORCE
    bench.announce(None)
    assert (await bench.more().find("d.example")).rule == ENFORCE
    assert len(bench.server.requests) == 1


@on_a_bench
async def test_a_command_sees_what_the_relay_keeps_and_changes_nothing(bench: Bench) -> None:
    assert (await bench.find()).rule == ENFORCE
    path = bench.folder / "mta-sts.db"
    before = path.read_bytes()
    bench.announce(None)
    assert (await bench.more(is_read_only=True).find("d.example")).rule == ENFORCE
    bench.announce("2")
    assert (await bench.more(is_read_only=True).find("d.example")).announced == "2"
    assert path.read_bytes() == before
    assert not bench.reports


@on_a_bench
async def test_a_file_that_is_no_store_is_set_aside_and_costs_a_fetch(bench: Bench) -> None:
    (bench.folder / "mta-sts.db").write_bytes(b"not a database" * 100)
    assert (await bench.find()).rule == ENFORCE
    assert any(report.startswith(": ") for report in bench.reports)
    assert (bench.folder / "mta-sts.db.damaged").exists()
    assert (await bench.more().find("d.example")).rule == ENFORCE
    assert len(bench.server.requests) == 1


@on_a_bench
async def test_what_is_not_a_policy_to_be_had(bench: Bench) -> None:
    ok = bench.server.head
    answers = [
        (b"HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.d.example/x\r\n", POLICY, "HTTP status 301"),
        (b"HTTP/1.1 404 Not Found\r\n", b"", "HTTP status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n", POLICY, "not text/plain"),
        (b"HTTP/1.1 200 OK\r\n", POLICY, "not text/plain"),
        (ok, b"#" * (POLICY_OCTETS + 1), "more than 64 KiB"),
        (b"220 mail.example ESMTP\r\n", b"", "ProtocolError"),
    ]
    for number, (head, content, words) in enumerate(answers):
        bench.server.head, bench.server.content = head, content
        bench.announce(str(number + 10))
        found = await bench.find()
        assert found.rule is None
        assert words in found.detail
    assert len(bench.server.requests) == len(answers)       # no redirect was followed


@pytest.mark.parametrize(
    ("name", "ca"), [("d.example", "authority"), ("mta-sts.e.example", "authority"), ("mta-sts.d.example", "stranger")]
)
def test_a_certificate_that_is_not_the_policy_hosts(tmp_path: Path, name: str, ca: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), web(name, ca) as server:
            bench = Bench(tmp_path, server)
            found = await bench.find()
            assert found.rule is None
            assert "certificate verify failed" in found.detail
            assert not server.requests
            await bench.policies.close()

    uvloop.run(main())


@on_a_bench
async def test_a_slow_server_holds_up_no_other_domain(bench: Bench) -> None:
    bench.server.is_silent = True
    slow = asyncio.create_task(bench.find())
    bench.dns.rows["_mta-sts.e.example TXT"] = "NODATA"
    while not bench.server.requests:
        await asyncio.sleep(0.01)
    assert (await bench.policies.find("e.example")).rule is None
    assert not slow.done()
    slow.cancel()


@on_a_bench
async def test_who_does_not_want_to_wait_is_told_what_for(bench: Bench) -> None:
    bench.server.is_silent = True
    waiting = await bench.policies.look("d.example")
    assert isinstance(waiting, asyncio.Task)
    assert await bench.policies.look("d.example") is waiting
    waiting.cancel()
    await asyncio.wait([waiting])
    found = await bench.policies.look("d.example", waiting)
    assert isinstance(found, Finding) and found.rule is None


@on_a_bench
async def test_who_announces_another_id_each_time_is_waited_for_once(bench: Bench) -> None:
    for number in range(3):
        bench.announce(str(number))
        asking = asyncio.create_task(bench.find())
        while len(bench.server.requests) <= number:
            await asyncio.sleep(0.001)
        bench.announce(f"{number}a")
        assert (await asking).rule == ENFORCE
    assert len(bench.server.requests) == 3


@on_a_bench
async def test_a_change_is_told_once_and_a_first_contact_is_none(bench: Bench) -> None:
    changes: list[tuple[str, StsRule | None]] = []

    def changed(domain: str) -> None:
        policy = bench.policies.remembered(domain)
        changes.append((domain, None if policy is None else policy.rule))

    bench.policies.on_change = changed
    await bench.find()
    assert changes == [], "nobody has planned without"
    bench.announce("2")
    await bench.find()
    assert changes == [], "it says the same"
    bench.server.content = POLICY.replace(b"enforce", b"none")
    bench.announce("3")
    await bench.find()
    bench.server.content = POLICY
    bench.announce("4")
    await bench.find()
    assert changes == [("d.example", None), ("d.example", ENFORCE)]


@on_a_bench
async def test_a_policy_that_comes_after_a_failure_is_a_change(bench: Bench) -> None:
    changes: list[str] = []
    bench.policies.on_change = changes.append
    bench.server.content = b"nonsense"
    assert (await bench.find()).rule is None
    bench.server.content = POLICY
    bench.time.advance(301)
    assert (await bench.find()).rule == ENFORCE
    assert changes == ["d.example"]


@on_a_bench
async def test_a_plan_that_was_kept_holds_no_longer_than_what_it_was_made_by(bench: Bench) -> None:
    bench.dns.rows |= {"d.example MX": "10 mx.d.example", "mx.d.example A": "192.0.2.1"}
    router = Router([], bench.dns, Ourselves(["relay.example"], []), sts=bench.policies, clock=lambda: 0.0)
    bench.announce(None)
    assert (await router.plan(b"d.example")).site.sts is None
    assert router.plan_now(b"d.example") is not None
    bench.announce("1")
    assert (await bench.find()).rule == ENFORCE         # asked for by another plan, or by a person
    assert router.plan_now(b"d.example") is None
    assert (await router.plan(b"d.example")).site.sts == ENFORCE
    assert router.plan_now(b"d.example") is not None


@on_a_bench
async def test_a_policy_that_holds_for_no_time_holds_for_who_has_waited_for_it(bench: Bench) -> None:
    bench.server.content = POLICY.replace(b"86400", b"0")
    assert (await bench.find()).rule == ENFORCE
    assert (await bench.find()).rule == ENFORCE
    assert len(bench.server.requests) == 2


@on_a_bench
async def test_a_domain_whose_policy_is_not_heeded_is_not_asked_and_its_plan_holds(bench: Bench) -> None:
    """Even where the policy is known, from before a reload: its plan would never be found to go by it."""
    assert (await bench.find()).rule == ENFORCE
    bench.dns.rows |= {"d.example MX": "10 mx.d.example", "mx.d.example A": "192.0.2.1"}
    bench.dns.asked.clear()
    router = Router(
        [], bench.dns, Ourselves(["relay.example"], []), sts=bench.policies, clock=lambda: 0.0,
        published=lambda site, domain: Published(tlsa=True, sts=domain != b"d.example"),
    )  # fmt: skip
    assert (await router.plan(b"d.example")).site.sts is None
    assert router.plan_now(b"d.example") is not None
    assert not any(each.startswith("_mta-sts") for each in bench.dns.asked)
