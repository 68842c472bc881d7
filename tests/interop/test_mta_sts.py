"""MTA-STS, and DANE beside it, with zones that Knot signs and unbound validates; posttls-finger judges the same hosts.

It knows no MTA-STS. What a policy in mode enforce asks is its level "secure" with the policy's mx in place of its own
names: RFC 8461 §4.1 holds the exchanger's name against them, and the certificate against that name, and no certificate
here bears a name that some policy lists and that is not its host's. What TLSA records ask is its level "dane".
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import trustme
from interop.posttls_finger import posttls_finger
from interop.programs import program
from interop.signed_zones import SignedZones, loopback_of_our_own, signed_zones
from outbound.fault_server import fault_server
from outbound.outgoing import outgoing, run
from tls import authority

from angarium.model.units import Duration
from angarium.queue.shaping_options import ShapingOptions
from angarium.resolver.caching_resolver import CachingResolver
from angarium.resolver.options import ResolverOptions
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router
from angarium.tls.sts_policies import StsPolicies

VERIFIED, ENCRYPTED, REFUSED = "verified", "encrypted", "refused"
GOOD = "Verified TLS connection established"
# It goes on all the same, and says what it saw.
BAD = "certificate verification failed"
# At level "dane": where there are TLSA records to judge by, and where there are none and it judges by authorities.
DANE_BAD = "posttls-finger: server certificate verification failed"
NOT_ASKED = "posttls-finger: certificate verification failed"
UNKNOWN = "TLSA lookup error for"

S, U = "signed.test", "unsigned.test"
STS, TLSA, TESTING, NOBODY = "MTA-STS", "TLSA", "MTA-STS testing", "configuration"
# Names in the certificate of the hosts that have one of an authority that is trusted, and in that of the others.
NAMES = [f"mx.{U}", f"mx-tlsa.{U}", f"mx.{S}", f"mx-right.{S}", f"mx-wrong.{S}", f"mx-pkix.{S}", "mx.bogus.test"]
OWN_NAMES = [f"own.{U}", f"own.{S}", f"own-right.{S}"]


class Case(msgspec.Struct, frozen=True):
    """One domain, a label of a zone.

    mode, mx   of its policy. web: whether its server is "good", has nothing, or a stranger's certificate.
    ours       what becomes of mail, and whose word that is.
    secure     what posttls-finger says at level secure with the policy's mx. dane: at level dane.
    host       its mail exchanger. tlsa: that host's records: "right", "wrong", "pkix" (unusable), or none.
    """

    label: str
    zone: str
    mode: str
    mx: tuple[str, ...]
    ours: tuple[str, str]
    secure: str
    dane: str
    host: str = "mx"
    tlsa: str = ""
    web: str = "good"

    @property
    def domain(self) -> str:
        return f"{self.label}.{self.zone}"

    def policy(self) -> bytes:
        return policy_of(self.mode, *self.mx)


CASES = [
    # A policy alone: whether the zone is signed makes no difference.
    Case("listed", U, "enforce", (f"mx.{U}",), (VERIFIED, STS), GOOD, NOT_ASKED),
    Case("listed", S, "enforce", (f"mx.{S}",), (VERIFIED, STS), GOOD, NOT_ASKED),
    Case("wildcard", U, "enforce", (f"*.{U}",), (VERIFIED, STS), GOOD, NOT_ASKED),
    Case("second", U, "enforce", ("mx.elsewhere.test", f"mx.{U}"), (VERIFIED, STS), GOOD, NOT_ASKED),
    Case("unlisted", U, "enforce", (f"other.{U}",), (REFUSED, STS), BAD, NOT_ASKED),
    Case("unlisted", S, "enforce", (f"other.{S}",), (REFUSED, STS), BAD, NOT_ASKED),
    Case("name", U, "enforce", (f"misnamed.{U}",), (REFUSED, STS), BAD, NOT_ASKED, host="misnamed"),
    Case("stranger", U, "enforce", (f"own.{U}",), (REFUSED, STS), BAD, NOT_ASKED, host="own"),
    # Modes that ask for nothing: what "secure" would refuse goes.
    Case("testing", U, "testing", (f"other.{U}",), (ENCRYPTED, TESTING), BAD, NOT_ASKED),
    Case("testing", S, "testing", (f"own.{S}",), (ENCRYPTED, TESTING), BAD, NOT_ASKED, host="own"),
    Case("none", U, "none", (f"other.{U}",), (ENCRYPTED, NOBODY), BAD, NOT_ASKED),
    # No policy is known, and there is none to be had: as if there were none.
    Case("missing", U, "enforce", (f"other.{U}",), (ENCRYPTED, NOBODY), BAD, NOT_ASKED, web="nothing"),
    Case("forged", U, "enforce", (f"other.{U}",), (ENCRYPTED, NOBODY), BAD, NOT_ASKED, web="stranger"),
    # TLSA records that can be used decide alone, and a policy allows nothing that they forbid (RFC 8461 §2).
    Case("both", S, "enforce", (f"mx-right.{S}",), (VERIFIED, TLSA), GOOD, GOOD, host="mx-right", tlsa="right"),
    Case("own-dane", S, "enforce", (f"own-right.{S}",), (VERIFIED, TLSA), BAD, GOOD, host="own-right", tlsa="right"),
    Case("no-sts", S, "enforce", (f"other.{S}",), (VERIFIED, TLSA), BAD, GOOD, host="mx-right", tlsa="right"),
    Case("no-dane", S, "enforce", (f"mx-wrong.{S}",), (REFUSED, TLSA), GOOD, DANE_BAD, host="mx-wrong", tlsa="wrong"),
    Case("test-dane", S, "testing", (f"other.{S}",), (REFUSED, TLSA), BAD, DANE_BAD, host="mx-wrong", tlsa="wrong"),
    Case("dane", S, "none", (f"other.{S}",), (REFUSED, TLSA), BAD, DANE_BAD, host="mx-wrong", tlsa="wrong"),
    Case("bogus", S, "enforce", ("mx.bogus.test",), (REFUSED, TLSA), GOOD, UNKNOWN, host="mx.bogus.test."),
    # Those that cannot be used leave it to the policy, and those of a zone that is not signed are none.
    Case("pkix", S, "enforce", (f"mx-pkix.{S}",), (VERIFIED, STS), GOOD, NOT_ASKED, host="mx-pkix", tlsa="pkix"),
    Case("pkix-unlisted", S, "enforce", (f"other.{S}",), (REFUSED, STS), BAD, NOT_ASKED, host="mx-pkix", tlsa="pkix"),
    Case("unproved", U, "enforce", (f"mx-tlsa.{U}",), (VERIFIED, STS), GOOD, NOT_ASKED, host="mx-tlsa", tlsa="wrong"),
]


def policy_of(mode: str, *mx: str) -> bytes:
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {each}" for each in mx), "max_age: 86400", ""]
    return "\n".join(lines).encode()


@functools.cache
def leaf(ca: str, *names: str) -> trustme.LeafCert:
    issuer = authority.authority() if ca == "authority" else authority.stranger()
    return issuer.issue_cert(*names, key_type=trustme.KeyType.ECDSA)


def server_tls(ca: str, *names: str) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf(ca, *names).configure_cert(tls)
    return tls


def exchanger(host: str, tlsa: str, port: int, trusted: str, own: str) -> str:
    """Records of a mail exchanger, at the address of the server whose certificate it has."""
    is_own = host.startswith("own")
    digest = hashlib.sha256(authority.der(leaf("stranger", *OWN_NAMES) if is_own else leaf("authority", *NAMES)))
    right = f"0 1 {digest.hexdigest()}"
    records = {"right": f"3 {right}", "wrong": f"3 0 1 {'00' * 32}", "pkix": f"1 {right}"}
    text = f"{host} A {own if is_own else trusted}\n"
    return text + (f"_{port}._tcp.{host} TLSA {records[tlsa]}\n" if tlsa else "")


def announcement(label: str, id_: str) -> str:
    """That there is a policy. Its time is short, so that another one is soon seen."""
    return f'_mta-sts.{label} 1 TXT "v=STSv1; id={id_};"\nmta-sts.{label} A 127.0.0.1\n'


def zones_of_cases(port: int, trusted: str, own: str) -> dict[str, str]:
    texts = {S: "", U: "", "bogus.test": exchanger("mx", "right", port, trusted, own)}
    for case in CASES:
        texts[case.zone] += f"{case.label} MX 10 {case.host}\n" + announcement(case.label, "1")
    for zone, host, tlsa in sorted({(case.zone, case.host, case.tlsa) for case in CASES}):
        if not host.endswith("."):
            texts[zone] += exchanger(host, tlsa, port, trusted, own)
    return texts


class Web:
    """The servers of all policies, on one port. policies: by domain. strangers: whose certificate is nobody's."""

    def __init__(self) -> None:
        self.policies: dict[str, bytes] = {}
        self.strangers: set[str] = set()
        self.requests: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            domain = head.partition("host: mta-sts.")[2].partition("\r\n")[0]
            self.requests.append(domain)
            content = self.policies.get(domain)
            status = b"404 Not Found" if content is None else b"200 OK"
            content = content or b""
            kind = b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(content)
            writer.write(b"HTTP/1.1 " + status + b"\r\n" + kind + content)
            await writer.drain()
        writer.close()

    def choose(self, sock: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        domain = (name or "").removeprefix("mta-sts.")
        sock.context = server_tls("stranger" if domain in self.strangers else "authority", f"mta-sts.{domain}")


class World:
    """Exchangers, policies and name servers; mail to them, by us and by posttls-finger."""

    def __init__(self, folder: Path, web: Web, port: int, zones: SignedZones) -> None:
        self.folder, self.web, self.port, self.zones = folder, web, port, zones
        self.ca = authority.write_authority(folder)
        self.resolver = CachingResolver(
            ResolverOptions(nameservers=[zones.address], trust_ad=True, min_ttl=Duration(1), prefetch=False)
        )
        self.policies = StsPolicies(self.resolver, None, self.ca, lambda domain, reason: None, port=web.port)
        self._count = 0

    async def ours(self, domain: str) -> tuple[str, str, str]:
        """What becomes of mail; what was asked of the connection, and by whom, or why it waits."""
        ourselves = Ourselves(["us.test"], [])
        router = Router([], self.resolver, ourselves, port=self.port, with_tlsa=True, sts=self.policies)
        site = (await router.plan(domain.encode())).site
        self._count += 1
        folder = self.folder / f"relay-{self._count}"
        folder.mkdir()
        async with outgoing(folder, {b"*": site}, shaping=ShapingOptions(tls_ca=self.ca, mta_sts=True)) as relay:
            await relay.send(b"b@" + domain.encode())
            (event,) = await relay.outcomes(1, 30.0)
        if event["event"] == "deferred":
            return REFUSED, "", event["reply"]
        verdict = VERIFIED if event["tls_policy"] in ("dane", "verify") else ENCRYPTED
        return verdict, event["tls_policy_from"], ""

    async def secure(self, domain: str, *patterns: str) -> str:
        """What posttls-finger says at that level. patterns: mx of a policy; it writes ".x.test" for "*.x.test"."""
        names = (each.removeprefix("*") for each in patterns)
        words = ("-F", self.ca, "-l", "secure", f"{domain}:{self.port}", *names)
        return await posttls_finger(self.folder, self.zones.address, *words)

    async def dane(self, domain: str) -> str:
        """Likewise; it is told of no authorities, so that nothing but TLSA records verifies anybody."""
        return await posttls_finger(self.folder, self.zones.address, "-l", "dane", f"{domain}:{self.port}")

    async def close(self) -> None:
        await self.policies.close()
        await self.resolver.close()


@contextlib.asynccontextmanager
async def world(folder: Path, zones_of: Callable[[int, str, str], dict[str, str]]) -> AsyncIterator[World]:
    """zones_of: makes the zones, given the port of exchangers and the addresses of trusted ones and of the others."""
    name_server = loopback_of_our_own()
    trusted, own = (name_server.replace("127.53", network, 1) for network in ("127.54", "127.55"))
    web = Web()
    web_tls = server_tls("authority", "mta-sts.test")
    web_tls.sni_callback = web.choose
    https = await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=web_tls)
    web.port = https.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    async with (
        fault_server(tls=server_tls("authority", *NAMES), address=trusted) as server,
        fault_server(tls=server_tls("stranger", *OWN_NAMES), address=own, port=server.port),
    ):
        root = folder / "zones-root"
        root.mkdir()
        started = signed_zones(
            root, zones_of(server.port, trusted, own), unsigned={U}, bogus={"bogus.test"}, address=name_server
        )
        served = await loop.run_in_executor(None, started.__enter__)
        there = World(folder, web, server.port, served)
        try:
            yield there
        finally:
            await there.close()
            await loop.run_in_executor(None, started.__exit__, None, None, None)
            https.close()


