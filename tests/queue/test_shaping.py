"""Which table of [shaping] decides a key, and among whom limits are counted."""

from __future__ import annotations

from typing import Any

import pytest

from angarium.model.plan import Host, Site
from angarium.model.units import Duration, Rate
from angarium.queue.options import RetryOptions
from angarium.queue.shaping import Limits, Shaping, scope_name, shared_scope, tenant_gate_scope
from angarium.queue.shaping_options import (
    AllSites,
    DomainShaping,
    ProviderShaping,
    ShapingDefault,
    ShapingOptions,
    ShapingTables,
    SiteShaping,
    SourceProviderShaping,
    SourceShaping,
    SourceSiteShaping,
    TenantShaping,
)
from angarium.tls.options import CertificateOptions

SITE = Site("mx1.big.example,mx2.big.example", "smtp", (Host("mx2.big.example", ("192.0.2.2",)),))
OTHER = Site("mx.small.example", "smtp", (Host("mx.small.example", ("192.0.2.3",)),))


def limits(
    tables: ShapingTables, *, domain: str = "a.example", source: str = "", tenant: str = "", site: Site = SITE
) -> Limits:
    shaping = Shaping(tables)
    return shaping.limits(site, source, shaping.kind_of(site, domain.encode(), tenant.encode()))


EVERYWHERE = {
    "default": ShapingDefault(connections=1),
    "provider": {"big": ProviderShaping(mx=["*.big.example"], connections=2)},
    "site": {"mx1.big.example": SiteShaping(connections=3)},
    "domain": {"a.example": DomainShaping(connections=4)},
    "source": {"ip-1": SourceShaping(connections=5)},
}


@pytest.mark.parametrize(
    ("levels", "wanted"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)], ids=list(EVERYWHERE)
)
def test_the_narrowest_table_that_has_a_key_decides_it(levels: int, wanted: int) -> None:
    tables = ShapingTables(**dict(list(EVERYWHERE.items())[:levels]))  # type: ignore[arg-type]
    found = limits(tables, source="ip-1")
    assert found.options.connections == wanted
    assert found.set_by["connections"].path[1] == list(EVERYWHERE)[levels - 1]


def test_keys_that_a_narrow_table_does_not_have_come_from_wider_ones() -> None:
    tables = ShapingTables(
        default=ShapingDefault(idle_time=Duration(7)),
        provider={"big": ProviderShaping(mx=["*.big.example"], connections=2, messages_per_connection=20)},
        domain={"a.example": DomainShaping(messages_per_connection=5)},
    )
    found = limits(tables).options
    assert (found.idle_time, found.connections, found.messages_per_connection) == (7, 2, 5)


def test_a_table_for_others_decides_nothing() -> None:
    tables = ShapingTables(**EVERYWHERE)  # type: ignore[arg-type]
    assert limits(tables, domain="b.example").options.connections == 3
    assert limits(tables, site=OTHER, domain="b.example").options.connections == 1
    assert limits(tables, site=OTHER, domain="b.example", source="ip-2").options.connections == 1


@pytest.mark.parametrize("level", ["provider", "site", "domain", "source"])
def test_unset_is_as_if_no_wider_table_had_the_key(level: str) -> None:
    unset = {
        "provider": {"provider": {"big": ProviderShaping(mx=["*.big.example"], unset=("message_rate",))}},
        "site": {"site": {"mx1.big.example": SiteShaping(unset=("message_rate",))}},
        "domain": {"domain": {"a.example": DomainShaping(unset=("message_rate",))}},
        "source": {"source": {"ip-1": SourceShaping(unset=("message_rate",))}},
    }[level]
    tables = ShapingTables(default=ShapingDefault(message_rate=Rate(5.0), connections=3), **unset)  # type: ignore[arg-type]
    found = limits(tables, source="ip-1")
    assert found.options.message_rate is None
    assert found.options.connections == 3
    assert limits(tables, domain="b.example", site=OTHER).options.message_rate == 5


def test_a_provider_is_known_by_the_foremost_host_of_a_site_only() -> None:
    tables = ShapingTables(provider={"big": ProviderShaping(mx=["mx2.big.example"], connections=2)})
    assert limits(tables).options.connections == 32
    assert limits(tables, site=Site("mx2.big.example", "smtp")).options.connections == 2


