"""Kinds of listeners: what each needs, and what follows from it (RFC 5321, 6409, 8314, 2033)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from angarium.inbound.submission_options import SubmissionOptions
from angarium.sasl.preparation import identity_of

if TYPE_CHECKING:
    from angarium.inbound.options import ListenerOptions

Kind = Literal["smtp", "submission", "submissions", "lmtp"]

SMTP_PORT: Final = 25


def settle(options: ListenerOptions) -> None:
    """Sets what the kind implies. Raises ValueError, with the key, for what it cannot have."""
    kind, tls = options.protocol, options.tls
    is_submission = kind in ("submission", "submissions")
    if not is_submission and options.submission != SubmissionOptions():
        raise ValueError(f'submission: only for protocol "submission" and "submissions", not "{kind}"')
    if kind != "smtp" and options.etrn_for:
        raise ValueError(f'etrn_for: only for protocol "smtp", not "{kind}" (RFC 1985)')
    if kind == "lmtp":
        if not options.extensions.pipelining:
            raise ValueError("extensions.pipelining: LMTP is never without (RFC 2033 §5)")
        if options.address.port == SMTP_PORT:
            raise ValueError("address: LMTP must not be spoken on port 25 (RFC 2033 §5)")
    elif kind == "submission":
        if tls is not None and tls.implicit:
            raise ValueError('tls.implicit: that is protocol "submissions"')
        if not (tls is not None and tls.starttls) and not options.auth.allow_plaintext_from:
            raise ValueError('tls: protocol "submission" needs it: AUTH is offered under TLS only')
    elif kind == "submissions":
        if tls is None:
            raise ValueError('tls: protocol "submissions" begins with it')
        if not tls.implicit:
            msgspec.structs.force_setattr(options, "tls", msgspec.structs.replace(tls, implicit=True))
    if is_submission and not options.auth.required:
        msgspec.structs.force_setattr(options, "auth", msgspec.structs.replace(options.auth, required=True))


def check_etrn(table: dict[str, list[str]]) -> None:
    """Raises ValueError for what is no domain, or neither network nor identity."""
    from angarium.inbound.options import domain_key

    for domain, askers in table.items():
        if domain != "*":
            try:
                domain_key(domain)
            except ValueError as error:
                raise ValueError(f"etrn_for: {error}") from None
        for asker in askers:
            if not _is_network(asker) and not _is_identity(asker):
                raise ValueError(f'etrn_for: "{domain}": "{asker}" is neither a network nor an identity')


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_identity(text: str) -> bool:
    try:
        return bool(text) and "/" not in text and identity_of(text) == text
    except ValueError:
        return False
