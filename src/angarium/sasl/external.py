"""EXTERNAL (RFC 4422 appendix A): the client's certificate says who it is."""

from __future__ import annotations

from angarium.sasl.mechanism import Mechanism, Refusal, first, identity_from, must_be_own, verdict, whose
from angarium.sasl.steps import Channel, CheckCertificate


def external(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    authorization = yield from first(initial)
    name = channel.peer_certificate_identity()
    if name is None:
        raise Refusal("no-certificate")
    identity = identity_from(name.encode())
    must_be_own(authorization, identity)
    return verdict((yield from whose(CheckCertificate(identity))), identity)
