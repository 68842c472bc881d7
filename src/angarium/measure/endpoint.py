"""Where a measuring tool listens or connects: `host:port`, `[v6]:port` or `unix:/path`."""

from __future__ import annotations

import msgspec


class Endpoint(msgspec.Struct, frozen=True):
    """One of the two: a TCP host and port, or the path of a UNIX-domain socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Reads an endpoint as people write it. A missing host means 127.0.0.1. ValueError says what is wrong."""
    if text.startswith("unix:"):
        if len(text) == len("unix:"):
            raise ValueError("unix: needs a path behind it")
        return Endpoint(path=text[len("unix:") :])
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is neither host:port nor unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, [::1]:25")
    return Endpoint(host=host or "127.0.0.1", port=int(port))
