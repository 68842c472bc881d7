"""AUTH to next hops: which mechanism, over what, and what a refusal means: mail waits, and the operator is told."""

from __future__ import annotations

import asyncio
import base64
import pathlib
import ssl
from typing import Any

import msgspec
import pytest
from outbound.fault_server import CLOSE, FaultServer, fault_server
from outbound.outgoing import Outgoing, on_uvloop, outgoing, smtp_site
from outbound.tls_hops import one, server_tls, shaping
from tls import authority

from angarium.model.plan import Site
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import DomainShaping, ShapingDefault, ShapingOptions, ShapingTables
from angarium.sasl.login_options import LoginOptions
from angarium.sasl.logins import REFUSED_S, Logins
from angarium.smtp.witness import Witness
from angarium.spool.envelope import Attribute
from angarium.tls.options import CertificateOptions

SECRET = "correct horse, battery=staple"
TOKEN = "ya29.a0ARrdaM-token"


def login(folder: pathlib.Path, secret: str = SECRET, **options: Any) -> LoginOptions:
    file = folder / "secret"
    file.write_text(secret + "\n")
    file.chmod(0o600)
    kind = "token_file" if options.pop("is_token", False) else "password_file"
    return LoginOptions(user="us@example.net", **{kind: str(file)}, **options)


def site_of(server: FaultServer, **changes: Any) -> dict[bytes, Site]:
    return {b"*": msgspec.structs.replace(smtp_site(server.port), login="relay", **changes)}


def secure(**options: Any) -> dict[str, Any]:
    return {
        "tls": server_tls(),
        "mechanisms": ["PLAIN"],
        "accounts": {"us@example.net": SECRET},
        **options,
    }


@on_uvloop
@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (["PLAIN", "LOGIN"], "PLAIN"),
        (["LOGIN"], "LOGIN"),
        (["LOGIN", "PLAIN", "SCRAM-SHA-256", "CRAM-MD5"], "SCRAM-SHA-256"),
    ],
)
async def test_the_best_mechanism_is_taken_and_mail_goes(
    tmp_path: pathlib.Path, offered: list[str], taken: str
) -> None:
    async with (
        fault_server(**secure(mechanisms=offered, extensions=[b"PIPELINING"])) as server,
        outgoing(
            tmp_path,
            site_of(server),
            shaping=shaping(tmp_path, "opportunistic"),
            logins=Logins({"relay": login(tmp_path)}),
        ) as relay,
    ):
        event = await one(relay)
        assert event["event"] == "delivered"
        assert (event["tls_policy"], event["tls_policy_from"]) == ("verify", "login")
        assert server.logins == [(taken, "us@example.net")]
        assert server.received[0].mail.endswith(b" AUTH=<>")
        assert SECRET not in relay.journal_path.read_text()
        assert (await one(relay))["event"] == "delivered"
        assert len(server.logins) == server.connections == 1, "the connection is kept, and so is who we are on it"


