"""PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login-00): the password itself; under TLS only."""

from __future__ import annotations

from angarium.sasl.mechanism import (
    Mechanism,
    Refusal,
    first,
    identity_from,
    must_be_own,
    password_from,
    respond,
    verdict,
    whose,
)
from angarium.sasl.steps import Channel, CheckPassword


def plain(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    """[authzid] NUL authcid NUL passwd (RFC 4616 §2): exactly two NULs."""
    message = yield from first(initial)
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise Refusal("malformed")
    identity, password = identity_from(parts[1]), password_from(parts[2])
    must_be_own(parts[0], identity)
    return verdict((yield from whose(CheckPassword(identity, password))), identity)


def login(initial: bytes | None, channel: Channel, offers_plus: bool) -> Mechanism:
    """Two prompts, which clients look at closely. Some say the name at once, in the command (Outlook)."""
    identity = identity_from((yield from respond(b"Username:")) if initial is None else initial)
    password = password_from((yield from respond(b"Password:")))
    return verdict((yield from whose(CheckPassword(identity, password))), identity)