def test_the_longer_pattern_of_hosts_wins() -> None:
    tables = ShapingTables(
        provider={
            "all": ProviderShaping(mx=["*.example"], connections=2),
            "big": ProviderShaping(mx=["*.big.example"], connections=3),
        }
    )
    assert limits(tables).options.connections == 3
    assert limits(tables, site=OTHER).options.connections == 2


def test_a_provider_by_domains_is_known_whatever_the_hosts() -> None:
    tables = ShapingTables(provider={"p": ProviderShaping(domains=["a.example", ".sub.example"], connections=2)})
    assert limits(tables).options.connections == 2
    assert limits(tables, domain="x.y.sub.example").options.connections == 2
    assert limits(tables, domain="sub.example").options.connections == 32


def test_a_site_is_named_by_its_whole_name_or_any_of_its_hosts() -> None:
    for name in (SITE.name, "mx2.big.example", "MX1.Big.Example"):
        assert limits(ShapingTables(site={name: SiteShaping(connections=2)})).options.connections == 2
    smarthost = Site("smtp://192.0.2.9:25", "smtp", (Host("192.0.2.9", ("192.0.2.9",)),))
    for name in ("192.0.2.9", "smtp://192.0.2.9:25"):
        assert limits(ShapingTables(site={name: SiteShaping(connections=2)}), site=smarthost).options.connections == 2


def scope(found: Limits, site: Site = SITE) -> str:
    return scope_name(site, found.connection_scope)


def test_limits_are_counted_among_the_mail_they_were_set_for() -> None:
    tables = ShapingTables(**EVERYWHERE)  # type: ignore[arg-type]
    plain = limits(tables, domain="b.example")
    of_domain = limits(tables)
    of_source = limits(tables, source="ip-1")
    assert scope(plain) == SITE.name
    assert len({scope(plain), scope(of_domain), scope(of_source)}) == 3
    # Another key of the same mail, which the domain's table does not have, is counted with the site's other mail.
    assert scope_name(SITE, of_domain.rate_scope) == SITE.name


def test_a_shared_provider_has_one_count_for_all_its_sites() -> None:
    site = Site("mx9.big.example", "smtp")
    for share, count in ((True, 1), (False, 2)):
        tables = ShapingTables(provider={"big": ProviderShaping(mx=["*.big.example"], connections=2, share=share)})
        assert len({scope(limits(tables)), scope(limits(tables, site=site), site)}) == count


def test_the_rate_of_a_tenant_holds_besides_that_of_the_site() -> None:
    tables = ShapingTables(
        default=ShapingDefault(message_rate=Rate(5.0)),
        tenant={"shop": TenantShaping(message_rate=Rate(9.0), retry=RetryOptions(factor=3.0))},
    )
    found = limits(tables, tenant="shop")
    assert (found.options.message_rate, found.tenant_rate) == (5.0, 9.0)
    assert found.retry is not None and found.retry.factor == 3.0
    assert scope_name(SITE, found.rate_scope) == SITE.name != scope_name(SITE, found.tenant_scope)
    assert limits(tables, tenant="else").tenant_rate is None


def test_connections_of_a_tenant_hold_besides_those_of_the_site_and_are_counted_apart() -> None:
    tables = ShapingTables(
        default=ShapingDefault(connections=5, connection_rate=Rate(7.0)),
        tenant={
            "shop": TenantShaping(connections=3, connection_rate=Rate(2.0), idle_time=Duration(9)),
            "shared": TenantShaping(connections=3, share=True),
            "slow": TenantShaping(message_rate=Rate(1.0)),
        },
    )
    found, plain = limits(tables, tenant="shop"), limits(tables)
    assert (found.options.connections, found.options.connection_rate, found.options.idle_time) == (5, 7.0, 9)
    assert found.tenant_places == AllSites(connections=3, connection_rate=Rate(2.0))
    assert scope(found) == scope(plain) == SITE.name
    assert found.set_by["tenant.connections"].path == ("shaping", "tenant", "shop")
    assert tenant_gate_scope(SITE, found) != tenant_gate_scope(OTHER, found)
    shared = limits(tables, tenant="shared")
    assert tenant_gate_scope(SITE, shared) == tenant_gate_scope(OTHER, shared)
    assert limits(tables, tenant="slow").tenant_places is None


