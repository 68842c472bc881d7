"""DANE with real signed zones: Knot signs, unbound validates, and posttls-finger judges the same hosts as we do."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from pathlib import Path

import msgspec
import pytest
from interop.posttls_finger import posttls_finger
from interop.programs import program
from interop.signed_zones import loopback_of_our_own, signed_zones
from outbound.fault_server import fault_server
from outbound.outgoing import outgoing, run
from tls import authority

from angarium.model.tlsa import TlsaState
from angarium.queue.shaping_options import ShapingOptions
from angarium.resolver.caching_resolver import CachingResolver
from angarium.resolver.options import ResolverOptions
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router

LEAF = "mx.signed.test"
VERIFIED, ENCRYPTED, REFUSED = "verified", "encrypted", "refused"
# How it puts that at level "dane". With a server that it would refuse it goes on, and says "server certificate".
GOOD = "Verified TLS connection established"
BAD = "server certificate verification failed"
NO_MATTER = "posttls-finger: certificate verification failed"
UNKNOWN = "TLSA lookup error for"


class Case(msgspec.Struct, frozen=True):
    """domain: of the recipient. ours: what becomes of mail. theirs: what posttls-finger says."""

    domain: str
    state: TlsaState | None
    ours: str
    theirs: str


CASES = [
    Case("ee.signed.test", TlsaState.USABLE, VERIFIED, GOOD),
    Case("wrong.signed.test", TlsaState.USABLE, REFUSED, BAD),
    Case("rolling.signed.test", TlsaState.USABLE, VERIFIED, GOOD),
    Case("ta.signed.test", TlsaState.USABLE, VERIFIED, GOOD),
    Case("ta-name.signed.test", TlsaState.USABLE, REFUSED, BAD),
    Case("pkix.signed.test", TlsaState.UNUSABLE, ENCRYPTED, NO_MATTER),
    Case("nothing.signed.test", TlsaState.ABSENT, ENCRYPTED, NO_MATTER),
    Case("alias.signed.test", TlsaState.USABLE, VERIFIED, GOOD),
    Case("away.signed.test", TlsaState.USABLE, VERIFIED, GOOD),
    Case("unsigned.test", None, ENCRYPTED, NO_MATTER),
    Case("to-unsigned.signed.test", TlsaState.ABSENT, ENCRYPTED, NO_MATTER),
    Case("to-bogus.signed.test", TlsaState.TROUBLE, REFUSED, UNKNOWN),
]


def zones(port: int) -> dict[str, str]:
    def tlsa(host: str, *records: str) -> str:
        return "".join(f"_{port}._tcp.{host} TLSA {record}\n" for record in records)

    def mx(label: str, host: str) -> str:
        return f"{label} MX 10 {host}\n"

    ca = ssl.PEM_cert_to_DER_cert(authority.authority().cert_pem.bytes().decode()).hex()
    leaf = hashlib.sha256(authority.der(authority.certificate(LEAF))).hexdigest()
    ee, wrong, ta = f"3 0 1 {leaf}", f"3 0 1 {'00' * 32}", f"2 0 0 {ca}"
    here = "A 127.0.0.1\n"
    signed = ""
    for label, records in {
        "ee": [ee], "wrong": [wrong], "rolling": [wrong, ee], "ta-name": [ta], "pkix": [f"1 0 1 {leaf}"], "nothing": [],
    }.items():  # fmt: skip
        signed += mx(label, f"mx-{label}") + f"mx-{label} {here}" + tlsa(f"mx-{label}", *records)
    signed += mx("ta", "mx") + f"mx {here}" + tlsa("mx", ta)
    signed += mx("alias", "mx-alias") + "mx-alias CNAME mx-ee\n"
    signed += mx("away", "mx-away") + "mx-away CNAME host.unsigned.test.\n" + tlsa("mx-away", ee)
    signed += mx("to-unsigned", "host.unsigned.test.") + mx("to-bogus", "mx.bogus.test.")
    return {
        "signed.test": signed,
        "unsigned.test": mx("@", "host") + f"host {here}" + tlsa("host", ee),
        "bogus.test": f"mx {here}" + tlsa("mx", ee),
    }


@pytest.mark.timeout(180)
def test_posttls_finger_comes_to_the_same_verdict(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("port 53 and a resolv.conf of our own need root")
    for name in ("knotd", "unbound", "ldns-signzone", "posttls-finger", "unshare"):
        program(name)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.certificate(LEAF).configure_cert(tls)

    async def main(address: str, port: int) -> None:
        resolver = CachingResolver(ResolverOptions(nameservers=[address], trust_ad=True))
        router = Router([], resolver, Ourselves(["us.test"], []), port=port, with_tlsa=True)
        for case in CASES:
            site = (await router.plan(case.domain.encode())).site
            assert (site.hosts[0].tlsa and site.hosts[0].tlsa.state) is case.state, case
            folder = tmp_path / case.domain
            folder.mkdir()
            async with outgoing(folder, {b"*": site}, shaping=ShapingOptions()) as relay:
                await relay.send(b"b@" + case.domain.encode())
                (event,) = await relay.outcomes(1, 30.0)
            if event["event"] == "deferred":
                verdict = REFUSED
            else:
                verdict = VERIFIED if event["tls_policy"] == "dane" else ENCRYPTED
            assert verdict == case.ours, (case, event)
            output = await posttls_finger(folder, address, "-l", "dane", f"{case.domain}:{port}")
            assert case.theirs in output, (case, output)
        await resolver.close()

    async def all_of_it() -> None:
        async with fault_server(tls=tls) as server:
            address = loopback_of_our_own()
            root = tmp_path / "zones-root"
            root.mkdir()
            started = signed_zones(
                root, zones(server.port), unsigned={"unsigned.test"}, bogus={"bogus.test"}, address=address
            )
            served = await asyncio.get_running_loop().run_in_executor(None, started.__enter__)
            try:
                await main(served.address, server.port)
            finally:
                await asyncio.get_running_loop().run_in_executor(None, started.__exit__, None, None, None)

    run(all_of_it())
