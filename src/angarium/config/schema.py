"""The whole configuration: the Structs that live beside their readers, put together under the names of the
file.

Here is also what no single Struct can know: references between tables.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from angarium.admin.options import AdminOptions
from angarium.admission.options import AdmissionOptions
from angarium.bounces.options import BouncesOptions, RulesRefused, make_classifier
from angarium.bounces.report_options import ReportsOptions
from angarium.bounces.suppression_options import SuppressionOptions
from angarium.config.decode import decode_tables, key_path
from angarium.config.files import KeyPath, Tree, read_tree
from angarium.config.node import NodeOptions
from angarium.config.shaping_files import add_shaping_files
from angarium.config.unset import without_unset
from angarium.inbound.options import ListenerOptions
from angarium.model.errors import TlsMaterialError
from angarium.model.plan import Host, Site, Source, TlsName
from angarium.policy.hook_file import HookFileError, HookSource, read_source
from angarium.policy.options import PolicyOptions
from angarium.queue.automation_options import AutomationOptions
from angarium.queue.options import MemoryOptions, QueueOptions
from angarium.queue.quiet import QuietOptions
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ShapingOptions, ShapingTables
from angarium.queue.tenant_options import TenantOptions
from angarium.recipients.options import BccOptions, DomainOptions, RecipientsOptions, domain_name
from angarium.resolver.options import ResolverOptions
from angarium.routing.egress_pool import source_of
from angarium.routing.next_hop import NextHop, parse_next_hop
from angarium.routing.options import (
    LABEL_CHARACTERS,
    EgressOptions,
    PoolOptions,
    RouteOptions,
    SourceOptions,
    domain_key,
)
from angarium.routing.warmup import WarmupOptions, unknown_names
from angarium.sasl.login_options import LoginOptions
from angarium.sasl.logins import read_secret
from angarium.sasl.options import AuthOptions
from angarium.sasl.secret_file import LoginTrouble
from angarium.sasl.token_command import check_command
from angarium.sasl.token_endpoint import check_endpoint
from angarium.tls.certificates import load as load_certificates
from angarium.tls.certificates import load_client
from angarium.tls.options import CertificateOptions
from angarium.tls.report_options import TlsReportOptions


class QueueTables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[queue.*]: retry and expiry, memory."""

    default: QueueOptions = QueueOptions()
    memory: MemoryOptions = MemoryOptions()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One TOML file (and what it includes), checked."""

    node: NodeOptions = NodeOptions()
    listener: list[ListenerOptions] = []
    route: list[RouteOptions] = []
    source: dict[str, SourceOptions] = {}
    pool: dict[str, PoolOptions] = {}
    egress: list[EgressOptions] = []
    warmup: dict[str, WarmupOptions] = {}
    shaping: ShapingTables = ShapingTables()
    quiet: list[QuietOptions] = []
    automation: AutomationOptions = AutomationOptions()
    queue: QueueTables = QueueTables()
    tenant: dict[str, TenantOptions] = {}
    resolver: ResolverOptions = ResolverOptions()
    admin: AdminOptions = AdminOptions()
    auth: AuthOptions = AuthOptions()
    policy: PolicyOptions = PolicyOptions()
    admission: AdmissionOptions = AdmissionOptions()
    login: dict[str, LoginOptions] = {}
    domain: dict[str, DomainOptions] = {}
    recipients: RecipientsOptions = RecipientsOptions()
    bcc: list[BccOptions] = []
    bounces: BouncesOptions = BouncesOptions()
    reports: ReportsOptions = ReportsOptions()
    suppression: SuppressionOptions = SuppressionOptions()
    tls_reports: TlsReportOptions = TlsReportOptions()

    def sources(self) -> list[Source]:
        """[source.*] as values; without any, the one that there always is."""
        hostname = self.node.own_hostname()
        made = [source_of(name, options, hostname) for name, options in self.source.items()]
        return made or [Source("default", "", hostname)]

    def weights(self) -> dict[bytes, int]:
        """[tenant.*] weight, for the queue."""
        return {name.encode(): options.weight for name, options in self.tenant.items() if options.weight != 1}

    def all_routes(self) -> list[RouteOptions]:
        """Those of [domain.*] next_hop first, the closest name before wider ones, then [[route]]."""
        names = sorted(self.domain, key=lambda name: (name.startswith("."), -name.count(".")))
        own = [(name, self.domain[name].next_hop) for name in names if self.domain[name].next_hop]
        return [*(RouteOptions(domain=name, next_hop=hop) for name, hop in own), *self.route]

    def delivery_digest(self) -> str:
        """The same for two configurations that deliver alike: routes, limits and TLS, logins, resolver."""
        parts = [self.all_routes(), self.shaping, self.login, self.resolver]
        text = msgspec.json.encode(parts, enc_hook=str, order="deterministic")
        return hashlib.blake2b(text, digest_size=16).hexdigest()


def load(path: Path) -> tuple[Config, Tree]:
    """Reads and checks everything. Raises ConfigError: `FILE: listener[0].address: reason`."""
    tree = read_tree(path)
    add_shaping_files(tree)
    return decode(tree), tree


def decode(tree: Tree) -> Config:
    """The tree as a Config, references checked. Raises ConfigError."""
    config = decode_tables(tree, Config, without_unset(tree.tables))
    if not config.listener:
        raise tree.complain(("listener",), "none: a relay needs at least one [[listener]]")
    seen: dict[str, int] = {}
    for index, listener in enumerate(config.listener):
        address = str(listener.address)
        if address in seen and not address.endswith(":0"):
            raise tree.complain(
                ("listener", index, "address"), f"{address} is listener[{seen[address]}]'s already"
            )
        seen[address] = index
        if listener.auth.is_offered and not config.auth.credentials:
            raise tree.complain(("listener", index, "auth"), "AUTH needs auth.credentials to know people by")
    if config.auth.credentials.kind == "hook" and not config.policy.file:
        raise tree.complain(("auth", "credentials"), 'a hook is to know them, but policy.file names none')
    _check_sources(config, tree)
    _check_services(config, tree)
    _check_domains(config, tree)
    _check_logins(config, tree)
    return config


def check_certificates(config: Config, tree: Tree) -> None:
    """Reads the certificates of all listeners, and what connections out bring along.

    Raises ConfigError with the key at fault.

    Apart from decode(): commands that only look up an address need no right to read keys.
    """
    for index, listener in enumerate(config.listener):
        if listener.tls is None:
            continue
        try:
            load_certificates(listener.tls, None)
        except TlsMaterialError as error:
            key, reason = error.key, error.reason
            raise tree.complain(("listener", index, "tls", *key_path(key)), reason) from None

    default = config.shaping.default
    _check_material(tree, ("shaping", "default"), default.tls_ca, default.tls_certificate)
    for path, table in config.shaping.named():
        if table.tls_ca is not None or table.tls_certificate is not None:
            _check_material(tree, path, table.tls_ca, table.tls_certificate)


def _check_material(
    tree: Tree, path: tuple[str, ...], ca: str | None, certificate: CertificateOptions | None
) -> None:
    try:
        load_client(ca, certificate, "strict")
    except TlsMaterialError as error:
        raise tree.complain((*path, *key_path(error.key)), error.reason) from None


def check_secrets(config: Config, tree: Tree) -> None:
    """Reads the secrets of logins; tokens come and go. Raises ConfigError. Apart from decode(), as certificates."""
    of_questions = config.recipients.call_ahead.auth
    logins: list[tuple[tuple[str, ...], LoginOptions]]
    logins = [(("login", name), each) for name, each in config.login.items()]
    logins += [(("recipients", "call_ahead", "auth", text), each) for text, each in of_questions.items()]
    for path, options in logins:
        key = "password_file"
        try:
            if options.password_file:
                read_secret(options)
            if options.token_command:
                key = "token_command"
                check_command(options.token_command[0])
            if options.token_endpoint is not None:
                key = "token_endpoint"
                check_endpoint(options.token_endpoint)
        except LoginTrouble as error:
            raise tree.complain((*path, key), str(error)) from None


def read_hooks(config: Config, tree: Tree) -> HookSource | None:
    """The text of policy.file, compiled once to see that it is Python; None: there is none. Raises ConfigError.

    Apart from decode(), as certificates are: who only looks up an address need not be able to read it.
    """
    if not config.policy.file:
        return None
    try:
        return read_source(config.policy.file, _needed_hooks(config))
    except HookFileError as error:
        raise tree.complain(("policy", "file"), str(error)) from None


def _needed_hooks(config: Config) -> tuple[tuple[str, str], ...]:
    asking = [name for name, domain in config.domain.items() if domain.asks_hook]
    return (("knows_recipient", f'domain."{asking[0]}".recipients'),) if asking else ()


def check_rules(config: Config, tree: Tree) -> None:
    """Reads bounces.rules. Raises ConfigError. Apart from decode(), as certificates are."""
    try:
        make_classifier(config.bounces)
    except RulesRefused as error:
        raise tree.complain(("bounces", "rules", error.index), str(error)) from None


def of_tables(tables: dict[str, Any]) -> Config:
    """A Config from tables that were checked before (a worker's, sent by its supervisor)."""
    tree = Tree()
    tree.tables = tables
    return decode(tree)


def _check_services(config: Config, tree: Tree) -> None:
    """Policy services name listeners that exist."""
    known = {str(listener.address) for listener in config.listener}
    for index, service in enumerate(config.policy.service):
        for place, address in enumerate(service.listeners):
            if str(address) not in known:
                path = ("policy", "service", index, "listeners", place)
                raise tree.complain(path, f"there is no [[listener]] with address {address}")


def _check_domains(config: Config, tree: Tree) -> None:
    """[domain.NAME]: names that are domains, each once."""
    seen: dict[str, str] = {}
    for name, options in config.domain.items():
        try:
            key = domain_name(name)
        except ValueError as error:
            raise tree.complain(("domain", name), str(error)) from None
        if key in seen:
            raise tree.complain(("domain", name), f"is the same domain as {seen[key]}")
        seen[key] = name
        if options.asks_hook and not config.policy.file:
            raise tree.complain(("domain", name, "recipients"), "a hook is to know them, but policy.file names none")
        if options.alias_of and domain_key(options.alias_of) == key:
            raise tree.complain(("domain", name, "alias_of"), "leads to itself")


def _check_logins(config: Config, tree: Tree) -> None:
    """A password goes to next hops that prove who they are, or where the operator says that it may go without."""
    _check_login_names(config, tree)
    policies: dict[str, set[str]] = {}
    shaping = Shaping(config.shaping)

    def usual(hop: NextHop) -> ShapingOptions:
        """What is asked of the site whatever the domain and source: so questions are asked (outbound/side_tls.py)."""
        return shaping.limits(Site(hop.text, "smtp", (Host(hop.host, (), hop.port),)), "").options

    for route in config.all_routes():
        hop = parse_next_hop(route.next_hop)
        policies.setdefault(hop.text, set()).add(route.tls or usual(hop).tls)
    for text, login in config.recipients.call_ahead.auth.items():
        hop = parse_next_hop(text)
        has_certificate = usual(hop).tls_certificate is not None
        _check_external(tree, ("recipients", "call_ahead", "auth", text), login, has_certificate=has_certificate)
        unproved = policies.get(hop.text, {usual(hop).tls}) - {"required"}
        if unproved and not (login.allow_unverified or login.allow_clear):
            raise tree.complain(
                ("recipients", "call_ahead", "auth", text),
                f'tls = "{min(unproved)}" does not prove who gets the password: set tls = "required" in each [[route]]'
                f" to {text} or in [shaping] for its site, or allow_unverified = true here",
            )


def _check_login_names(config: Config, tree: Tree) -> None:
    """Routes and [shaping] name logins that exist, and no TLS is not what a login can do with."""
    shaping = config.shaping
    places: list[tuple[tuple[str | int, ...], str, TlsName | None]] = [
        (("route", index), route.login, route.tls) for index, route in enumerate(config.route)
    ]
    places += [(path, table.login or "", table.tls) for path, table in shaping.named()]
    for path, name, tls in places:
        if not name:
            continue
        if name not in config.login:
            raise tree.complain((*path, "login"), f"there is no [login.{name}]{_hint(name, config.login)}")
        if tls == "none" and not config.login[name].allow_clear:
            raise tree.complain(
                (*path, "tls"), f'"none" would show the secret of [login.{name}] to everybody: say allow_clear there'
            )
    has_certificate = shaping.default.tls_certificate is not None
    has_certificate = has_certificate or any(table.tls_certificate is not None for table in shaping.narrower())
    for name, options in config.login.items():
        _check_external(tree, ("login", name), options, has_certificate=has_certificate)
        if not 1 <= len(name) <= LABEL_CHARACTERS or not name.isprintable():
            raise tree.complain(("login",), f"the name {name[:40]!r}: 1 to {LABEL_CHARACTERS} printable characters")


def _check_external(tree: Tree, path: tuple[str, ...], login: LoginOptions, *, has_certificate: bool) -> None:
    if login.usable == ("EXTERNAL",) and not has_certificate:
        raise tree.complain((*path, "external"), "needs tls_certificate of [shaping], which is missing")


def _check_sources(config: Config, tree: Tree) -> None:
    """Pools and [shaping.source.NAME] name sources that exist, rules name pools that do."""
    named: tuple[tuple[KeyPath, Iterable[str]], ...] = (
        (("source",), config.source), (("pool",), config.pool), (("shaping", "provider"), config.shaping.provider),
        (("tenant",), config.tenant),
    )  # fmt: skip
    for path, names in named:
        for name in names:
            if not 1 <= len(name) <= LABEL_CHARACTERS or not name.isprintable():
                raise tree.complain(path, f"the name {name[:40]!r}: 1 to {LABEL_CHARACTERS} printable characters")
    for pool, options in config.pool.items():
        for name in options.sources:
            if name not in config.source:
                hint = _hint(name, config.source)
                raise tree.complain(("pool", pool, "sources", name), f"there is no [source.{name}]{hint}")
    for name in config.shaping.source:
        if name not in config.source and (config.source or name != "default"):
            hint = _hint(name, config.source)
            raise tree.complain(("shaping", "source", name), f"there is no [source.{name}]{hint}")
        for provider in config.shaping.source[name].provider:
            if provider not in config.shaping.provider:
                hint = _hint(provider, config.shaping.provider)
                of_pair = ("shaping", "source", name, "provider", provider)
                raise tree.complain(of_pair, f"there is no [shaping.provider.{provider}]{hint}")
    for index, rule in enumerate(config.egress):
        if rule.pool != "default" and rule.pool not in config.pool:
            hint = _hint(rule.pool, config.pool)
            raise tree.complain(("egress", index, "pool"), f"there is no [pool.{rule.pool}]{hint}")
    for index, quiet in enumerate(config.quiet):
        if quiet.provider and quiet.provider not in config.shaping.provider:
            hint = _hint(quiet.provider, config.shaping.provider)
            raise tree.complain(("quiet", index, "provider"), f"there is no [shaping.provider.{quiet.provider}]{hint}")
    for rule_name, automatic in config.automation.rule.items():
        if automatic.pool and automatic.pool != "default" and automatic.pool not in config.pool:
            hint = _hint(automatic.pool, config.pool)
            place = ("automation", "rule", rule_name, "pool")
            raise tree.complain(place, f"there is no [pool.{automatic.pool}]{hint}")
    for where, reason in unknown_names(config.warmup, config.source, config.shaping.provider):
        raise tree.complain(("warmup", *where), reason)


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""
