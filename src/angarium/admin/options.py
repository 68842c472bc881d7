"""[admin]: where the HTTP API answers beside the unix socket in the spool directory."""

from __future__ import annotations

import msgspec

from angarium.model.address import ListenAddress


class AdminOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """address: besides `admin.sock` in the spool directory, which belongs to one user.

    There is no authentication: whoever reaches a TCP address given here may read and delete queued mail.
    Therefore only loopback addresses and unix sockets are taken.
    """

    address: ListenAddress | None = None

    def __post_init__(self) -> None:
        if self.address is not None and not self.address.is_loopback:
            raise ValueError(f'address: "{self.address}" is not loopback, and the API knows no passwords')
