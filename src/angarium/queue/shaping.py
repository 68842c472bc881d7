"""Which limits hold for the mail of one ready queue, among whom they are counted, and which table said so.

default < provider < site < domain < source < source and provider < source and site < tenant: the narrowest table
that has a key decides it. Asked when a ready queue is made and when the configuration changes, never for a message;
answers for the same tables are kept.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from angarium.model.plan import Published, Site
from angarium.model.units import Rate
from angarium.queue.options import RetryOptions
from angarium.queue.shaping_options import AllSites, Overrides, ShapingOptions, ShapingTables, domain_pattern
from angarium.resolver.domain_name import to_a_labels
from angarium.smtp.client_session import PhaseTimeouts

# What of a domain queue's mail is not like other mail for the same site: provider (by its `domains`), domain table,
# tenant; "" for none.
Kind = tuple[str, str, str]

# In front of the name under which connections are counted: for connections begun, which are not messages.
DIALS: Final = "\n dials "

KEYS: Final = ShapingOptions.__struct_fields__

# Of a tenant these hold besides what wider tables say: no number of tenants gets past what a receiver allows.
_BESIDES: Final = AllSites.__struct_fields__

_BUILT_IN: Final = ShapingOptions()


class Table(msgspec.Struct, frozen=True):
    """One table of the configuration: ("shaping", "provider", "google"), say."""

    path: tuple[str, ...]
    keys: Overrides | ShapingOptions

    def has(self, key: str) -> bool:
        if isinstance(self.keys, Overrides):
            return self.keys.has(key)
        return bool(getattr(self.keys, key) != getattr(_BUILT_IN, key))


class Limits(msgspec.Struct, frozen=True):
    """What holds for one ready queue.

    options      the values in force.
    set_by       key -> the table that decided it; a key that no table has is not in it. "tenant.KEY" of `tenant`.
    tenant       what the tenant's table says of these keys: it holds besides what is in options; None: nothing.
    timeouts     options.*_timeout for sessions; None: the built-in ones.
    all_sites    of the source, besides what is in options; None: no limit.
    *_scope      behind a site's name, or in its place when they begin with NUL (shared over sites): among whom
                 connections, connection_rate, message_rate and what is in `tenant` are counted.
    """

    options: ShapingOptions
    set_by: dict[str, Table]
    tenant: AllSites | None
    timeouts: PhaseTimeouts | None
    connection_scope: str = ""
    dial_scope: str = ""
    rate_scope: str = ""
    tenant_scope: str = ""
    all_sites: AllSites | None = None

    @property
    def tenant_rate(self) -> Rate | None:
        return self.tenant.message_rate if self.tenant is not None else None

    @property
    def tenant_places(self) -> AllSites | None:
        """`tenant` where it says something of connections."""
        limits = self.tenant
        return limits if limits is not None and (limits.connections or limits.connection_rate) else None

    @property
    def retry(self) -> RetryOptions | None:
        return self.options.retry


def kind_text(kind: Kind | None) -> str:
    """For people: "domain bank.example, tenant shop"; "" for other mail."""
    parts = zip(("provider", "domain", "tenant"), kind or (), strict=False)
    return ", ".join(f"{level} {name}" for level, name in parts if name)


def scope_name(site: Site, scope: str) -> str:
    """The name under which something is counted (queue/shares.pyx)."""
    return scope if scope.startswith("\0") else site.name + scope


def tenant_gate_scope(site: Site, limits: Limits) -> str:
    """The name under which connections of a tenant are counted that hold besides those of the site: not its messages'
    name, by which those of the site are counted where the tenant has unset their limit."""
    return "\n besides " + scope_name(site, limits.tenant_scope)


def shared_scope(level: str, name: str) -> str:
    """The scope of what has one count over all sites."""
    return f"\0\n {level} {name}"


class Shaping:
    """[shaping.*] of one configuration; a changed one is a new object. One per worker."""

    def __init__(self, tables: ShapingTables | ShapingOptions | None = None) -> None:
        """ShapingOptions alone: the same for all mail."""
        if not isinstance(tables, ShapingTables):
            self.default = tables or ShapingOptions()
            tables = ShapingTables()
        else:
            self.default = tables.default
        self._tables = tables
        self._default = Table(("shaping", "default"), self.default)
        self._is_plain = not (tables.provider or tables.site or tables.domain or tables.source or tables.tenant)
        self._has_kinds = bool(tables.domain or tables.tenant or any(each.domains for each in tables.provider.values()))
        self._provider_of_host: dict[str, str] = {}
        self._provider_of_domain: dict[str, str] = {}
        for name, provider in tables.provider.items():
            for pattern in provider.mx:     # of two with the same pattern the first counts
                self._provider_of_host.setdefault(pattern.removeprefix("*").lower(), name)
            for pattern in provider.domains:
                self._provider_of_domain.setdefault(domain_pattern(pattern), name)
        self._domains = {domain_pattern(name): name for name in tables.domain}
        self._sites = {name.lower(): name for name in tables.site}
        self._sites_of_source = {
            name: {site.lower(): site for site in source.site} for name, source in tables.source.items() if source.site
        }
        # Who decides about published policies behind the look-up that finds them: the source, or the message.
        self._behind_plans: list[Overrides] = [*tables.source.values(), *tables.tenant.values()]
        self._behind_plans += [table for _, table in tables.pairs()]
        # For the queue: None when no message's tenant matters, so that none is looked for.
        self.tenants = frozenset(name.encode() for name in tables.tenant) or None
        self._known: dict[tuple[str, str, str, str, Kind | None], Limits] = {}

    def kind_of(self, site: Site, domain: bytes, tenant: bytes = b"") -> Kind | None:
        """What tells the mail of a domain queue apart from other mail for the site; None: nothing."""
        if not self._has_kinds:
            return None
        name = normal_domain(domain)
        provider = _closest(self._provider_of_domain, name)
        if provider == self._provider_of_site(site):
            provider = ""
        tenant_name = tenant.decode("utf-8", "replace")
        kind = (provider, _closest(self._domains, name), tenant_name if tenant_name in self._tables.tenant else "")
        return kind if any(kind) else None

    def provider_of(self, site: Site, kind: Kind | None) -> str:
        """Whose mail it is: by the domain, else by the site's foremost host; "": nobody's that is known."""
        return (kind[0] if kind else "") or self._provider_of_site(site)

    def looked_up(self, site: Site, domain: bytes) -> Published:
        """What of what is published about TLS counts for some mail to the domain at the site."""
        options = self.limits(site, "", self.kind_of(site, domain)).options
        return Published(
            options.dane or any(_turns_on(table, "dane") for table in self._behind_plans),
            options.mta_sts or any(_turns_on(table, "mta_sts") for table in self._behind_plans),
        )

    def ever_looked_up(self) -> Published:
        """The same of all mail there is."""
        return Published(
            self.default.dane or any(_turns_on(table, "dane") for table in self._tables.narrower()),
            self.default.mta_sts or any(_turns_on(table, "mta_sts") for table in self._tables.narrower()),
        )

    @property
    def looks_up_alike(self) -> bool:
        """looked_up() is the same for all mail."""
        return not any(table.has("dane") or table.has("mta_sts") for table in self._tables.narrower())

    def limits(self, site: Site, source: str, kind: Kind | None = None) -> Limits:
        """What holds for mail to a site from a source."""
        provider = site_table = pair_site = ""
        if not self._is_plain:
            provider = self.provider_of(site, kind)
            site_table = _site_table(site, self._sites)
            if source not in self._tables.source:
                source = ""
            if source in self._sites_of_source:
                pair_site = _site_table(site, self._sites_of_source[source])
        else:
            source, kind = "", None
        key = (provider, site_table, source, pair_site, kind)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._resolve(provider, site_table, source, pair_site, kind)
        return known

    def _resolve(self, provider: str, site_table: str, source: str, pair_site: str, kind: Kind | None) -> Limits:
        by_domains, domain, tenant = kind or ("", "", "")
        tables = self._tables
        # From wide to narrow, each with its scope.
        levels: list[tuple[Table, str]] = [(self._default, "")]

        def add(level: str, name: str, of: dict[str, Any], *, is_apart: bool = True) -> None:
            if name not in of:          # a name that a reload has taken away is still in the kinds of ready queues
                return
            scope = f"\n {level} {name}" if is_apart else ""
            if getattr(of[name], "share", False):
                scope = shared_scope(level, name)
            levels.append((Table(("shaping", level, name), of[name]), scope))

        # A site whose hosts are the provider's counts as a whole; by domains it is some of the site's mail.
        add("provider", provider, tables.provider, is_apart=bool(by_domains))
        add("site", site_table, tables.site, is_apart=False)
        add("domain", domain, tables.domain)
        add("source", source, tables.source)
        if (own := tables.source.get(source)) is not None:
            path = ("shaping", "source", source)
            if (pair := own.provider.get(provider)) is not None:
                of_both = f"source {source}\tprovider"       # no name has a tab in it
                scope = shared_scope(of_both, provider) if pair.share else f"\n {of_both} {provider}"
                levels.append((Table((*path, "provider", provider), pair), scope))
            if pair_site:       # counted as what the source's own table says: that stands here for the same mail
                levels.append((Table((*path, "site", pair_site), own.site[pair_site]), f"\n source {source}"))
        add("tenant", tenant, tables.tenant)

        values: dict[str, Any] = {}
        set_by: dict[str, Table] = {}
        scopes: dict[str, str] = {}
        of_tenant: dict[str, Any] = {}
        for table, scope in levels:
            is_tenant = table.path[1] == "tenant"
            for key in KEYS:
                if not table.has(key):
                    continue
                value = getattr(table.keys, key)
                if is_tenant and key in _BESIDES and value is not None:
                    of_tenant[key] = value
                    scopes["tenant"] = scope
                    set_by[f"tenant.{key}"] = table
                    continue
                values[key] = getattr(_BUILT_IN, key) if value is None else value
                set_by[key] = table
                scopes[key] = scope
        options = ShapingOptions(**values)
        return Limits(
            options, set_by, AllSites(**of_tenant) if of_tenant else None, _timeouts(options),
            scopes.get("connections", ""), scopes.get("connection_rate", ""), scopes.get("message_rate", ""),
            scopes.get("tenant", ""), tables.source[source].all_sites if source in tables.source else None,
        )  # fmt: skip

    def _provider_of_site(self, site: Site) -> str:
        """By the foremost host: an operator behind a filter is the filter's customer."""
        if not self._provider_of_host:
            return ""
        host = _host_names(site)[0]
        if (found := self._provider_of_host.get(host)) is not None:
            return found
        dot = host.find(".")
        while dot != -1:
            if (found := self._provider_of_host.get(host[dot:])) is not None:
                return found
            dot = host.find(".", dot + 1)
        return ""


