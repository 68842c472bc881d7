"""What [shaping] says of TLS for some mail only: certificates shown, authorities trusted, policies heeded.

Mail of which different things are said shares neither connections nor sessions of TLS.
"""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import ssl
from typing import Any

import pytest
from outbound.fault_server import fault_server
from outbound.outgoing import Outgoing, on_uvloop, outgoing, until
from outbound.test_tls import broken_tls
from outbound.tls_hops import one, server_tls, tlsa, to_here, with_tlsa
from tls import authority

from angarium.model.plan import TlsName
from angarium.model.units import Duration
from angarium.outbound import tls_contexts
from angarium.outbound.tls_contexts import Material, TlsContexts
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import (
    DomainShaping,
    ProviderShaping,
    ShapingDefault,
    ShapingTables,
    SiteShaping,
    SourceShaping,
    TenantShaping,
)
from angarium.spool.envelope import Attribute
from angarium.tls.options import CertificateOptions

BANK, OTHER = b"b@bank.example", b"b@other.example"


def asking_server() -> ssl.SSLContext:
    """It asks for a certificate, and can do without."""
    context = server_tls()
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.authority().configure_trust(context)
    return context


def own(folder: pathlib.Path, name: str = "relay.example.org") -> tuple[CertificateOptions, str]:
    """A certificate to show, and its fingerprint."""
    leaf = authority.certificate(name)
    return CertificateOptions(**authority.write(folder, leaf, name)), authority.fingerprint(leaf)


def strange_ca(folder: pathlib.Path) -> str:
    path = folder / "strange.pem"
    path.write_bytes(authority.stranger().cert_pem.bytes())
    return str(path)


def tables(folder: pathlib.Path, tls: str = "required", **others: Any) -> Shaping:
    default = ShapingDefault(tls=tls, tls_ca=authority.write_authority(folder))  # type: ignore[arg-type]
    return Shaping(ShapingTables(default=default, **others))


async def to(relay: Outgoing, recipient: bytes, **message: Any) -> dict[str, Any]:
    before = len(relay.events("delivered", "deferred"))
    await relay.send(recipient, **message)
    return (await relay.outcomes(before + 1))[-1]


@on_uvloop
async def test_a_certificate_is_shown_for_one_domain_and_not_for_another_of_the_site(tmp_path: pathlib.Path) -> None:
    certificate, fingerprint = own(tmp_path)
    shaping = tables(tmp_path, domain={"bank.example": DomainShaping(tls_certificate=certificate)})
    async with (
        fault_server(tls=asking_server()) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping) as relay,
    ):
        for recipient in (BANK, OTHER, BANK, OTHER):
            assert (await to(relay, recipient))["event"] == "delivered"
        assert [hashlib.sha256(each).hexdigest() for each in server.shown] == [fingerprint]
        by = {each.rcpts[0]: each.connection for each in server.received}
        assert len(server.received) == 4 and len(set(by.values())) == 2
        assert server.resumed == 0


@on_uvloop
async def test_a_session_is_not_resumed_where_another_certificate_is_shown(tmp_path: pathlib.Path) -> None:
    """Over TLS 1.3 a resumed session shows no certificate: the first one's owner would be who the server knows."""
    certificate, _ = own(tmp_path)
    more, _ = own(tmp_path, "bank.relay.example.org")
    shaping = Shaping(ShapingTables(
        default=ShapingDefault(
            tls="required", tls_ca=authority.write_authority(tmp_path), tls_certificate=certificate,
            idle_time=Duration(0.05),
        ),
        domain={
            "bank.example": DomainShaping(tls_certificate=more),
            "none.example": DomainShaping(unset=("tls_certificate",)),
        },
    ))  # fmt: skip
    async with (
        fault_server(tls=asking_server()) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping) as relay,
    ):
        for count, recipient in enumerate((OTHER, BANK, b"c@none.example"), 1):
            assert (await to(relay, recipient))["event"] == "delivered"
            await until(lambda: server.open_now == 0)
            assert (len(server.shown), server.resumed, server.connections) == (min(count, 2), 0, count)
        assert len(set(server.shown)) == 2
        for recipient in (OTHER, BANK):         # each takes up its own
            assert (await to(relay, recipient))["event"] == "delivered"
            await until(lambda: server.open_now == 0)
        assert server.resumed == 2


@on_uvloop
@pytest.mark.parametrize("level", ["provider", "site", "domain", "source", "tenant"])
async def test_authorities_are_trusted_at_each_level_and_nowhere_else(tmp_path: pathlib.Path, level: str) -> None:
    ca = strange_ca(tmp_path)
    named: dict[str, Any] = {
        "provider": {"p": ProviderShaping(domains=["bank.example"], tls_ca=ca)},
        "site": {"127.0.0.1": SiteShaping(tls_ca=ca), "mx0.example.net": SiteShaping(tls_ca=ca)},
        "domain": {"bank.example": DomainShaping(tls_ca=ca)},
        "source": {"default": SourceShaping(tls_ca=ca)},
        "tenant": {"shop": TenantShaping(tls_ca=ca)},
    }
    attributes = {Attribute.TENANT: b"shop"}
    async with (
        fault_server(tls=server_tls(ca="stranger")) as server,
        outgoing(tmp_path, to_here(server), shaping=tables(tmp_path, **{level: named[level]})) as relay,
    ):
        # The session of the first is kept, and verified for it: the second must not be let in by that.
        assert (await to(relay, BANK, attributes=attributes))["event"] == "delivered"
        if level not in ("site", "source"):
            other = await to(relay, OTHER)
            assert (other["event"], other["status"]) == ("deferred", "4.7.5")


