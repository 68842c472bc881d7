"""What a connection out needs of TLS and AUTH, for those who ask a next hop something besides (call-ahead)."""

from __future__ import annotations

import msgspec

from angarium.sasl.client import Credentials
from angarium.tls.client import ClientContext


class TlsTerms(msgspec.Struct, frozen=True):
    """policy      its name, for log and errors.
    context     None: TLS is not wanted, or not to be had.
    needs_tls   nothing is said in clear.
    needs_proof and the certificate must be good for the host's name.
    login       who we are there; None: no AUTH.
    """

    policy: str = "none"
    context: ClientContext | None = None
    needs_tls: bool = False
    needs_proof: bool = False
    login: Credentials | None = None