def _site_table(site: Site, tables: dict[str, str]) -> str:
    """The name of the table for a site, by its own name or that of one of its hosts; "": there is none."""
    if not tables:
        return ""
    return next((tables[name] for name in (site.name.lower(), *_host_names(site)) if name in tables), "")


def _host_names(site: Site) -> list[str]:
    """By preference, those without an address just now too; of a next hop that the operator named, its host."""
    if site.protocol in ("lmtp+unix", "maildir"):
        return [site.name]
    if "://" in site.name:
        return [host.name.lower() for host in site.hosts] or [site.name]
    return site.name.lower().split(",")


def _turns_on(table: Overrides, key: str) -> bool:
    value = getattr(table, key)
    return bool(getattr(_BUILT_IN, key) if value is None and key in table.unset else value)


def normal_domain(domain: bytes) -> str:
    """In A-labels and lower case; an address literal as it is."""
    try:
        return to_a_labels(domain)
    except ValueError:
        return domain.decode("utf-8", "replace").lower()    # an address literal


def _closest(patterns: dict[str, str], name: str) -> str:
    """Of "example.com", ".example.com", ".com" the first that is there."""
    if not patterns:
        return ""
    if (found := patterns.get(name)) is not None:
        return found
    dot = name.find(".")
    while dot != -1 and not name.startswith("["):
        if (found := patterns.get(name[dot:])) is not None:
            return found
        dot = name.find(".", dot + 1)
    return ""


def _timeouts(options: ShapingOptions) -> PhaseTimeouts | None:
    keys = [key for key in KEYS if key.endswith("_timeout") and key != "connect_timeout"]
    if all(getattr(options, key) == getattr(_BUILT_IN, key) for key in keys):
        return None
    return PhaseTimeouts(**{key.removesuffix("_timeout"): getattr(options, key) for key in keys})