def needs_all_of_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("port 53 and a resolv.conf of our own need root")
    for name in ("knotd", "unbound", "ldns-signzone", "posttls-finger", "unshare"):
        program(name)


@pytest.mark.timeout(240)
def test_each_policy_comes_to_what_posttls_finger_says_of_the_host(tmp_path: Path) -> None:
    needs_all_of_it()

    async def main() -> None:
        async with world(tmp_path, zones_of_cases) as there:
            there.web.policies = {case.domain: case.policy() for case in CASES if case.web != "nothing"}
            there.web.strangers = {case.domain for case in CASES if case.web == "stranger"}
            for case in CASES:
                verdict, by, reply = await there.ours(case.domain)
                assert verdict == case.ours[0], (case, by, reply)
                if verdict == REFUSED:
                    assert f"from {case.ours[1]} " in reply, (case, reply)
                else:
                    assert by == case.ours[1], case
            # Each takes seconds, and next to none of the machine's.
            at_once = asyncio.Semaphore(8)

            async def judged(case: Case) -> tuple[str, str]:
                async with at_once:
                    return await asyncio.gather(there.secure(case.domain, *case.mx), there.dane(case.domain))

            for case, (secure, dane) in zip(CASES, await asyncio.gather(*map(judged, CASES)), strict=True):
                assert case.secure in secure, (case, secure)
                assert case.dane in dane, (case, dane)

    run(main())