@on_uvloop
async def test_dane_is_heeded_for_one_domain_and_not_for_another_of_the_site(tmp_path: pathlib.Path) -> None:
    shaping = tables(tmp_path, "opportunistic", domain={"bank.example": DomainShaping(dane=False)})
    async with (
        fault_server(tls=server_tls(ca="stranger")) as server,
        outgoing(tmp_path, with_tlsa(server, tlsa("other.example.net")), shaping=shaping) as relay,
    ):
        other = await to(relay, OTHER)
        assert (other["event"], other["status"]) == ("deferred", "4.7.5")
        bank = await to(relay, BANK)
        assert (bank["event"], bank["tls_policy"]) == ("delivered", "opportunistic")
        assert bank["tls_policy_from"] == "configuration"


@on_uvloop
async def test_a_reload_with_another_certificate_opens_other_connections(tmp_path: pathlib.Path) -> None:
    first, first_print = own(tmp_path)
    second, second_print = own(tmp_path, "new.example.org")

    def showing(certificate: CertificateOptions) -> Shaping:
        return tables(tmp_path, domain={"bank.example": DomainShaping(tls_certificate=certificate)})

    async with (
        fault_server(tls=asking_server()) as server,
        outgoing(tmp_path, to_here(server), shaping=showing(first)) as relay,
    ):
        for certificate, connections in ((first, 1), (first, 1), (second, 2)):
            relay.reload(showing(certificate))
            assert (await to(relay, BANK))["event"] == "delivered"
            assert server.connections == connections
        assert [hashlib.sha256(each).hexdigest() for each in server.shown] == [first_print, second_print]


@on_uvloop
async def test_dane_that_a_reload_switches_on_is_asked_of_open_connections(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(tls=server_tls(ca="stranger")) as server,
        outgoing(
            tmp_path,
            with_tlsa(server, tlsa("other.example.net")),
            shaping=tables(tmp_path, "opportunistic", domain={"bank.example": DomainShaping(dane=False)}),
        ) as relay,
    ):
        assert (await to(relay, BANK))["event"] == "delivered"
        relay.reload(tables(tmp_path, "opportunistic", domain={"bank.example": DomainShaping(dane=True)}))
        found = await to(relay, BANK)
        assert (found["event"], found["status"], len(server.received)) == ("deferred", "4.7.5", 1)


@on_uvloop
async def test_what_tlsa_records_vouched_for_is_not_taken_where_an_authority_is_to(tmp_path: pathlib.Path) -> None:
    """Once the connection of a certificate that no authority had signed carried on, as well verified as any."""

    def asking(tls: TlsName) -> Shaping:
        return tables(tmp_path, "opportunistic", domain={"bank.example": DomainShaping(tls=tls)})

    async with (
        fault_server(tls=server_tls(ca="stranger")) as server,
        outgoing(
            tmp_path, with_tlsa(server, tlsa("mx0.example.net", ca="stranger")), shaping=asking("opportunistic")
        ) as relay,
    ):
        assert (await to(relay, BANK))["tls_policy"] == "dane"
        relay.reload(asking("required"))
        found = await to(relay, BANK)
        assert (found["event"], found["status"], len(server.received)) == ("deferred", "4.7.5", 1)


@on_uvloop
async def test_a_host_that_fails_with_one_certificate_is_not_spoken_to_in_clear_with_another(
    tmp_path: pathlib.Path,
) -> None:
    certificate, _ = own(tmp_path)
    shaping = tables(
        tmp_path, "opportunistic", domain={"bank.example": DomainShaping(tls_certificate=certificate)}
    )
    async with (
        fault_server(tls=broken_tls()) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping) as relay,
    ):
        assert "tls" not in await to(relay, BANK)
        server.tls = server_tls()
        assert (await to(relay, OTHER))["tls"] == "TLSv1.3"
        assert "tls" not in await to(relay, BANK)       # of that one it is remembered


@on_uvloop
async def test_what_cannot_be_loaded_for_one_domain_keeps_others_going(tmp_path: pathlib.Path) -> None:
    missing = CertificateOptions(cert=str(tmp_path / "gone.pem"), key=str(tmp_path / "gone.key"))
    shaping = tables(tmp_path, domain={"bank.example": DomainShaping(tls_certificate=missing)})
    async with (
        fault_server(tls=server_tls()) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping) as relay,
    ):
        bank = await to(relay, BANK)
        assert bank["event"] == "deferred" and "gone.pem" in bank["reply"]
        assert (await to(relay, OTHER))["event"] == "delivered"


@on_uvloop
async def test_contexts_that_nobody_asks_for_are_forgotten(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = authority.write_authority(tmp_path)
    async with fault_server() as server, outgoing(tmp_path, to_here(server)) as relay:
        contexts = TlsContexts(asyncio.get_running_loop(), relay.journal)
        materials = [Material(ca), Material(ca, own(tmp_path)[0]), Material()]
        first = [await contexts.get(material, "strict") for material in materials]
        assert [await contexts.get(material, "strict") for material in materials] == first
        assert contexts.count == 3
        monkeypatch.setattr(tls_contexts, "_UNUSED_S", -1.0)
        await contexts.get(materials[0], "any")
        assert contexts.count == 1


@on_uvloop
async def test_a_message_that_requires_tls_goes_by_its_domains_authorities(tmp_path: pathlib.Path) -> None:
    shaping = tables(tmp_path, "none", domain={"bank.example": DomainShaping(tls_ca=strange_ca(tmp_path))})
    async with (
        fault_server(tls=server_tls(ca="stranger"), tls_extensions=[b"PIPELINING", b"REQUIRETLS"]) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping) as relay,
    ):
        assert (await to(relay, BANK, flags=2048))["tls_policy"] == "requiretls"
        assert (await one(relay, flags=2048))["event"] == "failed"
        assert len(server.received) == 1
