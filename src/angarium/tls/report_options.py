"""[tls_reports]: daily reports to other domains about TLS with their hosts (RFC 8460)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from angarium.model.units import Duration

_MAILBOX: Final = re.compile(r"[!#$%&'*+/0-9=?A-Z^_`a-z{|}~.-]+@[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)+", re.ASCII)
_CHARACTERS: Final = 200


class TlsReportOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """enabled            outcomes are counted, and reports sent to domains that ask for them.
    organization_name  who reports. contact: a mailbox to ask.
    sender             mailbox in From and of the reverse-path of reports by mail.
    window             reports of a day leave at random times so long after its end (§4.1: up to four hours).
    """

    enabled: bool = False
    organization_name: str = ""
    contact: str = ""
    sender: str = ""
    window: Duration = Duration(4 * 3600)

    def __post_init__(self) -> None:
        if not 0 <= self.window <= 12 * 3600:
            raise ValueError("window: at most 12h")
        if len(self.organization_name) > _CHARACTERS or not self.organization_name.isprintable():
            raise ValueError(f"organization_name: at most {_CHARACTERS} printable characters")
        for key in ("contact", "sender"):
            text = getattr(self, key)
            if text and not _MAILBOX.fullmatch(text):
                raise ValueError(f'{key}: "{text}" is not a mailbox in ASCII such as "tls@example.net"')
            if self.enabled and not text:
                raise ValueError(f"{key}: is to be set where reports are enabled")
        if self.enabled and not self.organization_name:
            raise ValueError("organization_name: is to be set where reports are enabled")