def test_no_case_says_something_else_of_us_than_of_posttls_finger() -> None:
    """Whoever adds a case that is wrong about both is told: ours follows from theirs, by RFC 8461 §2 and §5."""
    for case in CASES:
        if case.dane in (DANE_BAD, UNKNOWN):
            expected = (REFUSED, TLSA)
        elif case.dane == GOOD:
            expected = (VERIFIED, TLSA)
        elif case.mode != "enforce" or case.web != "good":
            expected = (ENCRYPTED, TESTING if case.mode == "testing" else NOBODY)
        else:
            expected = (VERIFIED if case.secure == GOOD else REFUSED, STS)
        assert case.ours == expected, case


@pytest.mark.timeout(120)
@pytest.mark.parametrize("zone", [S, U])
def test_a_new_id_brings_the_new_policy_and_an_old_one_keeps_the_old(tmp_path: Path, zone: str) -> None:
    needs_all_of_it()
    domain = f"d.{zone}"

    def records(id_: str, port: int, trusted: str, own: str) -> str:
        return "d MX 10 mx\n" + announcement("d", id_) + exchanger("mx", "", port, trusted, own)

    def zones(port: int, trusted: str, own: str) -> dict[str, str]:
        servers[:] = [port, trusted, own]
        texts = {S: "", U: "", "bogus.test": ""}
        return {**texts, zone: records("1", port, trusted, own)}

    servers: list[object] = []

    async def main() -> None:
        async with world(tmp_path, zones) as there:

            async def announced(id_: str) -> None:
                there.zones.change(zone, records(id_, *servers))  # type: ignore[arg-type]
                async with asyncio.timeout(30):
                    while (await there.policies.find(domain)).announced != id_:
                        await asyncio.sleep(0.05)

            def publish(mode: str, mx: str) -> None:
                there.web.policies[domain] = policy_of(mode, mx)

            publish("enforce", f"other.{zone}")
            assert (await there.ours(domain))[0] == REFUSED
            assert BAD in await there.secure(domain, f"other.{zone}")
            publish("enforce", f"*.{zone}")
            assert (await there.ours(domain))[0] == REFUSED, "its id is the old one"
            assert there.web.requests == [domain]
            await announced("2")
            assert (await there.ours(domain))[:2] == (VERIFIED, STS)
            assert GOOD in await there.secure(domain, f"*.{zone}")
            del there.web.policies[domain]
            await announced("3")
            assert (await there.ours(domain))[:2] == (VERIFIED, STS), "it cannot be fetched: the one before holds"
            publish("none", f"other.{zone}")
            await announced("4")
            assert (await there.ours(domain))[:2] == (ENCRYPTED, NOBODY)

    run(main())
