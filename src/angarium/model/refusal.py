"""A decision against what a client asks."""

from __future__ import annotations

import msgspec


class Refusal(msgspec.Struct, frozen=True):
    """What is answered and why.

    reply   whole, with CRLF, code and enhanced status code: b"550 5.1.1 No such recipient\\r\\n". 421 ends the session.
    reason  one stable word for log, metrics and commands: "unknown-recipient".
    """

    reply: bytes
    reason: str
