"""The secret of this installation: what keyed hashes of addresses and traces in reverse-paths are made with.

32 octets in a file of mode 0600, made when it is missing. Whoever has it can make traces that we take for our own, and
can try whether an address is on a list; without it neither.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from angarium.model.errors import AngariumError

OCTETS: Final = 32
FILE_NAME: Final = "secret.key"


class SecretError(AngariumError):
    """The file cannot be read or made, or is no secret."""


def secret_path(spool: str, configured: str) -> Path:
    """Where it lies: beside the spool's shards, unless the configuration says otherwise."""
    return Path(configured or f"{spool}/{FILE_NAME}")


def read_or_make(path: Path) -> bytes:
    """The secret. Raises SecretError."""
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise SecretError(f"{path}: {error.strerror or error}") from None
    if len(secret) != OCTETS:
        raise SecretError(f"{path}: {len(secret)} octets, and a secret has {OCTETS}; remove it to have a new one made")
    return secret


def _make(path: Path) -> None:
    """Whole or not at all, and only once: several workers may begin together."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(OCTETS))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
