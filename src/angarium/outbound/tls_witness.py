"""What came of TLS with a host, told to whoever counts it for reports, in the words of RFC 8460 §4.

A connection is counted for the domain of the message that it was made for, and once for each other domain whose mail
goes over it (§4.2: sessions are counted by the policy's domain). What TLS was not asked of (tls = "none", a host that
is remembered to fail at it) is not counted, nor what failed before TLS or behind it.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from angarium.model.plan import Host, Site
from angarium.model.tlsa import Tlsa, TlsaState
from angarium.outbound import trouble
from angarium.outbound.tls_policy import Level, TlsPolicy, is_listed, is_local
from angarium.resolver.domain_name import to_a_labels
from angarium.tls.report_outcome import ReportedPolicy, ResultType, TlsOutcome, result_of_certificate
from angarium.tls.sts_policy import StsPolicy

if TYPE_CHECKING:
    from angarium.outbound.connection import Connection


# Of one connection: what more domains would take of memory is worth more than to count them.
_DOMAINS_MOST: Final = 4096


class TlsWitness:
    """note: gets the outcomes. sts_policy: what a domain has published, where it is remembered."""

    def __init__(
        self, note: Callable[[TlsOutcome], None], sts_policy: Callable[[str], StsPolicy | None] = lambda _: None
    ) -> None:
        self._note = note
        self._sts_policy = sts_policy

    def domain_of(self, site: Site, domain: bytes) -> str:
        """Who is told: the domain, or where a route leads to, the host's name (§1.1); "": nobody."""
        if is_local(site):
            return ""
        if "://" in site.name:
            name = site.hosts[0].name if site.hosts else ""
            return "" if _is_address(name) else name
        try:
            return to_a_labels(domain)
        except ValueError:
            return ""

    def good(
        self, domain: str, site: Site, host: Host, policy: TlsPolicy, connection: Connection
    ) -> SessionDomains | None:
        """A connection that mail may go over; who is to hear of other domains' mail on it. None: it does not count."""
        if not policy.wants_tls or not connection.has_asked_for_tls:
            return None
        result, reason = self._result(site, host, policy, connection)
        ip, sender = connection.host_key[1], connection.local_address

        def count(domain: str) -> None:
            self._tell(domain, site, host, policy, result=result, reason=reason, ip=ip, sender=sender)

        count(domain)
        return SessionDomains(domain, count, functools.partial(self.domain_of, site))

    def bad(
        self,
        domain: str,
        site: Site,
        host: Host,
        policy: TlsPolicy,
        judgement: trouble.Judgement,
        *,
        ip: str = "",
        sender: str = "",
    ) -> None:
        """A judgement about a host, to which mail goes by `policy`; what is not about TLS is passed over."""
        if judgement.tls_result:
            result, reason = judgement.tls_result, judgement.trouble.text
            self._tell(domain, site, host, policy, result=result, reason=reason, ip=ip, sender=sender)

    def no_sts_policy(self, domain: str, result: ResultType, reason: str) -> None:
        """One is announced, and cannot be had or read."""
        told = reason.encode("ascii", "replace").decode()[:200]
        self._note(TlsOutcome(domain, ReportedPolicy("sts", domain), result, reason=told))

    def _result(self, site: Site, host: Host, policy: TlsPolicy, connection: Connection) -> tuple[ResultType, str]:
        if connection.tls_level == 0:
            return "starttls-not-supported", ""
        tlsa = _applied_tlsa(site, host, policy)
        if tlsa is not None and tlsa.state is TlsaState.UNUSABLE:
            return "tlsa-invalid", tlsa.detail
        rule = policy.sts_of(site)
        if rule is not None and rule.mode == "testing" and policy.tlsa is None:
            if not is_listed(host.name, rule):
                return "validation-failure", "the policy does not name this host"
            if connection.tls_distrust:
                return result_of_certificate(connection.tls_distrust), connection.tls_distrust
        return "", ""

    def _tell(
        self,
        domain: str,
        site: Site,
        host: Host,
        policy: TlsPolicy,
        *,
        result: ResultType,
        reason: str,
        ip: str,
        sender: str,
    ) -> None:
        applied = self._applied(domain, site, host, policy)
        if not result:          # successes are only counted: what tells them apart is not reported (§4.4)
            self._note(TlsOutcome(domain, applied))
            return
        told = reason.encode("ascii", "replace").decode()[:200]
        self._note(TlsOutcome(domain, applied, result, host.name, ip, sender, told))

    def _applied(self, domain: str, site: Site, host: Host, policy: TlsPolicy) -> ReportedPolicy:
        """What is published and was heeded: "the policy applied" (§4.2)."""
        tlsa, rule = _applied_tlsa(site, host, policy), policy.sts_of(site)
        if tlsa is not None:
            records = tuple(
                f"{each.usage} {each.selector} {each.matching} {each.data.hex().upper()}" for each in tlsa.records
            )
            return ReportedPolicy("tlsa", tlsa.base or host.name, records, (host.name,))
        if rule is None:
            return ReportedPolicy("no-policy-found", domain)
        lines = ["version: STSv1", f"mode: {rule.mode}", *(f"mx: {each}" for each in rule.patterns)]
        known = self._sts_policy(domain)
        if known is not None and known.rule == rule:
            lines.append(f"max_age: {known.max_age_s}")
        return ReportedPolicy("sts", domain, tuple(lines), rule.patterns)


class SessionDomains:
    """Of one connection that is counted: the domains that it was counted for, and how for others."""

    def __init__(self, domain: str, count: Callable[[str], None], domain_of: Callable[[bytes], str]) -> None:
        self._count = count
        self._domain_of = domain_of
        self._seen: set[bytes] = set()
        self._counted = {domain}

    def carries(self, domain: bytes) -> None:
        """Mail for a domain, as forward-paths have it, goes over the connection. Cheap for one that was seen before."""
        if domain in self._seen or len(self._seen) >= _DOMAINS_MOST:
            return
        self._seen.add(domain)
        told = self._domain_of(domain)
        if told and told not in self._counted:
            self._counted.add(told)
            self._count(told)


def _applied_tlsa(site: Site, host: Host, policy: TlsPolicy) -> Tlsa | None:
    """TLSA records of the host that had a say. policy: the host's, or the site's, where at_host() has refused it."""
    tlsa = policy.tlsa_of(host)
    if tlsa is None or tlsa.state is TlsaState.ABSENT:
        return None
    if tlsa.state is TlsaState.UNUSABLE:
        # They ask for TLS with any certificate (RFC 7672 §2.2): where one had to be good, somebody else has said so.
        rule = policy.sts_of(site)
        if policy.floor == Level.VERIFIED or (rule is not None and rule.mode == "enforce"):
            return None
    return tlsa


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