class TellsAll:
    """Looks on at a connection and masks nothing."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.responses = 0

    def look_at(self, connection: Any) -> None:
        connection.watch(Witness(self))

    def command(self, line: bytes) -> None:
        self.commands.append(line)

    def response(self, length: int) -> None:
        self.responses += 1

    def __getattr__(self, name: str) -> Any:
        return lambda *told: None


@on_uvloop
@pytest.mark.parametrize(("mechanism", "responses"), [("LOGIN", 2), ("SCRAM-SHA-256", 2)])
async def test_who_looks_on_is_told_of_responses_that_there_were_some(
    tmp_path: pathlib.Path, mechanism: str, responses: int
) -> None:
    looking = TellsAll()
    async with (
        fault_server(**secure(mechanisms=[mechanism])) as server,
        outgoing(
            tmp_path,
            site_of(server),
            shaping=shaping(tmp_path, "opportunistic"),
            logins=Logins({"relay": login(tmp_path)}),
        ) as relay,
    ):
        relay.dispatcher.dialer.tracing = looking  # type: ignore[assignment]
        assert (await one(relay))["event"] == "delivered"
    assert looking.responses == responses
    verbs = [line.split(b" ")[0] for line in looking.commands]
    assert verbs[:5] == [b"EHLO", b"STARTTLS", b"EHLO", b"AUTH", b"MAIL"]


@on_uvloop
async def test_a_host_that_asks_on_and_on_is_left(tmp_path: pathlib.Path) -> None:
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hop.example\r\n")
        while line := await reader.readline():
            said.append(line)
            is_hello = line.startswith(b"EHLO")
            writer.write(b"250-hop\r\n250 AUTH PLAIN\r\n" if is_hello else b"334 \r\n")
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    site = msgspec.structs.replace(smtp_site(listening.sockets[0].getsockname()[1]), login="relay")
    logins = Logins({"relay": login(tmp_path, allow_clear=True)})
    async with outgoing(tmp_path, {b"*": site}, shaping=shaping(tmp_path, "opportunistic"), logins=logins) as relay:
        assert (await one(relay))["event"] == "deferred"
        assert said.count(b"*\r\n") == 1
    listening.close()


def test_all_who_ask_for_a_login_at_once_are_given_the_same(tmp_path: pathlib.Path) -> None:
    """One of them tries it, the others wait for what comes of that."""

    async def main() -> None:
        logins = Logins({"relay": login(tmp_path)})
        found = await asyncio.gather(*(logins.credentials("relay") for _ in range(5)))
        assert len({id(each) for each in found}) == 1

    asyncio.run(main())


def test_a_login_that_a_reload_changed_while_it_was_read_is_the_new_one(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        old = login(tmp_path)
        logins = Logins({"relay": old})
        asking = asyncio.create_task(logins.credentials("relay"))
        await asyncio.sleep(0)                  # it waits for the file
        logins.apply({"relay": msgspec.structs.replace(old, user="new@example.net")})
        assert (await asking).options.user == "new@example.net"
        assert (await logins.credentials("relay")).options.user == "new@example.net"

    asyncio.run(main())


@on_uvloop
@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
async def test_a_token_is_read_again_when_its_file_changes(tmp_path: pathlib.Path, mechanism: str) -> None:
    accounts = {"us@example.net": TOKEN}
    async with fault_server(**secure(mechanisms=[mechanism], accounts=accounts)) as server:
        options = login(tmp_path, "old-token", is_token=True)
        async with outgoing(
            tmp_path, site_of(server), shaping=shaping(tmp_path, "required"), logins=Logins({"relay": options})
        ) as relay:
            event = await one(relay)
            assert (event["event"], event["status"]) == ("deferred", "4.7.8")
            assert "invalid_token" in event["reply"] or "401" in event["reply"]
            (tmp_path / "secret").write_text(TOKEN + "\n")
            await relay.send(b"c@y.example")
            assert (await relay.outcomes(2))[-1]["event"] == "delivered"
            assert server.logins == [(mechanism, "us@example.net")]


def counted_command(folder: pathlib.Path, first: str, then: str) -> LoginOptions:
    """A command that gives one token at its first run and another at those behind it; `runs` has a line for each."""
    path, runs = folder / "fetch-token", folder / "runs"
    path.write_text(f"#!/bin/sh\nif [ -e {runs} ]; then echo {then}; else echo {first}; fi\necho x >> {runs}\n")
    path.chmod(0o700)
    return LoginOptions(user="us@example.net", token_command=[str(path)])


def runs_of(folder: pathlib.Path) -> int:
    return len((folder / "runs").read_text().splitlines())


@on_uvloop
async def test_a_token_of_a_command_is_fetched_once_and_taken(tmp_path: pathlib.Path) -> None:
    logins = Logins({"relay": counted_command(tmp_path, TOKEN, "another")})
    limits = shaping(tmp_path, "required", messages_per_connection=1)
    async with (
        fault_server(**secure(mechanisms=["XOAUTH2"], accounts={"us@example.net": TOKEN})) as server,
        outgoing(tmp_path, site_of(server), shaping=limits, logins=logins) as relay,
    ):
        for _ in range(20):
            await relay.send(b"b@y.example")
        assert {each["event"] for each in await relay.outcomes(20)} == {"delivered"}
        assert server.connections == 20 and runs_of(tmp_path) == 1
        assert TOKEN not in relay.journal_path.read_text()
        assert base64.b64encode(TOKEN.encode()).decode()[4:-4] not in relay.journal_path.read_text()


@on_uvloop
async def test_a_cached_token_that_a_host_refuses_is_asked_for_anew_once(tmp_path: pathlib.Path) -> None:
    accounts = {"us@example.net": "old"}
    logins = Logins({"relay": counted_command(tmp_path, "old", "new")})
    limits = shaping(tmp_path, "required", messages_per_connection=1)
    async with (
        fault_server(**secure(mechanisms=["XOAUTH2"], accounts=accounts)) as server,
        outgoing(tmp_path, site_of(server), shaping=limits, logins=logins) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        accounts["us@example.net"] = "new"
        assert (await one(relay))["event"] == "delivered", "no message waits for that"
        for _ in range(20):
            await relay.send(b"b@y.example")
        assert {each["event"] for each in await relay.outcomes(22)} == {"delivered"}
        assert runs_of(tmp_path) == 2


@on_uvloop
@pytest.mark.parametrize("then", ["old", "other"])
async def test_a_token_that_is_refused_twice_rests_and_asks_nobody(tmp_path: pathlib.Path, then: str) -> None:
    accounts = {"us@example.net": "old"}
    logins = Logins({"relay": counted_command(tmp_path, "old", then)})
    limits = shaping(tmp_path, "required", messages_per_connection=1)
    async with (
        fault_server(**secure(mechanisms=["XOAUTH2"], accounts=accounts)) as server,
        outgoing(tmp_path, site_of(server), shaping=limits, logins=logins) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        accounts.clear()
        for count in range(2, 6):
            await relay.send(b"b@y.example")
            assert (await relay.outcomes(count))[-1]["class"] == "login-required"
        assert runs_of(tmp_path) == 2
        refused = 1 if then == "old" else 2
        assert server.connections == 1 + refused


@on_uvloop
async def test_a_new_token_that_is_refused_is_not_asked_for_again(tmp_path: pathlib.Path) -> None:
    logins = Logins({"relay": counted_command(tmp_path, "wrong", TOKEN)})
    async with (
        fault_server(**secure(mechanisms=["XOAUTH2"], accounts={"us@example.net": TOKEN})) as server,
        outgoing(tmp_path, site_of(server), shaping=shaping(tmp_path, "required"), logins=logins) as relay,
    ):
        assert (await one(relay))["class"] == "login-required"
        assert runs_of(tmp_path) == server.connections == 1


@on_uvloop
async def test_a_token_that_cannot_be_had_holds_the_mail_and_says_why(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fetch-token"
    path.write_text(f"#!/bin/sh\necho {TOKEN}; echo {SECRET} >&2; exit 7\n")
    path.chmod(0o700)
    logins = Logins({"relay": LoginOptions(user="us", token_command=[str(path)])})
    async with (
        fault_server(**secure(mechanisms=["XOAUTH2"])) as server,
        outgoing(tmp_path, site_of(server), shaping=shaping(tmp_path, "required"), logins=logins) as relay,
    ):
        event = await one(relay)
        assert (event["event"], event["status"]) == ("deferred", "4.3.5")
        assert "login relay cannot be used: token_command" in event["reply"] and "status 7" in event["reply"]
        assert server.connections == 0
        log = relay.journal_path.read_text()
        assert TOKEN not in log and SECRET not in log
        assert relay.events("login-failed")


def asks_for_certificates() -> ssl.SSLContext:
    tls = server_tls()
    authority.authority().configure_trust(tls)
    tls.verify_mode = ssl.CERT_OPTIONAL
    return tls


def with_certificate(tmp_path: pathlib.Path, tls: str = "required") -> ShapingOptions:
    leaf = authority.certificate("relay@example.org")
    options = CertificateOptions(**authority.write(tmp_path, leaf, "relay"))
    return shaping(tmp_path, tls, tls_certificate=options)


@on_uvloop
@pytest.mark.parametrize("user", ["", "relay@example.org"])
async def test_our_certificate_says_who_we_are_with_external(tmp_path: pathlib.Path, user: str) -> None:
    logins = Logins({"relay": LoginOptions(user=user, external=True)})
    async with (
        fault_server(**secure(tls=asks_for_certificates(), mechanisms=["PLAIN", "EXTERNAL"])) as server,
        outgoing(tmp_path, site_of(server), shaping=with_certificate(tmp_path), logins=logins) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        assert server.logins == [("EXTERNAL", "relay@example.org")]
        initial = base64.b64encode(user.encode()) or b"="
        assert b"AUTH EXTERNAL " + initial in server.commands


@on_uvloop
async def test_a_host_that_does_not_know_our_certificate_gets_no_mail_and_is_asked_once(tmp_path: pathlib.Path) -> None:
    logins = Logins({"relay": LoginOptions(external=True)})
    tls = asks_for_certificates()
    async with (
        fault_server(**secure(tls=tls, mechanisms=["EXTERNAL"], knows_certificates=False)) as server,
        outgoing(tmp_path, site_of(server), shaping=with_certificate(tmp_path), logins=logins) as relay,
    ):
        for _ in range(5):
            await relay.send(b"b@y.example")
        events = await relay.outcomes(5)
        assert {(each["event"], each["class"]) for each in events} == {("deferred", "login-required")}
        assert "login relay by AUTH EXTERNAL" in events[0]["reply"]
        assert server.connections == 1


@on_uvloop
@pytest.mark.parametrize(
    ("has_certificate", "offered", "taken"),
    [(True, ["EXTERNAL", "PLAIN"], "EXTERNAL"), (False, ["EXTERNAL", "PLAIN"], "PLAIN"), (True, ["PLAIN"], "PLAIN")],
)
async def test_external_goes_before_a_password_where_it_can_be_said(
    tmp_path: pathlib.Path, has_certificate: bool, offered: list[str], taken: str
) -> None:
    logins = Logins({"relay": msgspec.structs.replace(login(tmp_path), user="relay@example.org", external=True)})
    limits = with_certificate(tmp_path) if has_certificate else shaping(tmp_path, "required")
    accounts = {"relay@example.org": SECRET}
    async with (
        fault_server(**secure(tls=asks_for_certificates(), mechanisms=offered, accounts=accounts)) as server,
        outgoing(tmp_path, site_of(server), shaping=limits, logins=logins) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        assert server.logins == [(taken, "relay@example.org")]


@on_uvloop
async def test_external_without_a_certificate_says_which_key_is_missing(tmp_path: pathlib.Path) -> None:
    logins = Logins({"relay": LoginOptions(external=True)})
    async with (
        fault_server(**secure(tls=asks_for_certificates(), mechanisms=["EXTERNAL"])) as server,
        outgoing(tmp_path, site_of(server), shaping=shaping(tmp_path, "required"), logins=logins) as relay,
    ):
        event = await one(relay)
        assert event["event"] == "deferred"
        assert "tls_certificate, which is missing" in event["reply"]


@on_uvloop
async def test_a_wrong_password_holds_the_mail_and_tells_the_operator(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(**secure(accounts={"us@example.net": "another"})) as server,
        outgoing(
            tmp_path,
            site_of(server),
            shaping=shaping(tmp_path, "required"),
            logins=Logins({"relay": login(tmp_path)}),
        ) as relay,
    ):
        for _ in range(20):
            await relay.send(b"b@y.example")
        events = await relay.outcomes(20)
        assert {(each["event"], each["status"], each["class"]) for each in events} == {
            ("deferred", "4.7.8", "login-required")
        }
        assert "login relay by AUTH PLAIN: the host does not accept user and password" in events[0]["reply"]
        failures = relay.events("login-failed")
        assert {each["login"] for each in failures} == {"relay"}
        assert server.connections == 1, "a wrong password is tried once, not by every connection"
        assert SECRET not in relay.journal_path.read_text()
        assert not any(each.startswith(b"MAIL") for each in server.commands)


def test_a_refused_login_rests_until_its_time_is_over_or_its_file_is_another(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        now = 1000.0
        logins = Logins({"relay": login(tmp_path)}, clock=lambda: now)
        credentials = await logins.credentials("relay")
        assert await logins.credentials("relay") is credentials
        standing = logins.standing("relay", "here", credentials)
        logins.refused(standing, "no")
        assert logins.refusal_of(standing) == "no"
        assert logins.refusal_of(logins.standing("relay", "elsewhere", credentials)) is None
        now += REFUSED_S + 1
        assert logins.refusal_of(standing) is None
        logins.refused(standing, "no")
        login(tmp_path, "another one")
        credentials = await logins.credentials("relay")
        assert credentials.secret == "another one"
        assert logins.refusal_of(logins.standing("relay", "here", credentials)) is None

    asyncio.run(main())


@on_uvloop
@pytest.mark.parametrize("code", [432, 454, 500, 504, 530, 534, 538, 550, 421])
async def test_no_refusal_of_auth_bounces_mail(tmp_path: pathlib.Path, code: int) -> None:
    async with (
        fault_server(**secure(faults={"AUTH": b"%d told so\r\n" % code})) as server,
        outgoing(
            tmp_path,
            site_of(server),
            shaping=shaping(tmp_path, "opportunistic"),
            logins=Logins({"relay": login(tmp_path)}),
        ) as relay,
    ):
        event = await one(relay)
        assert event["event"] == "deferred"
        assert event["status"].startswith("4.")
        assert "told so" in event["reply"]
        assert not any(each.startswith(b"MAIL") for each in server.commands)


@on_uvloop
@pytest.mark.parametrize(
    ("mechanisms", "words"),
    [([], "does not offer AUTH"), (["GSSAPI", "CRAM-MD5"], "offers AUTH CRAM-MD5 GSSAPI")],
)
async def test_a_host_without_auth_gets_no_mail(tmp_path: pathlib.Path, mechanisms: list[str], words: str) -> None:
    async with (
        fault_server(**secure(mechanisms=mechanisms)) as server,
        outgoing(
            tmp_path,
            site_of(server),
            shaping=shaping(tmp_path, "required"),
            logins=Logins({"relay": login(tmp_path)}),
        ) as relay,
    ):
        event = await one(relay)
        assert event["event"] == "deferred"
        assert words in event["reply"]
        assert not any(each.startswith(b"MAIL") for each in server.commands)


@on_uvloop
@pytest.mark.parametrize(
    ("options", "server_is", "outcome"),
    [
        ({}, "clear", "deferred"),
        ({}, "unverified", "deferred"),
        ({"allow_unverified": True}, "clear", "deferred"),
        ({"allow_unverified": True}, "unverified", "delivered"),
        ({"allow_clear": True}, "clear", "delivered"),
    ],
)
async def test_only_who_proves_to_be_the_host_is_told(
    tmp_path: pathlib.Path, options: dict[str, bool], server_is: str, outcome: str
) -> None:
    tls = None if server_is == "clear" else server_tls("mx0.example.net", "stranger")
    async with (
        fault_server(**secure(tls=tls)) as server,
        outgoing(
            tmp_path,
            site_of(server),
            shaping=shaping(tmp_path, "opportunistic"),
            logins=Logins({"relay": login(tmp_path, **options)}),
        ) as relay,
    ):
        assert (await one(relay))["event"] == outcome
        assert bool(server.logins) == (outcome == "delivered")


@on_uvloop
async def test_what_breaks_in_auth_is_not_said_again_in_clear(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(**secure(faults={"AUTH": CLOSE})) as server,
        outgoing(
            tmp_path,
            site_of(server),
            shaping=shaping(tmp_path, "opportunistic"),
            logins=Logins({"relay": login(tmp_path, allow_clear=True)}),
        ) as relay,
    ):
        event = await one(relay)
        assert event["event"] == "deferred"
        assert "connection lost at AUTH" in event["reply"]
        assert server.hellos == ["", "TLSv1.3"]


@on_uvloop
@pytest.mark.parametrize("is_named", [True, False])
async def test_an_exchanger_that_dns_does_not_vouch_for_is_told_if_the_login_names_it(
    tmp_path: pathlib.Path, is_named: bool
) -> None:
    options = login(tmp_path, hosts=["*.example.net"] if is_named else ["other.example"])
    async with (
        fault_server(**secure()) as server,
        outgoing(
            tmp_path,
            site_of(server, is_located_securely=False),
            shaping=shaping(tmp_path, "required"),
            logins=Logins({"relay": options}),
        ) as relay,
    ):
        event = await one(relay)
        assert event["event"] == ("delivered" if is_named else "deferred")
        assert is_named or "DNS does not vouch for the mail exchanger mx0.example.net" in event["reply"]


@on_uvloop
async def test_domains_with_other_logins_share_no_connection(tmp_path: pathlib.Path) -> None:
    accounts = {"us@example.net": SECRET, "them@example.net": SECRET}
    async with fault_server(**secure(accounts=accounts)) as server:
        us = login(tmp_path)
        tables = ShapingTables(
            default=ShapingDefault(tls_ca=authority.write_authority(tmp_path), idle_time=60),  # type: ignore[arg-type]
            domain={"y.example": DomainShaping(login="us"), "z.example": DomainShaping(login="them")},
        )
        logins = Logins({"us": us, "them": msgspec.structs.replace(us, user="them@example.net")})
        sites = {b"*": smtp_site(server.port)}
        async with outgoing(tmp_path, sites, shaping=Shaping(tables), logins=logins) as relay:
            for domain in (b"y.example", b"z.example", b"w.example", b"y.example"):
                await relay.send(b"b@" + domain)
                await relay.outcomes(len(relay.events("delivered", "deferred")) + 1)
            assert sorted(server.logins) == [("PLAIN", "them@example.net"), ("PLAIN", "us@example.net")]
            seen = server.received
            by_connection = {(each.connection, each.rcpts[0][8:-1], b"AUTH=<>" in each.mail) for each in seen}
            assert len({connection for connection, *_ in by_connection}) == 3
            assert (b"<b@w.example", False) in {each[1:] for each in by_connection}


@on_uvloop
async def test_a_reload_with_another_login_opens_another_connection(tmp_path: pathlib.Path) -> None:
    accounts = {"us@example.net": SECRET, "them@example.net": SECRET}
    async with fault_server(**secure(accounts=accounts)) as server:
        us = login(tmp_path)
        logins = Logins({"relay": us})
        options = shaping(tmp_path, "required", idle_time=60)
        async with outgoing(tmp_path, site_of(server), shaping=options, logins=logins) as relay:
            assert (await one(relay))["event"] == "delivered"
            logins.apply({"relay": msgspec.structs.replace(us, user="them@example.net")})
            reconfigure(relay, Shaping(options))
            assert (await one(relay))["event"] == "delivered"
            assert [name for _, name in server.logins] == ["us@example.net", "them@example.net"]
            assert [each.connection for each in server.received] == [1, 2]


def reconfigure(relay: Outgoing, shaping: Shaping) -> None:
    scheduler = relay.scheduler
    scheduler.reconfigure(router=scheduler.router, pool=scheduler.pool, shaping=shaping, options=scheduler.options)


@on_uvloop
@pytest.mark.parametrize(("submitter", "said"), [(True, b"AUTH=alice@example.com"), (False, b"AUTH=<>")])
async def test_who_sent_it_is_said_where_the_login_says_so(
    tmp_path: pathlib.Path, submitter: bool, said: bytes
) -> None:
    async with (
        fault_server(**secure()) as server,
        outgoing(
            tmp_path,
            site_of(server),
            shaping=shaping(tmp_path, "required"),
            logins=Logins({"relay": login(tmp_path, submitter=submitter)}),
        ) as relay,
    ):
        await one(relay, attributes={int(Attribute.IDENTITY): b"alice@example.com"})
        assert server.received[0].mail.split()[-1] == said


@on_uvloop
async def test_a_next_hop_that_wants_auth_and_has_no_login_holds_the_mail(tmp_path: pathlib.Path) -> None:
    """RFC 4954 §6: 530 to MAIL. What the operator forgot bounces nobody's mail; a stranger's 530 does."""
    for name, outcome in (("smtp://relay.example:25", "deferred"), ("mx.example.net", "failed")):
        folder = tmp_path / outcome
        folder.mkdir()
        async with fault_server(faults={"MAIL": b"530 5.7.0 Authentication required\r\n"}) as server:
            sites = {b"*": msgspec.structs.replace(smtp_site(server.port), name=name)}
            async with outgoing(folder, sites) as relay:
                event = await one(relay)
                assert event["event"] == outcome
                assert ("login in [[route]]" in event["reply"]) == (outcome == "deferred")


@on_uvloop
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), "No such file"),
        (lambda file: file.chmod(0o644), "mode 0644 lets others read or write it"),
        (lambda file: file.write_bytes(b"\n"), "first line must have 1 to"),
        (lambda file: file.write_bytes(b"\xff\n"), "not UTF-8"),
    ],
)
async def test_a_password_that_cannot_be_read_is_named(tmp_path: pathlib.Path, spoil: Any, reason: str) -> None:
    options = login(tmp_path)
    spoil(tmp_path / "secret")
    async with (
        fault_server(**secure()) as server,
        outgoing(
            tmp_path, site_of(server), shaping=shaping(tmp_path, "required"), logins=Logins({"relay": options})
        ) as relay,
    ):
        event = await one(relay)
        assert (event["event"], event["status"]) == ("deferred", "4.3.5")
        assert reason in event["reply"]
        assert str(tmp_path / "secret") in event["reply"]
        assert server.connections == 0
