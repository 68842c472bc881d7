"""Where something listens, as a value: "127.0.0.1:2525", "[::]:25", "unix:/path".

Names are refused: what a name means may change between two starts, and a listener must not wander.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Self

_PORT: Final = re.compile(r"\d{1,5}", re.ASCII)
_UNIX_PATH_OCTETS: Final = 107  # sun_path less its NUL, unix(7)


class ListenAddress(str):
    """The address as text in normal form; besides, either host and port, or path (of a unix socket).

    host  an IP address. port  0 lets the kernel choose.
    """

    host: str
    port: int
    path: str

    def __new__(cls, host: str = "", port: int = 0, path: str = "") -> Self:
        text = f"unix:{path}" if path else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self = super().__new__(cls, text)
        self.host, self.port, self.path = host, port, path
        return self

    @classmethod
    def decode(cls, value: object) -> Self:
        """Raises ValueError for anything that is not an address to listen on."""
        if not isinstance(value, str):
            raise ValueError(f'expected an address such as "127.0.0.1:25", got {value!r}')
        if value.startswith("unix:"):
            path = value.removeprefix("unix:")
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f'"{value}": a unix socket needs an absolute path')
            if len(path.encode()) > _UNIX_PATH_OCTETS:
                raise ValueError(f'"{value}": a unix socket\'s path has at most {_UNIX_PATH_OCTETS} octets')
            return cls(host="", path=path)
        host, colon, port = value.rpartition(":")
        if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
            raise ValueError(f'"{value}" is not an address with a port, such as "127.0.0.1:25" or "[::]:25"')
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if ":" not in host:
                raise ValueError(f'"{value}": brackets are for IPv6 addresses')
        elif ":" in host:
            raise ValueError(f'"{value}": write an IPv6 address in brackets, "[{host}]:{port}"')
        try:
            return cls(host=str(ipaddress.ip_address(host)), port=int(port))
        except ValueError:
            raise ValueError(f'"{value}": "{host}" is not an IP address') from None

    @property
    def is_unix(self) -> bool:
        return self.path != ""

    @property
    def is_loopback(self) -> bool:
        """Reachable from this machine only."""
        return self.is_unix or ipaddress.ip_address(self.host).is_loopback
