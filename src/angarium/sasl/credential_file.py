"""The file of credentials: text, one line an identity, nothing in it that could be used to log in elsewhere.

    # angarium credentials 1
    secret TAB base64                                     32 octets of our own, made with the file: RFC 5802 §9's salts
    identity TAB $argon2id$... TAB SCRAM-SHA-256$iterations:salt$stored key:server key      base64

VALID    every line is one of these, identities are prepared (preparation.py) and differ; else all of it is refused.
DURABLE  a new file is written beside it, synced, renamed over it, and the directory synced: readers see the old or the
         new one. Writers lock the directory, so none undoes what another did.
MODE     nobody but owner and group may read it, nobody but the owner write it; it is made with 0600.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from argon2 import PasswordHasher, Type

from angarium.model.errors import AngariumError
from angarium.sasl.preparation import identity_of
from angarium.sasl.scram import KEY_OCTETS, make_keys
from angarium.sasl.steps import ScramKeys

# OWASP's least for argon2id: 19 MiB, two passes, one lane: 25 ms a password where this was written. RFC 9106's would be
# 64 MiB and four lanes, ten times the CPU: too much for a machine whose every client may send passwords.
ARGON2_MEMORY_KIB: Final = 19456
ARGON2_PASSES: Final = 2
HASHER: Final = PasswordHasher(
    time_cost=ARGON2_PASSES, memory_cost=ARGON2_MEMORY_KIB, parallelism=1, hash_len=32, salt_len=16, type=Type.ID
)
FILE_OCTETS: Final = 1 << 30

_HEADER: Final = "# angarium credentials 1"
_B64: Final = "[A-Za-z0-9+/=]"
_ARGON2: Final = re.compile(rf"\$argon2id\$v=19\$m=\d{{1,7}},t=\d{{1,4}},p=\d{{1,3}}\${_B64}+\${_B64}+", re.ASCII)
_SCRAM: Final = re.compile(rf"SCRAM-SHA-256\$(\d{{4,9}}):({_B64}+)\$({_B64}{{44}}):({_B64}{{44}})", re.ASCII)


class CredentialsError(AngariumError):
    """The file cannot be used; the text begins with its name."""


class Entry(msgspec.Struct, frozen=True):
    argon2: str
    scram: ScramKeys


class Credentials(msgspec.Struct):
    """What the file holds. `secret` makes up salts for identities that do not exist."""

    secret: bytes
    entries: dict[str, Entry]


def make_entry(password: str) -> Entry:
    """`password` is prepared. Takes about a tenth of a second of CPU."""
    return Entry(HASHER.hash(password), make_keys(password))


def imagined_verifier() -> str:
    """An argon2id verifier that costs as much as any of make_entry() and that no password fits."""

    def text(octets: int) -> str:
        return base64.b64encode(secrets.token_bytes(octets)).decode().rstrip("=")

    return f"$argon2id$v=19$m={ARGON2_MEMORY_KIB},t={ARGON2_PASSES},p=1${text(16)}${text(32)}"


def read(path: Path) -> Credentials:
    """Raises CredentialsError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_OCTETS:
            raise CredentialsError(f"{path}: not a regular file of at most 1 GiB")
        if status.st_mode & 0o037:
            mode = stat.S_IMODE(status.st_mode)
            raise CredentialsError(f"{path}: mode {mode:04o}: more than 0640 lets others read or write it")
        octets = file.read()
    return _parse(path, octets)


def changed_by(path: Path) -> tuple[int, int, int] | None:
    """What is another value when the file is another; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextlib.contextmanager
def changing(path: Path, *, may_make: bool = False) -> Iterator[Credentials]:
    """The file's contents, written back when the block ends well. One writer at a time; the others wait.

    may_make  a file that does not exist is made.
    Raises CredentialsError.
    """
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CredentialsError(f"{path.parent}: {error.strerror}") from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        is_new = may_make and not path.exists()
        credentials = Credentials(secrets.token_bytes(32), {}) if is_new else read(path)
        yield credentials
        _write(path, credentials, directory)
    finally:
        os.close(directory)


def _write(path: Path, credentials: Credentials, directory: int) -> None:
    beside = f".{path.name}.{os.getpid()}.new"
    lines = [_HEADER, f"secret\t{_text(credentials.secret)}"]
    for identity, entry in sorted(credentials.entries.items()):
        keys = entry.scram
        scram = f"{keys.iterations}:{_text(keys.salt)}${_text(keys.stored_key)}:{_text(keys.server_key)}"
        lines.append(f"{identity}\t{entry.argon2}\tSCRAM-SHA-256${scram}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            with open(fd, "w", encoding="utf-8", newline="\n") as file:
                with contextlib.suppress(FileNotFoundError):
                    old = os.stat(path)
                    # Readable to the relay's group as before; whoever may not give a file away keeps it.
                    with contextlib.suppress(PermissionError):
                        os.fchown(fd, old.st_uid, old.st_gid)
                    os.fchmod(fd, stat.S_IMODE(old.st_mode))
                file.write("\n".join(lines) + "\n")
                file.flush()
                os.fsync(fd)
            os.rename(beside, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=directory)
            raise
        os.fsync(directory)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from None


def _parse(path: Path, octets: bytes) -> Credentials:
    def refuse(number: int, reason: str) -> NoReturn:
        raise CredentialsError(f"{path}:{number}: {reason}")

    try:
        lines = octets.decode().split("\n")
    except UnicodeDecodeError:
        raise CredentialsError(f"{path}: not UTF-8") from None
    if lines[0] != _HEADER or lines[-1] != "":
        refuse(1, "not a file of credentials, or not the whole of it; `angarium auth add` makes one")
    credentials = Credentials(b"", {})
    for number, line in enumerate(lines[1:-1], 2):
        fields = line.split("\t")
        if len(fields) == 2 and fields[0] == "secret" and not credentials.secret:
            credentials.secret = _octets(fields[1])
            continue
        if len(fields) != 3:
            refuse(number, "expected identity, argon2id verifier and SCRAM keys, with tabs between")
        identity, argon2, scram = fields
        match = _SCRAM.fullmatch(scram)
        if match is None or not _ARGON2.fullmatch(argon2):
            refuse(number, "not an argon2id verifier and SCRAM-SHA-256 keys")
        keys = ScramKeys(_octets(match[2]), int(match[1]), _octets(match[3]), _octets(match[4]))
        if not keys.salt or len(keys.stored_key) != KEY_OCTETS or len(keys.server_key) != KEY_OCTETS:
            refuse(number, "SCRAM-SHA-256 keys of another length")
        try:
            if identity_of(identity) != identity or identity in credentials.entries:
                raise ValueError
        except ValueError:
            refuse(number, "an identity that is malformed, or there already")
        credentials.entries[identity] = Entry(argon2, keys)
    if len(credentials.secret) < 16:
        refuse(2, "no secret")
    return credentials


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _octets(text: str) -> bytes:
    """What is not base64 is as if it were empty: the caller looks at the length."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        return b""
