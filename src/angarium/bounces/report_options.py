"""What the operator may set about reports of other hosts: the [reports] table."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from angarium.model.units import Octets
from angarium.resolver.domain_name import to_a_labels

_MAILBOX: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,255}")
_VERP_LOCAL_MAX: Final = 20
_LOOKED_AT_MAX: Final = 128 << 10  # judges see no more of a message (inbound/judgement.py)


class ReportsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """addresses     where reports are recognised: "fbl@example.net", "*@fbl.example.net".
    verp          "bounces@b.example.net": mail that leaves gets a reverse-path there that says which recipient of which
                  message it is for; "": none does.
    verp_senders  domains of reverse-paths for which that is done; []: all.
    forward_to    a mailbox; "": nobody.
    forward       what it gets: nothing, what was not recognised, or all. Everything else is dropped.
    max_octets    of a report that are looked at.
    """

    addresses: list[str] = []
    verp: str = ""
    verp_senders: list[str] = []
    forward_to: str = ""
    forward: Literal["none", "unrecognised", "all"] = "unrecognised"
    max_octets: Octets = Octets(64 << 10)

    def __post_init__(self) -> None:
        for index, pattern in enumerate(self.addresses):
            if not _MAILBOX.fullmatch(pattern):
                raise ValueError(f'addresses[{index}]: "{pattern}" is neither a mailbox nor "*@domain"')
        if self.verp:
            if not _MAILBOX.fullmatch(self.verp):
                raise ValueError(f'verp: "{self.verp}" is not a mailbox')
            if len(self.verp.partition("@")[0]) > _VERP_LOCAL_MAX:
                raise ValueError(
                    f"verp: at most {_VERP_LOCAL_MAX} octets before the @, or there is no room for the trace"
                )
        for index, domain in enumerate(self.verp_senders):
            try:
                to_a_labels(domain.encode())
            except ValueError:
                raise ValueError(f'verp_senders[{index}]: "{domain}" is not a domain') from None
        if self.forward_to and not _MAILBOX.fullmatch(self.forward_to):
            raise ValueError(f'forward_to: "{self.forward_to}" is not a mailbox')
        if self.forward == "all" and not self.forward_to:
            raise ValueError("forward: all of it, and forward_to names nobody")
        if not 4096 <= self.max_octets <= _LOOKED_AT_MAX:
            raise ValueError("max_octets: between 4 KiB and 128 KiB")

    @property
    def is_used(self) -> bool:
        return bool(self.addresses or self.verp)