@pytest.mark.parametrize("key", ["connections", "connection_rate", "message_rate"])
def test_a_tenant_for_which_a_limit_is_unset_is_not_held_to_that_of_the_site(key: str) -> None:
    default = ShapingDefault(connections=3, connection_rate=Rate(3.0), message_rate=Rate(3.0))
    others = {other: Rate(1.0) if "rate" in other else 1 for other in ("connections", "message_rate") if other != key}
    tables = ShapingTables(default=default, tenant={"shop": TenantShaping(unset=(key,), **others)})  # type: ignore[arg-type]
    found = limits(tables, tenant="shop")
    assert getattr(found.options, key) == getattr(ShapingOptions(), key)
    assert found.set_by[key].path == ("shaping", "tenant", "shop")
    # Neither is it counted among the site's mail, nor twice where another limit of the tenant holds besides.
    scopes = {"connections": "connection_scope", "connection_rate": "dial_scope", "message_rate": "rate_scope"}
    counted = scope_name(SITE, getattr(found, scopes[key]))
    assert counted not in (SITE.name, tenant_gate_scope(SITE, found))


def of_pair(**both: Any) -> ShapingTables:
    return ShapingTables(
        default=ShapingDefault(connections=1, message_rate=Rate(1.0), idle_time=Duration(1)),
        provider={
            "big": ProviderShaping(mx=["*.big.example"], connections=2), "own": ProviderShaping(domains=["o.example"])
        },
        domain={"a.example": DomainShaping(connections=4, idle_time=Duration(4))},
        source={"ip-1": SourceShaping(connections=5, **both), "ip-2": SourceShaping(connections=6)},
        tenant={"shop": TenantShaping(connections=9, idle_time=Duration(9))},
    )


def test_tables_of_a_source_and_a_provider_or_site_are_narrower_than_the_sources() -> None:
    """And the site's before the provider's; a tenant's, which is nobody's pair, before both."""
    provider = {"big": SourceProviderShaping(connections=7, message_rate=Rate(7.0), tls="required")}
    site = {"MX2.big.example": SourceSiteShaping(connections=8, tls_ca="/ca.pem")}
    both = limits(of_pair(provider=provider, site=site), source="ip-1", tenant="shop")
    assert (both.options.connections, both.options.message_rate, both.options.idle_time) == (8, 7.0, 9)
    assert (both.options.tls, both.options.tls_ca) == ("required", "/ca.pem")
    assert both.set_by["connections"].path == ("shaping", "source", "ip-1", "site", "MX2.big.example")
    assert both.set_by["message_rate"].path == ("shaping", "source", "ip-1", "provider", "big")
    one = limits(of_pair(provider=provider), source="ip-1")
    assert (one.options.connections, one.options.idle_time) == (7, 4)
    for others in ({"source": "ip-2"}, {"source": "ip-1", "site": OTHER}):
        found = limits(of_pair(provider=provider, site=site), **others)  # type: ignore[arg-type]
        assert found.options.connections == (6 if others["source"] == "ip-2" else 5)
        assert found.options.message_rate == 1.0


def test_limits_of_a_pair_are_counted_among_its_mail() -> None:
    site = Site("mx9.big.example", "smtp")
    for share, count in ((True, 1), (False, 2)):
        tables = of_pair(provider={"big": SourceProviderShaping(connections=7, share=share)})
        scopes = {scope(limits(tables, source="ip-1", site=each), each) for each in (SITE, site)}
        assert len(scopes) == count
        assert scope(limits(tables, source="ip-2")) not in scopes
        # By domains: some of the site's mail, apart from what the source sends to the site.
        own = of_pair(provider={"own": SourceProviderShaping(connections=3)})
        assert scope(limits(own, source="ip-1", domain="o.example")) != scope(limits(own, source="ip-1"))
    one = SourceShaping(provider={"b": SourceProviderShaping(connections=2, share=True)})
    alike = ShapingTables(
        provider={"b": ProviderShaping(mx=["*.big.example"])},
        source={"a": one, "a provider b": SourceShaping(all_sites=AllSites(connections=2))},
    )
    assert scope(limits(alike, source="a")) != shared_scope("source", "a provider b")
    tables = of_pair(site={SITE.name: SourceSiteShaping(message_rate=Rate(2.0))})
    found = limits(tables, source="ip-1")
    assert found.rate_scope == found.connection_scope != limits(tables, source="ip-2").rate_scope


