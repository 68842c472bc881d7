"""What TLS policies come to, as values and words for people: `angarium tls-policy` and `angarium explain`."""

from __future__ import annotations

from typing import Any

from angarium.model.plan import Host, Site, TlsWish
from angarium.outbound import trouble
from angarium.outbound.tls_policy import (
    Level,
    TlsPolicy,
    at_host,
    is_located,
    policy_of,
    with_login,
)
from angarium.queue.shaping_options import ShapingOptions
from angarium.sasl.login_options import LoginOptions


def host_view(
    site: Site, host: Host, wish: TlsWish, options: ShapingOptions, login: tuple[str, LoginOptions | None] = ("", None)
) -> dict[str, Any]:
    """One host of a site, for mail that says `wish`, of which [shaping] says `options`.

    login  that is told there, by its name, with its options; None: nobody is told anything.

    Keys: host, preference, addresses, tlsa (state, base, records, reason; only where it was looked up), and either
    policy, origin and meaning, or refused: why the host is not used now.
    """
    found: dict[str, Any] = {"host": host.name, "preference": host.preference, "addresses": list(host.addresses)}
    if host.tlsa is not None:
        records = [f"{each.usage} {each.selector} {each.matching} {each.data.hex()}" for each in host.tlsa.records]
        found["tlsa"] = {
            "state": host.tlsa.state.value, "base": host.tlsa.base, "records": records, "reason": host.tlsa.detail
        }  # fmt: skip
    name, told = login
    policy = policy_of(site, wish, options)
    decision = at_host(with_login(policy, told), site, host)
    if told is not None and isinstance(decision, TlsPolicy) and not told.may_be_told(site, host):
        decision = trouble.not_to_be_told(name, host.name)
    if not is_located(policy, site):
        found["refused"] = "the message requires TLS all the way, and DNS does not vouch for the mail exchangers"
    elif isinstance(decision, TlsPolicy):
        found.update(policy=decision.name, origin=decision.origin, meaning=meaning(decision))
    else:
        found["refused"] = decision.trouble.text
    return found


def meaning(policy: TlsPolicy) -> str:
    """What a connection by this policy is, in words."""
    if not policy.wants_tls:
        return "in clear"
    also = ", and the host must offer REQUIRETLS" if policy.needs_requiretls else ""
    if policy.tlsa is not None:
        count = len(policy.tlsa.records)
        which = "the TLSA record" if count == 1 else f"one of {count} TLSA records"
        return f"encrypted, with a certificate that matches {which} of {policy.tlsa.base}{also}"
    if policy.floor == Level.VERIFIED:
        return f"encrypted, with a verified certificate for the host's name{also}"
    if policy.floor == Level.ENCRYPTED:
        return "encrypted, whatever the certificate"
    return "encrypted where the host offers it, else in clear"
