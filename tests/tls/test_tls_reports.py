"""Reports about TLS: who wants them, what they say, and the file that outcomes wait in."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import gzip
import json
import random
import sqlite3
import ssl
from pathlib import Path
from typing import Any

import pytest
from dns_table import DnsTable
from tls.authority import certificate

from angarium.outbound.tls_reports import TlsReporter
from angarium.tls.report_counts import TlsCounts
from angarium.tls.report_options import TlsReportOptions
from angarium.tls.report_outcome import ReportedPolicy, TlsOutcome, result_of_certificate
from angarium.tls.report_record import places_of_records
from angarium.tls.report_store import DAY_S, TlsReportStore
from angarium.tls.report_text import compose

OPTIONS = TlsReportOptions(
    enabled=True, organization_name="Example Net", contact="tls@example.net", sender="tlsrpt@example.net"
)
DAY = 20_000
MIDNIGHT = (DAY + 1) * DAY_S
STS = ReportedPolicy("sts", "y.example", ("version: STSv1", "mode: testing", "mx: *.y.example"), ("*.y.example",))
BARE = ReportedPolicy("no-policy-found", "y.example")
GOOD = TlsOutcome("y.example", STS)
BAD = TlsOutcome("y.example", STS, "certificate-expired", "mx.y.example", "192.0.2.1", "198.51.100.7", "has expired")


@pytest.mark.parametrize(
    ("records", "places"),
    [
        (["v=TLSRPTv1; rua=mailto:tls@y.example"], ("mailto:tls@y.example",)),
        (["v=TLSRPTv1;rua=mailto:a@y.example,https://r.y.example/v1 ;"], ("mailto:a@y.example", "https://r.y.example/v1")),
        (["v=TLSRPTv1; other=x; rua=https://r.y.example/"], ("https://r.y.example/",)),
        (["v=TLSRPTv1; rua=mailto:a%2Cb@y.example"], ()),       # a comma is no part of a dot-atom
        (["v=TLSRPTv1; rua=mailto:a%0D%0ADATA@y.example"], ()),
        (["v=TLSRPTv1; rua=http://r.y.example/"], ()),          # §3: https only
        (["v=TLSRPTv1; rua=https:///x"], ()),
        (["v=TLSRPTv1; rua=https://u@r.y.example/"], ()),
        (["v=TLSRPTv1"], ()),
        (["v=TLSRPTv10; rua=mailto:a@y.example"], ()),
        (["v=TLSRPTv1; rua=mailto:a@y.example", "v=TLSRPTv1; rua=mailto:b@y.example"], ()),     # §3: several are none
        (["v=spf1 -all", "v=TLSRPTv1; rua=mailto:b@y.example"], ("mailto:b@y.example",)),
        ([], ()),
    ],
)
def test_where_a_record_wants_reports(records: list[str], places: tuple[str, ...]) -> None:
    assert places_of_records(records) == places


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        ("certificate verify failed: hostname mismatch", "certificate-host-mismatch"),
        ("IP address mismatch", "certificate-host-mismatch"),
        ("certificate verify failed: certificate has expired", "certificate-expired"),
        ("certificate is not yet valid", "certificate-expired"),
        ("certificate verify failed: unable to get local issuer certificate", "certificate-not-trusted"),
        ("self-signed certificate", "certificate-not-trusted"),
        ("certificate verify failed: no matching DANE TLSA records", "validation-failure"),
    ],
)
def test_what_openssl_says_has_a_name_of_the_rfc(reason: str, result: str) -> None:
    assert result_of_certificate(reason) == result


def counted(path: Path, *outcomes: TlsOutcome, day: int = DAY) -> None:
    store = TlsReportStore(str(path))
    store.add(day, [(each, 1) for each in outcomes])
    store.close()


def test_equal_outcomes_are_one_row_over_workers_and_restarts(tmp_path: Path) -> None:
    path = tmp_path / "reports.db"

    async def main() -> None:
        for _ in range(2):
            counts = TlsCounts(asyncio.get_running_loop(), str(path), lambda reason: None, lambda: DAY * DAY_S + 5.0)
            for outcome in (GOOD, GOOD, BAD):
                counts.note(outcome)
            await counts.close()

    asyncio.run(main())
    store = TlsReportStore(str(path))
    assert {each.outcome: each.count for each in store.outcomes(DAY, "y.example")} == {GOOD: 4, BAD: 2}
    assert [(each.day, each.good, each.bad) for each in store.summaries()] == [(DAY, 4, 2)]
    store.close()


def test_a_file_that_cannot_be_written_is_told_and_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[str] = []
        path = tmp_path / "gone" / "reports.db"
        counts = TlsCounts(asyncio.get_running_loop(), str(path), told.append, lambda: DAY * DAY_S + 5.0)
        counts.note(GOOD)
        await counts.flush()
        assert "No such file" in told[0]
        path.parent.mkdir()
        await counts.close()
        store = TlsReportStore(str(path))
        assert store.summaries()[0].good == 1
        store.close()

    asyncio.run(main())


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "reports.db"
    path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        counted(path, GOOD)
    counted(path, GOOD)
    assert path.with_name("reports.db.damaged").exists()


def test_a_worker_that_sees_the_damage_late_keeps_what_others_have_counted_since(tmp_path: Path) -> None:
    path = tmp_path / "reports.db"
    one, other = TlsReportStore(str(path)), TlsReportStore(str(path))
    for store in (one, other):
        store.add(DAY, [(BAD, 1)])
    path.write_bytes(b"no database at all, " * 2000)
    path.with_name("reports.db-wal").write_bytes(b"")
    # A log cut short is no proof yet: an I/O error closes the file, and what is read of it next tells.
    for _ in range(2):
        with contextlib.suppress(sqlite3.DatabaseError):
            one.outcomes(DAY, "y.example")
    assert path.with_name("reports.db.damaged").exists()
    one.add(DAY, [(GOOD, 1)])
    with contextlib.suppress(sqlite3.DatabaseError):
        other.outcomes(DAY, "y.example")
    one.close()
    other.close()
    store = TlsReportStore(str(path))
    assert [(each.outcome, each.count) for each in store.outcomes(DAY, "y.example")] == [(GOOD, 1)]
    store.close()


@pytest.mark.parametrize("method", ["done", "hurry"])
def test_whatever_finds_the_damage_sets_the_file_aside(tmp_path: Path, method: str) -> None:
    path = tmp_path / "reports.db"
    path.write_bytes(b"no database at all, " * 100)
    store = TlsReportStore(str(path))
    with pytest.raises(sqlite3.DatabaseError):
        store.done(DAY, "y.example", ()) if method == "done" else store.hurry("", MIDNIGHT)
    assert path.with_name("reports.db.damaged").exists()


def test_what_a_report_says(tmp_path: Path) -> None:
    """RFC 8460 §4.4 and Appendix B, key by key."""
    path = tmp_path / "reports.db"
    in_clear = TlsOutcome("y.example", BARE, "starttls-not-supported", "old.y.example", "192.0.2.2")
    counted(path, GOOD, GOOD, BAD, in_clear)
    store = TlsReportStore(str(path))
    report = compose(
        OPTIONS, domain="y.example", day=DAY, now_utc_s=MIDNIGHT + 500, unique="5065427c",
        counted=store.outcomes(DAY, "y.example"),
    )  # fmt: skip
    store.close()
    assert report.file_name == f"example.net!y.example!{DAY * DAY_S}!{MIDNIGHT - 1}!5065427c.json.gz"
    policies = json.loads(gzip.decompress(report.content))["policies"]
    bare, sts = sorted(policies, key=lambda each: str(each["policy"]["policy-type"]))
    assert sts == {
        "policy": {
            "policy-type": "sts",
            "policy-string": ["version: STSv1", "mode: testing", "mx: *.y.example"],
            "policy-domain": "y.example",
            "mx-host": ["*.y.example"],
        },
        "summary": {"total-successful-session-count": 2, "total-failure-session-count": 1},
        "failure-details": [
            {
                "result-type": "certificate-expired",
                "sending-mta-ip": "198.51.100.7",
                "receiving-mx-hostname": "mx.y.example",
                "receiving-ip": "192.0.2.1",
                "failed-session-count": 1,
                "failure-reason-code": "has expired",
            }
        ],
    }
    assert bare["policy"] == {"policy-type": "no-policy-found", "policy-domain": "y.example"}
    assert "sending-mta-ip" not in bare["failure-details"][0]
    head = json.loads(gzip.decompress(report.content))
    assert head["organization-name"] == "Example Net"
    assert head["contact-info"] == "tls@example.net"
    assert head["date-range"] == {"start-datetime": "2024-10-04T00:00:00Z", "end-datetime": "2024-10-04T23:59:59Z"}


class Desk:
    """A TlsReporter with a clock and a name server of the test's; mails go into a list, events too."""

    def __init__(self, path: Path, rows: dict[str, str], tls: ssl.SSLContext | None = None) -> None:
        self.now = float(MIDNIGHT)
        self.mails: list[tuple[str, bytes]] = []
        self.events: list[dict[str, Any]] = []
        self.mail_fails = 0
        self.dns = DnsTable(rows)
        self.path = path
        self.reporter = TlsReporter(
            str(path), OPTIONS, hostname="mx1.example.net", resolver=self.dns, mail=self._mail, journal=self,  # type: ignore[arg-type]
            utc=lambda: self.now, chance=random.Random(5), tls=tls, allow_private=True,
        )  # fmt: skip

    def log(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    async def _mail(self, to: str, content: bytes) -> None:
        if self.mail_fails:
            self.mail_fails -= 1
            raise OSError(28, "No space left on device")
        self.mails.append((to, content))

    async def until(self, utc_s: float, step_s: float = 60.0) -> None:
        while self.now < utc_s:
            self.now += step_s
            await self.reporter.turn()

    def waiting(self) -> list[tuple[int, str]]:
        store = TlsReportStore(str(self.path))
        try:
            return [(each.day, each.domain) for each in store.summaries()]
        finally:
            store.close()


RUA = "v=TLSRPTv1; rua=mailto:tls@{}"


def test_reports_leave_behind_the_day_at_times_of_their_own(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "reports.db"
        domains = [f"d{number}.example" for number in range(30)]
        counted(path, *(TlsOutcome(domain, BARE) for domain in domains))
        counted(path, TlsOutcome("today.example", BARE), day=DAY + 1)
        desk = Desk(path, {f"_smtp._tls.{domain} TXT": RUA.format(domain) for domain in (*domains, "today.example")})
        times: dict[str, float] = {}
        desk.now -= 3600
        while desk.now < MIDNIGHT + 5 * 3600:
            await desk.until(desk.now + 60)
            for to, _ in desk.mails[len(times) :]:
                times[to] = desk.now - MIDNIGHT
        assert set(times) == {f"tls@{domain}" for domain in domains}
        assert min(times.values()) > 300, "the last counts of the day are in"
        assert max(times.values()) < 4 * 3600 + 500
        assert len({round(each / 1800) for each in times.values()}) > 4, "not all at once"
        assert desk.waiting() == [(DAY + 1, "today.example")], "what was told is forgotten, today waits"
        await desk.reporter.close()

    asyncio.run(main())


def test_the_message_is_as_the_rfc_has_it(tmp_path: Path) -> None:
    """RFC 8460 §5.3, read by Python's own parser."""

    async def main() -> None:
        path = tmp_path / "reports.db"
        counted(path, GOOD, BAD)
        desk = Desk(path, {"_smtp._tls.y.example TXT": RUA.format("y.example")})
        await desk.until(MIDNIGHT + 5 * 3600)
        await desk.reporter.close()
        ((to, content),) = desk.mails
        assert to == "tls@y.example"
        assert all(len(line) <= 998 for line in content.split(b"\r\n"))
        assert b"\n" not in content.replace(b"\r\n", b"")
        parsed = email.message_from_bytes(content, policy=email.policy.default)
        assert parsed.get_content_type() == "multipart/report"
        assert parsed.get_param("report-type") == "tlsrpt"
        assert parsed["TLS-Report-Domain"] == "y.example"
        assert parsed["TLS-Report-Submitter"] == "example.net"
        assert parsed["TLS-Required"] == "No"
        assert parsed["From"] == "tlsrpt@example.net"
        subject = str(parsed["Subject"]).split()
        assert subject[:5] == ["Report", "Domain:", "y.example", "Submitter:", "example.net"]
        text, report = parsed.iter_parts()  # type: ignore[attr-defined]
        assert text.get_content_type() == "text/plain"
        assert report.get_content_type() == "application/tlsrpt+gzip"
        assert report.get_filename().startswith(f"example.net!y.example!{DAY * DAY_S}!{MIDNIGHT - 1}!")
        document = json.loads(gzip.decompress(report.get_content()))
        assert f"<{document['report-id']}>" == subject[-1]
        assert not parsed.defects and not text.defects and not report.defects

    asyncio.run(main())


def test_who_wants_none_is_asked_once_and_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "reports.db"
        counted(path, GOOD)
        desk = Desk(path, {})
        await desk.until(MIDNIGHT + 5 * 3600)
        assert not desk.mails and not desk.waiting()
        assert [each for each in desk.dns.asked if "TXT" in each] == ["_smtp._tls.y.example TXT"]
        await desk.reporter.close()

    asyncio.run(main())


def test_what_cannot_be_sent_is_tried_again_and_given_up_in_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "reports.db"
        counted(path, GOOD)
        desk = Desk(path, {"_smtp._tls.y.example TXT": RUA.format("y.example")})
        desk.mail_fails = 3
        await desk.until(MIDNIGHT + 8 * 3600)
        assert len(desk.mails) == 1
        assert [each["event"] for each in desk.events] == ["tls-report-failed"] * 3 + ["tls-report-sent"]
        assert desk.events[0]["reason"] == "[Errno 28] No space left on device"
        counted(path, GOOD, day=DAY + 1)
        desk.mail_fails = 1000
        await desk.until(MIDNIGHT + 4 * DAY_S, step_s=600)
        assert len(desk.mails) == 1 and not desk.waiting(), "RFC 8460 §5.5: a day, and no longer"
        assert 5 < len(desk.events) - 4 < 30
        await desk.reporter.close()

    asyncio.run(main())


def test_a_report_that_cannot_be_made_keeps_no_other_back(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "reports.db"
        counted(path, GOOD, TlsOutcome("z.example", ReportedPolicy("no-policy-found", "z.example")))
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE outcome SET policy = '{' WHERE domain = 'y.example'")
        desk = Desk(path, {f"_smtp._tls.{name} TXT": RUA.format(name) for name in ("y.example", "z.example")})
        await desk.until(MIDNIGHT + 8 * 3600)
        assert [to for to, _ in desk.mails] == ["tls@z.example"]
        told = [each for each in desk.events if each["event"] == "tls-report-failed"]
        assert {each["domain"] for each in told} == {"y.example"} and 2 < len(told) < 10, "later and later"
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("INSERT INTO report (day, domain, due, sent) VALUES (1, 'x.example', 0, '{')")
        assert not await desk.reporter.turn()
        assert "Expected `array`" in desk.events[-1]["reason"]
        await desk.reporter.close()

    asyncio.run(main())


def test_name_servers_that_are_down_cost_no_report(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "reports.db"
        counted(path, GOOD)
        desk = Desk(path, {"_smtp._tls.y.example TXT": "SERVFAIL"})
        await desk.until(MIDNIGHT + 6 * 3600)
        assert desk.waiting()
        desk.dns.rows["_smtp._tls.y.example TXT"] = RUA.format("y.example")
        await desk.until(MIDNIGHT + 14 * 3600)
        assert len(desk.mails) == 1
        await desk.reporter.close()

    asyncio.run(main())


def test_a_report_asked_for_at_once_leaves_the_rest_of_the_day_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "reports.db"
        counted(path, GOOD, BAD, day=DAY + 1)
        desk = Desk(path, {"_smtp._tls.y.example TXT": RUA.format("y.example")})
        desk.now += 3600
        store = TlsReportStore(str(path))
        assert store.hurry("other.example", int(desk.now)) == 0
        assert store.hurry("y.example", int(desk.now)) == 1
        await desk.reporter.turn()
        assert len(desk.mails) == 1 and not desk.waiting()
        counted(path, GOOD, day=DAY + 1)
        await desk.until(MIDNIGHT + DAY_S + 5 * 3600, step_s=600)
        assert len(desk.mails) == 2
        store.close()
        await desk.reporter.close()

    asyncio.run(main())


def server(status: list[bytes]) -> tuple[Any, list[bytes]]:
    """An HTTPS server that nobody vouches for; answers with each status, what it is sent is kept."""
    taken: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        content = await reader.readexactly(length)
        line = status.pop(0)
        if line.startswith(b"2"):
            taken.append(head + content)
        writer.write(b"HTTP/1.1 " + line + b"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    return serve, taken


def test_a_report_is_posted_until_it_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate("somebody.else.example", ca="stranger").configure_cert(context)
        status = [b"503 busy", b"429 slowly", b"201 Created"]
        serve, taken = server(status)
        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        path = tmp_path / "reports.db"
        counted(path, GOOD, BAD)
        record = f"v=TLSRPTv1; rua=https://r.y.example:{port}/v1?x=1,mailto:tls@y.example"
        desk = Desk(path, {"_smtp._tls.y.example TXT": record, "r.y.example A": "127.0.0.1"})
        await desk.until(MIDNIGHT + 8 * 3600)
        assert not status and not desk.waiting()
        assert taken[0].startswith(b"POST /v1?x=1 HTTP/1.1\r\n")
        assert b"application/tlsrpt+gzip" in taken[0]
        assert json.loads(gzip.decompress(taken[0].partition(b"\r\n\r\n")[2]))["organization-name"] == "Example Net"
        assert len(desk.mails) == 1, "who has it does not get it again"
        await desk.reporter.close()
        listening.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "allow", "reason"), [(b"404 no", True, "HTTP status 404"), (b"200 ok", False, "public")]
)
def test_what_is_refused_for_good_is_not_tried_again(tmp_path: Path, status: bytes, allow: bool, reason: str) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate("r.y.example").configure_cert(context)
        serve, taken = server([status] * 5)
        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        path = tmp_path / "reports.db"
        counted(path, GOOD)
        desk = Desk(path, {"_smtp._tls.y.example TXT": f"v=TLSRPTv1; rua=https://127.0.0.1:{port}/"})
        desk.reporter._allow_private = allow
        await desk.until(MIDNIGHT + 12 * 3600)
        assert [reason in each["reason"] for each in desk.events] == [True]
        assert not taken and not desk.waiting()
        await desk.reporter.close()
        listening.close()

    asyncio.run(main())


def test_what_has_arrived_is_not_sent_again_by_who_comes_after_a_reload(tmp_path: Path) -> None:
    """The first is closed while it waits for the second place; the mail to the first is under way or has arrived."""

    async def main(is_under_way: bool) -> None:
        path = tmp_path / f"reports-{is_under_way}.db"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate("r.y.example").configure_cert(context)
        asked = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await reader.read()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        counted(path, GOOD)
        record = f"v=TLSRPTv1; rua=mailto:tls@y.example,https://127.0.0.1:{port}/"
        desk = Desk(path, {"_smtp._tls.y.example TXT": record})
        go_on = asyncio.Event()
        accept = desk.reporter._mail

        async def mail(to: str, content: bytes) -> None:
            asked.set()
            await go_on.wait()
            await accept(to, content)

        if is_under_way:
            desk.reporter._mail = mail
        await desk.until(MIDNIGHT + 60)
        store = TlsReportStore(str(path))
        store.hurry("", int(desk.now))
        store.close()
        desk.reporter.start()
        await asyncio.wait_for(asked.wait(), 20)
        closing = asyncio.create_task(desk.reporter.close())
        await asyncio.sleep(0)
        go_on.set()
        await closing
        assert len(desk.mails) == 1
        later = Desk(path, {"_smtp._tls.y.example TXT": RUA.format("y.example")})
        later.now = desk.now + 60
        await later.reporter.turn()
        assert later.mails == [] and later.waiting() == []
        await later.reporter.close()
        listening.close()

    asyncio.run(main(False))
    asyncio.run(main(True))


def test_a_full_file_is_emptied_by_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angarium.tls.report_store._PAGES_MOST", 30)

    async def main() -> None:
        path = tmp_path / "reports.db"
        with pytest.raises(sqlite3.OperationalError, match="full"):
            for number in range(10_000):
                counted(path, TlsOutcome(f"d{number}.example", BARE))
        desk = Desk(path, {})
        await desk.until(MIDNIGHT + 5 * 3600)
        assert desk.events == [] and desk.waiting() == []
        await desk.reporter.close()

    asyncio.run(main())


def test_options_that_make_no_report_are_refused() -> None:
    good = {"enabled": True, "organization_name": "x", "contact": "a@x.example", "sender": "a@x.example"}
    for change in ({"contact": ""}, {"sender": "nobody"}, {"organization_name": "a\nb"}, {"window": 50_000.0}):
        values: dict[str, Any] = {**good, **change}
        with pytest.raises(ValueError, match=next(iter(change))):
            TlsReportOptions(**values)