def test_a_pair_may_unset_what_its_source_says() -> None:
    tables = of_pair(site={SITE.name: SourceSiteShaping(unset=("connections", "message_rate"))})
    found = limits(tables, source="ip-1").options
    assert (found.connections, found.message_rate) == (32, None)
    assert limits(tables, source="ip-1", site=OTHER).options.connections == 5


def test_what_a_source_may_do_over_all_sites_holds_besides_what_each_allows() -> None:
    in_all = AllSites(connections=50, message_rate=Rate(9.0))
    tables = ShapingTables(
        provider={"big": ProviderShaping(mx=["*.big.example"], connections=2)},
        source={"ip-1": SourceShaping(all_sites=in_all)},
    )
    found = limits(tables, source="ip-1")
    assert (found.options.connections, found.options.message_rate, found.all_sites) == (2, None, in_all)
    assert scope(found) == SITE.name == scope(limits(tables, source="ip-2"))
    assert limits(tables, source="ip-2").all_sites is None


def test_the_provider_of_mail_is_that_of_its_domain_before_that_of_its_site() -> None:
    providers = {"big": ProviderShaping(mx=["*.big.example"]), "own": ProviderShaping(domains=["a.example"])}
    shaping = Shaping(ShapingTables(provider=providers))
    found = {
        (site.name, domain): shaping.provider_of(site, shaping.kind_of(site, domain))
        for site in (SITE, OTHER)
        for domain in (b"a.example", b"b.example")
    }
    assert list(found.values()) == ["own", "big", "own", ""]


def test_domains_in_any_spelling_meet_their_table() -> None:
    tables = ShapingTables(
        domain={"Bücher.example": DomainShaping(connections=2), ".corp.example": DomainShaping(connections=3)}
    )
    assert limits(tables, domain="xn--bcher-kva.example").options.connections == 2
    assert limits(tables, domain="BÜCHER.example").options.connections == 2
    assert limits(tables, domain="a.b.corp.example").options.connections == 3
    assert limits(tables, domain="[192.0.2.1]").options.connections == 32


def test_the_same_tables_give_the_same_object() -> None:
    shaping = Shaping(ShapingTables(**EVERYWHERE))  # type: ignore[arg-type]
    assert shaping.limits(SITE, "ip-1") is shaping.limits(SITE, "ip-1")
    assert shaping.limits(OTHER, "ip-2") is shaping.limits(OTHER, "ip-3")
    assert Shaping(ShapingOptions()).kind_of(SITE, b"a.example") is None


SHOWN = {name: CertificateOptions(cert=f"/{name}.pem", key=f"/{name}.key") for name in (*EVERYWHERE, "tenant")}
OF_TLS = {
    "default": ShapingDefault(tls_ca="/default.pem", tls_certificate=SHOWN["default"], dane=False),
    "provider": {
        "big": ProviderShaping(mx=["*.big.example"], tls_ca="/provider.pem", tls_certificate=SHOWN["provider"])
    },
    "site": {"mx1.big.example": SiteShaping(tls_ca="/site.pem", tls_certificate=SHOWN["site"], dane=True)},
    "domain": {"a.example": DomainShaping(tls_ca="/domain.pem", tls_certificate=SHOWN["domain"], dane=False)},
    "source": {"ip-1": SourceShaping(tls_ca="/source.pem", tls_certificate=SHOWN["source"], mta_sts=True)},
    "tenant": {"shop": TenantShaping(tls_ca="/tenant.pem", tls_certificate=SHOWN["tenant"], mta_sts=False)},
}


