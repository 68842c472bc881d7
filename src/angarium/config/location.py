"""Where the configuration is, and where the daemon that runs by it can be reached: all that most commands
need.

Light on purpose: `angarium queue list` must not load what reads the other tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from angarium.admin.options import AdminOptions
from angarium.config.decode import decode_tables
from angarium.config.files import read_tree
from angarium.config.node import NodeOptions
from angarium.model.address import ListenAddress
from angarium.model.errors import ConfigError

# Where a configuration is looked for when none is named, in this order.
DEFAULT_PATHS: Final = (Path("angarium.toml"), Path("/etc/angarium/angarium.toml"))


class Location(msgspec.Struct, frozen=True):
    """All that a command needs to find the daemon; the rest of the file is not looked at."""

    node: NodeOptions = NodeOptions()
    admin: AdminOptions = AdminOptions()


def admin_socket(spool: str) -> ListenAddress:
    """Where the HTTP API always answers: whoever may enter the spool directory may ask."""
    return ListenAddress(path=f"{spool.rstrip('/')}/admin.sock")


def read_location(path: Path) -> Location:
    """Raises ConfigError."""
    return decode_tables(read_tree(path), Location)


def find(path: Path | None) -> Path:
    """The configuration to use: the file named, else the first default that exists. Raises ConfigError."""
    if path is not None:
        return path
    for candidate in DEFAULT_PATHS:
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"no configuration: neither {' nor '.join(map(str, DEFAULT_PATHS))} exists; name one with --config"
    )
