"""How commands reach the running daemon: its HTTP API on the unix socket in the spool directory."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from angarium.config.location import admin_socket, find, read_location
from angarium.model.address import ListenAddress
from angarium.model.errors import AngariumError, ConfigError

_TIMEOUT_S: Final = 30.0


class NoAnswer(AngariumError):
    """The daemon is not there, or it refused; the text is its own."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which daemon is meant."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the relay's configuration (./angarium.toml, /etc/angarium/angarium.toml)",
    )
    parser.add_argument(
        "--admin", metavar="ADDRESS", help="reach it there instead: 127.0.0.1:8025, unix:/path/admin.sock"
    )


class AdminClient:
    """One connection per request; the daemon is on this machine."""

    def __init__(self, address: ListenAddress) -> None:
        self.address = address

    @classmethod
    def of(cls, args: argparse.Namespace) -> AdminClient:
        """The daemon that the command line means. Raises ConfigError."""
        if args.admin is None:
            return cls(admin_socket(read_location(find(args.config)).node.spool))
        try:
            return cls(ListenAddress.decode(args.admin))
        except ValueError as error:
            raise ConfigError(f"--admin: {error}") from None

    def get(self, path: str, **query: str | int | None) -> Any:
        return self._request("GET", path, query)

    def delete(self, path: str, **query: str | int | None) -> Any:
        return self._request("DELETE", path, query)

    def put(self, path: str) -> Any:
        return self._request("PUT", path, {})

    def post(self, path: str, body: dict[str, Any], timeout_s: float = _TIMEOUT_S) -> Any:
        return self._request("POST", path, {}, json.dumps(body).encode(), timeout_s)

    def stream(self, path: str, **query: str | int | None) -> Iterator[str]:
        """Lines as they come, without end but the daemon's. Raises NoAnswer."""
        given = {key: value for key, value in query.items() if value is not None}
        connection = _Connection(self.address)
        try:
            connection.request("GET", f"{quote(path)}?{urlencode(given)}")
            response = connection.getresponse()
            if response.status >= 400:
                raise NoAnswer(_fault(response.read(), response.status), response.status)
            assert connection.sock is not None
            connection.sock.settimeout(None)
            while line := response.readline():
                yield line.decode().removesuffix("\n")
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"no relay answers at {self.address}: {_reason(error)}") from None
        finally:
            connection.close()

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str | int | None],
        body: bytes | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Any:
        """The decoded JSON answer. Raises NoAnswer with the daemon's reason."""
        given = {key: value for key, value in query.items() if value is not None}
        target = quote(path) + (f"?{urlencode(given)}" if given else "")
        connection = _Connection(self.address, timeout_s)
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            octets = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"no relay answers at {self.address}: {_reason(error)}") from None
        finally:
            connection.close()
        try:
            answer = msgspec.json.decode(octets)
        except msgspec.MsgspecError:
            raise NoAnswer(f"{self.address} does not answer like angarium") from None
        if response.status >= 400:
            raise NoAnswer(answer.get("error", str(response.status)), response.status)
        return answer


class _Connection(http.client.HTTPConnection):
    """HTTP over either kind of address."""

    def __init__(self, address: ListenAddress, timeout_s: float = _TIMEOUT_S) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._address = address

    def connect(self) -> None:
        family = (
            socket.AF_UNIX
            if self._address.is_unix
            else socket.AF_INET6
            if ":" in self._address.host
            else socket.AF_INET
        )
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address.path or (self._address.host, self._address.port))


def _fault(octets: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(octets)["error"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return str(status)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