@pytest.mark.parametrize("levels", range(1, 7), ids=list(OF_TLS))
def test_keys_of_tls_are_set_at_every_level(levels: int) -> None:
    tables = ShapingTables(**dict(list(OF_TLS.items())[:levels]))  # type: ignore[arg-type]
    found = limits(tables, source="ip-1", tenant="shop").options
    level = list(OF_TLS)[levels - 1]
    assert (found.tls_ca, found.tls_certificate) == (f"/{level}.pem", SHOWN[level])
    assert (found.dane, found.mta_sts) == (levels == 3, levels == 5)


@pytest.mark.parametrize("level", ["provider", "site", "domain", "source", "tenant"])
def test_keys_of_tls_are_unset_at_every_level(level: str) -> None:
    keys = ("tls_ca", "tls_certificate", "dane", "tls")
    unset = {
        "provider": {"big": ProviderShaping(mx=["*.big.example"], unset=keys)},
        "site": {"mx1.big.example": SiteShaping(unset=keys)},
        "domain": {"a.example": DomainShaping(unset=keys)},
        "source": {"ip-1": SourceShaping(unset=keys)},
        "tenant": {"shop": TenantShaping(unset=keys)},
    }[level]
    default = ShapingDefault(tls_ca="/ca.pem", tls_certificate=SHOWN["default"], dane=False, tls="required")
    tables = ShapingTables(default=default, **{level: unset})  # type: ignore[arg-type]
    found = limits(tables, source="ip-1", tenant="shop").options
    assert (found.tls_ca, found.tls_certificate, found.dane, found.tls) == (None, None, True, "opportunistic")
    other = limits(tables, site=OTHER, domain="b.example").options
    assert (other.tls_ca, other.dane, other.tls) == ("/ca.pem", False, "required")


@pytest.mark.parametrize(
    ("tables", "at_big", "at_other"),
    [
        ({}, (True, False), (True, False)),
        ({"default": ShapingDefault(dane=False)}, (False, False), (False, False)),
        ({"provider": {"big": ProviderShaping(mx=["*.big.example"], dane=False)}}, (False, False), (True, False)),
        ({"domain": {"a.example": DomainShaping(mta_sts=True)}}, (True, True), (True, False)),
        # Of who decides behind the plan, it is enough that one asks for it.
        ({"default": ShapingDefault(dane=False), "source": {"ip-1": SourceShaping(unset=("dane",))}},
         (True, False), (True, False)),
        ({"tenant": {"shop": TenantShaping(mta_sts=True, dane=False)}}, (True, True), (True, True)),
        ({"source": {"ip-1": SourceShaping(site={"mx": SourceSiteShaping(mta_sts=True)})}}, (True, True), (True, True)),
    ],
)  # fmt: skip
def test_what_is_published_is_looked_up_where_some_mail_heeds_it(
    tables: dict[str, Any], at_big: tuple[bool, bool], at_other: tuple[bool, bool]
) -> None:
    shaping = Shaping(ShapingTables(**tables))
    assert tuple(shaping.looked_up(SITE, b"a.example")) == at_big
    assert tuple(shaping.looked_up(OTHER, b"b.example")) == at_other
    ever = shaping.ever_looked_up()
    assert ever.tlsa or not (at_big[0] or at_other[0])
    assert ever.sts or not (at_big[1] or at_other[1])
    assert not shaping.looks_up_alike or at_big == at_other


def test_what_a_table_cannot_mean_is_refused_with_the_reason() -> None:
    for kind, key, value, reason in (
        (SourceShaping, "address_family", "ipv4", "the address in [source] decides it"),
        (DomainShaping, "tls_ca", "ca.pem", "not an absolute path"),
        (TenantShaping, "login", "us", "told to every host"),
        (ShapingDefault, "retry", RetryOptions(), "set in [queue.default]"),
        (SiteShaping, "end_timeout", 0.0, "more than 0"),
        (ProviderShaping, "mx", ["mx.*.example"], "neither a host name nor"),
        (ProviderShaping, "domains", ["*.example"], "neither a domain nor"),
    ):
        with pytest.raises(ValueError, match=key + r".*" + reason.replace("[", r"\[")):
            kind(**{key: value})
