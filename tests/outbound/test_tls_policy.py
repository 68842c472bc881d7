"""Who has a say in how a message travels to a host: all that can meet in one decision."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from angarium.model.plan import Host, Site, StsRule, TlsName, TlsWish
from angarium.model.tlsa import Tlsa, TlsaRecord, TlsaState
from angarium.outbound.tls_policy import Level, TlsPolicy, decide, is_listed, is_located, is_met, policy_of
from angarium.outbound.trouble import Judgement
from angarium.queue.shaping_options import ShapingOptions

RECORD = TlsaRecord(3, 1, 1, bytes(32))
TLSA = {
    "": None,
    "absent": Tlsa(TlsaState.ABSENT, "mx.example"),
    "usable": Tlsa(TlsaState.USABLE, "mx.example", (RECORD,)),
    "unusable": Tlsa(TlsaState.UNUSABLE, "mx.example"),
    "trouble": Tlsa(TlsaState.TROUBLE, "mx.example", (), "SERVFAIL (dnssec bogus) from 127.0.0.1:53"),
}
STS = {
    "": None,
    "enforce": StsRule("enforce", ("mx.example",)),
    "others": StsRule("enforce", ("mx2.example", "*.mx.example")),
    "testing": StsRule("testing", ("mx2.example",)),
}
NONE, REQUIRED, OPTIONAL = TlsWish.NONE, TlsWish.REQUIRED, TlsWish.OPTIONAL


def decided(tls: TlsName, tlsa: str, sts: str, wish: TlsWish, **changes: Any) -> TlsPolicy | Judgement:
    host = Host("mx.example", ("192.0.2.1",), tlsa=TLSA[tlsa])
    site = Site("mx.example", "smtp", (host,), sts=STS[sts], more_names=("d.example",))
    return decide(msgspec.structs.replace(site, **changes), host, wish, ShapingOptions(tls=tls, mta_sts=True))


def text(found: TlsPolicy | Judgement) -> str:
    """ "dane from TLSA: tlsa", "verify from MTA-STS: authorities", "4.4.3" """
    if isinstance(found, Judgement):
        assert not found.is_permanent
        return ".".join(map(str, found.trouble.status))
    how = {Level.CLEAR: "may go clear", Level.ENCRYPTED: "any"}.get(found.floor, "authorities")
    return f"{found.name} from {found.origin}: {'tlsa' if found.tlsa else how}"


# tls, TLSA, MTA-STS, the message's wish -> decision
ROWS: list[tuple[TlsName, str, str, TlsWish, str]] = [
    ("opportunistic", "", "", NONE, "opportunistic from configuration: may go clear"),
    ("opportunistic", "absent", "", NONE, "opportunistic from configuration: may go clear"),
    ("opportunistic", "usable", "", NONE, "dane from TLSA: tlsa"),
    ("opportunistic", "unusable", "", NONE, "encrypt from TLSA: any"),          # RFC 7672 §2.2
    ("opportunistic", "trouble", "", NONE, "4.4.3"),                            # §2.1.2
    ("opportunistic", "", "enforce", NONE, "verify from MTA-STS: authorities"),
    ("opportunistic", "absent", "enforce", NONE, "verify from MTA-STS: authorities"),
    ("opportunistic", "", "others", NONE, "4.7.5"),                             # RFC 8461 §5
    ("opportunistic", "", "testing", NONE, "opportunistic from MTA-STS testing: may go clear"),
    ("opportunistic", "usable", "enforce", NONE, "dane from TLSA: tlsa"),       # RFC 8461 §2
    ("opportunistic", "usable", "others", NONE, "dane from TLSA: tlsa"),
    ("opportunistic", "trouble", "enforce", NONE, "4.4.3"),
    ("opportunistic", "unusable", "enforce", NONE, "verify from MTA-STS: authorities"),
    ("opportunistic", "unusable", "testing", NONE, "encrypt from TLSA: any"),
    ("encrypt", "", "", NONE, "encrypt from configuration: any"),
    ("encrypt", "usable", "", NONE, "dane from TLSA: tlsa"),
    ("encrypt", "unusable", "", NONE, "encrypt from configuration: any"),
    ("encrypt", "", "enforce", NONE, "verify from MTA-STS: authorities"),
    ("encrypt", "", "testing", NONE, "encrypt from configuration: any"),
    ("none", "usable", "enforce", NONE, "none from configuration: may go clear"),
    ("none", "trouble", "others", NONE, "none from configuration: may go clear"),
    ("required", "usable", "", NONE, "required from configuration: authorities"),
    ("required", "trouble", "", NONE, "required from configuration: authorities"),
    ("required", "", "enforce", NONE, "required from configuration: authorities"),
    ("required", "", "others", NONE, "4.7.5"),
    ("opportunistic", "", "", REQUIRED, "requiretls from message: authorities"),
    ("none", "", "", REQUIRED, "requiretls from message: authorities"),
    ("opportunistic", "usable", "", REQUIRED, "requiretls from TLSA: tlsa"),
    ("opportunistic", "unusable", "", REQUIRED, "requiretls from message: authorities"),
    ("opportunistic", "trouble", "", REQUIRED, "4.4.3"),
    ("opportunistic", "", "enforce", REQUIRED, "requiretls from message: authorities"),
    ("opportunistic", "", "others", REQUIRED, "4.7.5"),
    ("opportunistic", "usable", "enforce", OPTIONAL, "opportunistic from message: may go clear"),   # RFC 8689 §4.2.2
    ("opportunistic", "trouble", "others", OPTIONAL, "opportunistic from message: may go clear"),
    ("required", "usable", "enforce", OPTIONAL, "opportunistic from message: may go clear"),
    ("none", "usable", "enforce", OPTIONAL, "none from configuration: may go clear"),
]


@pytest.mark.parametrize(
    ("tls", "tlsa", "sts", "wish", "expected"), ROWS, ids=[" ".join(map(str, row)) for row in ROWS]
)
def test_the_policy_for_a_message_at_a_host(
    tls: TlsName, tlsa: str, sts: str, wish: TlsWish, expected: str
) -> None:
    assert text(decided(tls, tlsa, sts, wish)) == expected


def test_what_is_published_never_weakens_what_the_operator_asks() -> None:
    levels: list[TlsName] = ["none", "opportunistic", "encrypt", "required"]
    for tls, tlsa, sts, wish in itertools.product(levels, TLSA, STS, (NONE, REQUIRED)):
        found = decided(tls, tlsa, sts, wish)
        site = Site("mx.example", "smtp", (Host("mx.example", ("192.0.2.1",)),))
        plain = policy_of(site, wish, ShapingOptions(tls=tls))
        assert isinstance(found, Judgement) or found.floor >= plain.floor
        assert isinstance(found, Judgement) or found.needs_requiretls == plain.needs_requiretls


IGNORING: list[tuple[str, str, str, TlsWish, str]] = [
    # what is not heeded, TLSA, MTA-STS, the message's wish -> decision
    ("dane", "usable", "", NONE, "opportunistic from configuration: may go clear"),
    ("dane", "unusable", "", NONE, "opportunistic from configuration: may go clear"),
    ("dane", "trouble", "", NONE, "opportunistic from configuration: may go clear"),
    ("dane", "usable", "enforce", NONE, "verify from MTA-STS: authorities"),
    ("dane", "usable", "", REQUIRED, "requiretls from message: authorities"),
    ("mta_sts", "", "enforce", NONE, "opportunistic from configuration: may go clear"),
    ("mta_sts", "", "others", NONE, "opportunistic from configuration: may go clear"),
    ("mta_sts", "usable", "others", NONE, "dane from TLSA: tlsa"),
    ("mta_sts", "", "others", REQUIRED, "requiretls from message: authorities"),
]


@pytest.mark.parametrize(
    ("off", "tlsa", "sts", "wish", "expected"), IGNORING, ids=[" ".join(map(str, row)) for row in IGNORING]
)
def test_what_shaping_does_not_heed_is_as_if_it_were_not_published(
    off: str, tlsa: str, sts: str, wish: TlsWish, expected: str
) -> None:
    host = Host("mx.example", ("192.0.2.1",), tlsa=TLSA[tlsa])
    site = Site("mx.example", "smtp", (host,), sts=STS[sts])
    options = ShapingOptions(dane=off != "dane", mta_sts=off != "mta_sts")
    assert text(decide(site, host, wish, options)) == expected
    assert policy_of(site, wish, options) is policy_of(site, wish, options), "there may be a hundred thousand pools"


MET = [
    # dialled for, asked now, what the connection is -> may it go on?
    ("usable", "required", "", Level.VERIFIED, False),          # TLSA records vouched for it, now an authority has to
    ("usable", "opportunistic", "enforce", Level.VERIFIED, False),      # so it is where MTA-STS asks, and TLSA is gone
    ("", "opportunistic", "usable", Level.VERIFIED, False),     # and the other way round
    ("usable", "opportunistic", "usable", Level.VERIFIED, True),
    ("", "required", "", Level.VERIFIED, True),
    ("usable", "encrypt", "", Level.VERIFIED, True),
    ("", "required", "", Level.ENCRYPTED, False),
    ("", "encrypt", "", Level.CLEAR, False),
]


@pytest.mark.parametrize(("dialled", "tls", "published", "level", "is_it"), MET)
def test_whether_a_connection_will_do_when_something_else_is_asked(
    dialled: str, tls: TlsName, published: str, level: Level, *, is_it: bool
) -> None:
    tlsa, sts = (published, "") if published in TLSA else ("", published)
    # Without TLSA records what reaches VERIFIED was dialled for "required".
    before = decided("opportunistic" if dialled else "required", dialled, "", NONE)
    assert isinstance(before, TlsPolicy)
    assert is_met(decided(tls, tlsa, sts, NONE), level, before) == is_it


def test_certificates_by_usage_2_may_bear_the_domain() -> None:
    found = decided("opportunistic", "usable", "", NONE)
    assert isinstance(found, TlsPolicy)
    assert found.more_names == ("d.example",)


def test_where_the_dialogue_begins_with_tls_it_is_encrypted_whatever_is_published() -> None:
    for tlsa, expected in (("", "encrypt from configuration: any"), ("usable", "dane from TLSA: tlsa")):
        assert text(decided("opportunistic", tlsa, "", NONE, begins_with_tls=True)) == expected
    assert text(decided("required", "usable", "", OPTIONAL, begins_with_tls=True)) == "encrypt from configuration: any"


@pytest.mark.parametrize(
    ("is_secure", "sts", "is_good"),
    [(True, "", True), (False, "", False), (False, "enforce", True), (False, "testing", False)],
)
def test_names_of_hosts_for_messages_that_require_tls(is_secure: bool, sts: str, is_good: bool) -> None:
    """RFC 8689 §4.2.1: by DNSSEC, or by MTA-STS."""
    site = Site("mx.example", "smtp", (), is_located_securely=is_secure, sts=STS[sts])
    assert is_located(policy_of(site, REQUIRED, ShapingOptions(tls="none", mta_sts=True)), site) == is_good
    assert is_located(policy_of(site, NONE, ShapingOptions(tls="required")), site)
    assert is_located(policy_of(site, REQUIRED, ShapingOptions(mta_sts=False)), site) == is_secure


LISTED = [
    ("mx.example.net", "mx.example.net", True), ("mx.example.net", "*.example.net", True),
    ("example.net", "*.example.net", False), ("a.mx.example.net", "*.example.net", False),
    ("mx.example.net", "example.net", False), ("mxexample.net", "*.example.net", False),
]  # fmt: skip


@pytest.mark.parametrize(("host", "pattern", "is_it"), LISTED)
def test_patterns_of_mail_exchangers(host: str, pattern: str, is_it: bool) -> None:
    """RFC 8461 §4.1."""
    assert is_listed(host, StsRule("enforce", ("other.example", pattern))) == is_it
