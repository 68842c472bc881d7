"""What a connection must be, for the messages of one ready queue. Computed before one is dialled or taken again.

Messages that want something else of TLS than the rest lie in ready queues of their own (queue/planner.pyx), each with
its own pool: a message that requires TLS meets no connection without it, and keeps nobody else waiting. So do domains
that publish other policies than their neighbours at the same site.

Who has a say, the first that has one:

  the mail leaves by no network ........ nobody but the route
  the message ......................... REQUIRETLS; TLS-Required: No, which sets aside all that is published (RFC 8689)
  the operator ........................ "none"; "required", whose authorities are the operator's choice
  TLSA records of the host ............ RFC 7672; with REQUIRETLS they are one of the ways to know a certificate
  MTA-STS of the domain ............... RFC 8461; never instead of TLSA records (§2)
                                        (of both only what `dane` and `mta_sts` of [shaping] heed for this mail)
  the operator ........................ "encrypt", "opportunistic"
  a login ............................. that is only told to who proves who they are, with_login()

Nobody's word makes a policy weaker than the operator's, but for TLS-Required: No.
"""

from __future__ import annotations

import enum
import functools
import ipaddress

import msgspec

from angarium.model.plan import Host, Site, StsRule, TlsName, TlsWish
from angarium.model.tlsa import Tlsa, TlsaState
from angarium.outbound import trouble
from angarium.queue.shaping_options import ShapingOptions
from angarium.sasl.login_options import LoginOptions


class Level(enum.IntEnum):
    """How well a connection is protected."""

    CLEAR = 0
    ENCRYPTED = 1
    VERIFIED = 2


class TlsPolicy(msgspec.Struct, frozen=True):
    """name  for status and log. wants_tls: it is tried. floor: what a connection must have before mail goes over it.

    needs_requiretls  and the host must offer REQUIRETLS (RFC 8689 §4.2.1).
    origin            whose word it is: "configuration", "message", "TLSA", "MTA-STS" or "login".
    heeds_published   what DNS and MTA-STS say of a host may make more of it, at_host().
    ignores_tlsa, ignores_sts  but not these: `dane` or `mta_sts` of [shaping] is off for the mail, or the operator has
                      said by which authorities a certificate is to be known.
    tlsa              how a certificate is verified; None: by authorities.
    more_names        with it: names that the certificate may bear besides tlsa.base.
    """

    name: str
    wants_tls: bool
    floor: Level
    needs_requiretls: bool = False
    origin: str = "configuration"
    heeds_published: bool = False
    ignores_tlsa: bool = False
    ignores_sts: bool = False
    tlsa: Tlsa | None = None
    more_names: tuple[str, ...] = ()

    def tlsa_of(self, host: Host) -> Tlsa | None:
        """What is heeded of a host's TLSA records; None: nothing was asked."""
        return None if self.ignores_tlsa else host.tlsa

    def sts_of(self, site: Site) -> StsRule | None:
        """What is heeded of the domain's MTA-STS policy."""
        return None if self.ignores_sts else site.sts

    @property
    def may_go_clear(self) -> bool:
        return self.floor == Level.CLEAR


_OF_NAME: dict[str, TlsPolicy] = {
    "none": TlsPolicy("none", False, Level.CLEAR),
    "opportunistic": TlsPolicy("opportunistic", True, Level.CLEAR, heeds_published=True),
    "encrypt": TlsPolicy("encrypt", True, Level.ENCRYPTED, heeds_published=True),
    "required": TlsPolicy("required", True, Level.VERIFIED, heeds_published=True, ignores_tlsa=True),
}
_REQUIRETLS = TlsPolicy(
    "requiretls", True, Level.VERIFIED, needs_requiretls=True, origin="message", heeds_published=True
)
_LOCAL = {name: msgspec.structs.replace(policy, heeds_published=False) for name, policy in _OF_NAME.items()}
_OPTIONAL = TlsPolicy("opportunistic", True, Level.CLEAR, origin="message")
_OPTIONAL_ENCRYPTED = TlsPolicy("encrypt", True, Level.ENCRYPTED)


def policy_of(site: Site, wish: TlsWish, options: ShapingOptions) -> TlsPolicy:
    """For all hosts of a site, before what is published about one of them: see decide().

    site.tls is the route's word, `options` what [shaping] says of the mail; `wish` is the messages' own.
    """
    policy = _asked(site, wish, site.tls or options.tls)
    return _heeding(policy, options.dane, options.mta_sts) if policy.heeds_published else policy


@functools.cache
def _heeding(policy: TlsPolicy, dane: bool, mta_sts: bool) -> TlsPolicy:
    """One object for all who ask the same: there may be a hundred thousand pools."""
    return msgspec.structs.replace(policy, ignores_tlsa=policy.ignores_tlsa or not dane, ignores_sts=not mta_sts)


