"""TLSA records of a host: which name they are looked up by, and what the answer means (RFC 7672 §2.2).

No connection and no certificate here: the comparison is OpenSSL's, in the handshake.
"""

from __future__ import annotations

from angarium.model.tlsa import Tlsa, TlsaState
from angarium.resolver.answer import Answer, Kind, Resolver
from angarium.tls.client import is_usable


async def find_tlsa(host: str, port: int, addresses: Answer[str], resolver: Resolver) -> tuple[Tlsa, float]:
    """What DNS says about the certificate of a host, and when to look again (monotonic seconds).

    host       as MX record or operator name it; the way there is secure (that is the caller's to know).
    addresses  of it: FOUND.

        addresses secure ------- the name that CNAMEs led to, then the host's own
        else, an alias --------- the CNAME record itself secure: the host's own name; cannot be known: TROUBLE
        else ------------------- ABSENT: its zone is not signed
        for each such name       failure (bogus, SERVFAIL, time-out): TROUBLE, for a forger can always bring that about
                                 secure records: USABLE when there is one of use, else UNUSABLE
                                 none, or insecure: the next name
        no name left ----------- ABSENT
    """
    look_again = addresses.look_again_mono_s
    if addresses.is_secure:
        bases = [host] if addresses.name == host else [addresses.name, host]
    elif addresses.name != host:
        alias = await resolver.alias(host)
        look_again = min(look_again, alias.look_again_mono_s)
        if alias.kind.is_temporary:
            return Tlsa(TlsaState.TROUBLE, host, (), alias.detail), look_again
        if not alias.is_secure:
            return Tlsa(TlsaState.ABSENT, host, (), f"the addresses of {host} are not signed"), look_again
        bases = [host]
    else:
        return Tlsa(TlsaState.ABSENT, host, (), f"the addresses of {host} are not signed"), look_again
    detail = ""
    for base in bases:
        answer = await resolver.tlsa(f"_{port}._tcp.{base}")
        look_again = min(look_again, answer.look_again_mono_s)
        if answer.kind.is_temporary:
            return Tlsa(TlsaState.TROUBLE, base, (), answer.detail), look_again
        if answer.kind is Kind.FOUND and answer.is_secure:
            usable = tuple(record for record in answer.records if is_usable(record))
            if usable:
                return Tlsa(TlsaState.USABLE, base, usable), look_again
            words = f"none of the {len(answer.records)} TLSA records of _{port}._tcp.{base} can be used"
            return Tlsa(TlsaState.UNUSABLE, base, (), words), look_again
        found = f"_{port}._tcp.{base} TLSA: not signed"
        detail = found if answer.kind is Kind.FOUND else answer.detail
    return Tlsa(TlsaState.ABSENT, bases[-1], (), detail), look_again
