"""What the operator may set about a tenant besides its limits: [tenant.NAME]."""

from __future__ import annotations

from typing import Final

import msgspec

_WEIGHT_MAXIMUM: Final = 1000


class TenantOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[tenant.NAME]: mail to which a hook has given this tenant.

    weight  its share where its mail waits beside others': of two with 3 and 1, three of four octets. Mail without a
            tenant counts as a tenant with weight 1.
    """

    weight: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.weight <= _WEIGHT_MAXIMUM:
            raise ValueError(f"weight: between 1 and {_WEIGHT_MAXIMUM}")