def _asked(site: Site, wish: TlsWish, name: TlsName) -> TlsPolicy:
    if is_local(site):
        return _LOCAL[site.tls or "none"]
    if wish == TlsWish.REQUIRED:
        return _REQUIRETLS
    if wish == TlsWish.OPTIONAL and name != "none":
        # RFC 8689 §4.2.2: tried all the same, and no reason to hold the message. Where the dialogue begins with TLS
        # there is no clear text to fall back to.
        return _OPTIONAL_ENCRYPTED if site.begins_with_tls else _OPTIONAL
    if site.begins_with_tls and name in ("opportunistic", "none"):
        name = "encrypt"
    return _OF_NAME[name]


def with_login(policy: TlsPolicy, login: LoginOptions | None) -> TlsPolicy:
    """The same where somebody is told who we are: unless [login.NAME] says otherwise, only who proves to be the host.

    login  None: nobody is told.
    """
    if login is None or login.allow_clear:
        return policy
    floor = Level.ENCRYPTED if login.allow_unverified else Level.VERIFIED
    if policy.floor >= floor:
        return policy
    name = "encrypt" if login.allow_unverified else "verify"
    return msgspec.structs.replace(policy, name=name, wants_tls=True, floor=floor, origin="login")


def at_host(policy: TlsPolicy, site: Site, host: Host) -> TlsPolicy | trouble.Judgement:
    """What `policy` of the site comes to at one of its hosts; a Judgement: it may not be used now, and why."""
    if not policy.heeds_published:
        return policy
    tlsa = policy.tlsa_of(host)
    if tlsa is not None:
        if tlsa.state is TlsaState.TROUBLE:
            return trouble.unknown_tlsa(host.name, tlsa.detail)
        if tlsa.state is TlsaState.USABLE:
            # Named for the message where it is the message that asks; the certificate is known by TLSA all the same.
            return msgspec.structs.replace(
                policy,
                name=policy.name if policy.needs_requiretls else "dane",
                floor=Level.VERIFIED,
                origin="TLSA",
                tlsa=tlsa,
                more_names=site.more_names,
            )
        if tlsa.state is TlsaState.UNUSABLE and policy.floor < Level.ENCRYPTED:
            policy = msgspec.structs.replace(policy, name="encrypt", floor=Level.ENCRYPTED, origin="TLSA")
    rule = policy.sts_of(site)
    if rule is None:
        return policy
    if rule.mode == "testing":
        return msgspec.structs.replace(policy, origin="MTA-STS testing") if policy.may_go_clear else policy
    if not is_listed(host.name, rule):
        return trouble.not_listed(host.name)
    if policy.floor == Level.VERIFIED:
        return policy
    return msgspec.structs.replace(policy, name="verify", floor=Level.VERIFIED, origin="MTA-STS")


def decide(site: Site, host: Host, wish: TlsWish, options: ShapingOptions) -> TlsPolicy | trouble.Judgement:
    """The policy for a message that says `wish`, on its way to `host` of `site`; a Judgement: not there, not now."""
    return at_host(policy_of(site, wish, options), site, host)


def is_met(asked: TlsPolicy | trouble.Judgement, level: int, dialled_for: TlsPolicy) -> bool:
    """Whether a connection of `level`, dialled for another policy, meets what is asked of its host now."""
    if isinstance(asked, trouble.Judgement) or level < asked.floor:
        return False
    if asked.wants_tls and not dialled_for.wants_tls:
        return False                # in clear since nobody asked for more: the host may well offer it
    # A certificate that TLSA records vouch for need have been seen by no authority, nor the other way round.
    return asked.floor < Level.VERIFIED or asked.tlsa == dialled_for.tlsa


def is_located(policy: TlsPolicy, site: Site) -> bool:
    """Whether the names of the site's hosts will do for messages that require TLS (RFC 8689 §4.2.1 (2)).

    By DNSSEC or an operator's route, or because at_host() holds them against MTA-STS.
    """
    if not policy.needs_requiretls or site.is_located_securely:
        return True
    rule = policy.sts_of(site)
    return rule is not None and rule.mode == "enforce"


def is_listed(host: str, rule: StsRule) -> bool:
    """RFC 8461 §4.1: the name of the mail exchanger, or "*." and all but its first label."""
    return any(
        host == pattern or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])
        for pattern in rule.patterns
    )


def is_local(site: Site) -> bool:
    """The mail leaves this machine by no network: RFC 8689 has nothing to protect there."""
    if site.protocol in ("lmtp+unix", "maildir"):
        return True
    return site.protocol == "lmtp" and all(
        ipaddress.ip_address(address).is_loopback for host in site.hosts for address in host.addresses
    )
