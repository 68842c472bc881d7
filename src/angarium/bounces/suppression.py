"""The suppression list: addresses that are not sent to for a while, because mail to them has failed.

One LMDB file for all workers and for `angarium suppress`, read in place.

The file tells nobody's address: keys are keyed hashes (BLAKE2b with the installation's secret) of the address in normal
form, and of the tenant where lists are per tenant. Bounded: past max_entries those go first whose end is nearest.

Format: database "entries", key 16 octets of hash, value
    off size field      little-endian
      0   1  version    1
      1   1  is_listed  0: failures are being counted, 1: not to be sent to
      2   4  hits       failures so far
      6   8  first_utc_s
     14   8  expires_utc_s      then it counts for nothing
     22   n  class      ASCII
and database "expiry", key expires_utc_s (8 octets, big-endian) and the hash, no value: what to forget next. Both change
in one transaction, which is on stable storage when it is over (LMDB's way of writing: a crash leaves the former state).
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import lmdb
import msgspec

from angarium.bounces.suppression_options import SuppressionOptions, SuppressionRule
from angarium.model.errors import AngariumError
from angarium.resolver.domain_name import to_a_labels

FILE_NAME: Final = "suppression.lmdb"
_HEAD: Final = struct.Struct("<BBIQQ")
_EXPIRY: Final = struct.Struct(">Q")
_VERSION: Final = 1
_KEY: Final = 16
# Of an entry and its expiry with what LMDB's pages waste; the file grows as it is used.
_ENTRY_OCTETS: Final = 512
_FORGET_AT_ONCE: Final = 1000


class SuppressionError(AngariumError):
    """The list cannot be opened, read or written; the text says why."""


class Entry(msgspec.Struct, frozen=True):
    """hash: 32 hexadecimal digits. name: the class."""

    hash: str
    name: str
    is_listed: bool
    hits: int
    first_utc_s: int
    expires_utc_s: int


class Failure(msgspec.Struct, frozen=True):
    """Mail to a recipient has failed: class, tenant (b"": none, None: not known whose), forward-path.

    key  of tenant and forward-path (entry_key()), where nothing else is known of them; b"": they are.
    """

    name: str
    tenant: bytes | None
    forward_path: bytes
    key: bytes = b""


class SuppressionList:
    """Opened by each process for itself, after the fork. close() last.

    secret  of bounces/secret.py. clock  UTC seconds.
    Raises SuppressionError, here and everywhere.
    """

    def __init__(
        self, path: Path, options: SuppressionOptions, secret: bytes, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._options = options
        self._secret = secret
        self._clock = clock
        self._path = path
        with _told(path):
            self._environment = lmdb.open(
                str(path),
                subdir=False,
                map_size=max(16 << 20, options.max_entries * _ENTRY_OCTETS),
                max_dbs=2,
                mode=0o600,
                max_readers=256,
            )
            self._environment.reader_check()  # of processes that were killed
            self._entries = self._environment.open_db(b"entries")
            self._expiry = self._environment.open_db(b"expiry")

    def close(self) -> None:
        self._environment.close()

    def listed(self, tenant: bytes, forward_path: bytes) -> str | None:
        """The class for which the recipient is on the list, in the tenant's or in everybody's; None: it is not."""
        address = normal_form(forward_path)
        now = self._clock()
        keys = [self._key(b"", address)]
        if tenant and self._options.scope == "tenant":
            keys.append(self._key(tenant, address))
        with _told(self._path), self._environment.begin(db=self._entries, buffers=False) as transaction:
            for key in keys:
                entry = _decode(key, transaction.get(key))
                if entry is not None and entry.is_listed and entry.expires_utc_s > now:
                    return entry.name
        return None

    def entry(self, tenant: bytes, forward_path: bytes) -> Entry | None:
        """What is known of one address in one list, be it listed or only counted."""
        key = self._key(tenant, normal_form(forward_path))
        with _told(self._path), self._environment.begin(db=self._entries) as transaction:
            entry = _decode(key, transaction.get(key))
        return entry if entry is not None and entry.expires_utc_s > self._clock() else None

    def entries(self) -> Iterator[Entry]:
        """All that hold, in no order that means anything."""
        now = self._clock()
        with _told(self._path), self._environment.begin(db=self._entries) as transaction:
            for key, value in transaction.cursor():
                entry = _decode(key, value)
                if entry is not None and entry.expires_utc_s > now:
                    yield entry

    def wants(self, name: str) -> bool:
        """Whether failures of this class count."""
        return name in self._options.rules

    def note(self, failures: Iterable[Failure]) -> int:
        """Counts them, in one transaction; how many addresses are newly listed."""
        now = int(self._clock())
        added = 0
        with _told(self._path), self._environment.begin(write=True) as transaction:
            for failure in failures:
                rule = self._options.rules.get(failure.name)
                if rule is not None:
                    added += self._count(transaction, failure, rule, now)
            self._make_room(transaction, now)
        return added

    def add(self, tenant: bytes, forward_path: bytes, name: str, keep_s: float) -> None:
        """Lists an address, whatever was known of it."""
        now = int(self._clock())
        key = self._key(tenant, normal_form(forward_path))
        with _told(self._path), self._environment.begin(write=True) as transaction:
            self._put(transaction, key, name, is_listed=True, hits=1, first=now, expires=now + round(keep_s))
            self._make_room(transaction, now)

    def remove(self, tenant: bytes, forward_path: bytes) -> bool:
        """Forgets an address; False when nothing was known of it."""
        with _told(self._path), self._environment.begin(write=True) as transaction:
            return self._forget(transaction, self._key(tenant, normal_form(forward_path)))

    def forget_expired(self) -> int:
        """Some of those that are over; how many. Call it again when there were many."""
        with _told(self._path), self._environment.begin(write=True) as transaction:
            return self._make_room(transaction, int(self._clock()))

    # ---- inside a transaction

    def _count(self, transaction: lmdb.Transaction, failure: Failure, rule: SuppressionRule, now: int) -> int:
        key = self._key_of(failure)
        if key is None:
            return 0
        known = _decode(key, transaction.get(key, db=self._entries))
        if known is not None and known.expires_utc_s <= now:
            known = None
        if known is not None and known.is_listed:
            # Mail that was under way when it was listed: it stays for as long as the later of both says.
            expires = max(known.expires_utc_s, now + round(rule.keep))
            self._put(
                transaction,
                key,
                known.name,
                is_listed=True,
                hits=known.hits + 1,
                first=known.first_utc_s,
                expires=expires,
            )
            return 0
        is_same = known is not None and known.name == failure.name
        hits = known.hits + 1 if known is not None and is_same else 1
        first = known.first_utc_s if known is not None and is_same else now
        is_listed = hits >= rule.count
        expires = now + round(rule.keep) if is_listed else first + round(rule.within)
        self._put(transaction, key, failure.name, is_listed=is_listed, hits=hits, first=first, expires=expires)
        return int(is_listed)

    def _key_of(self, failure: Failure) -> bytes | None:
        """Where it counts; None: nowhere. What may be one tenant's never counts for all."""
        if self._options.scope != "tenant":
            # A key is of one tenant, and there was a list for each when it was made.
            return None if failure.key else self._key(b"", normal_form(failure.forward_path))
        if failure.key:
            return failure.key
        return None if failure.tenant is None else self._key(failure.tenant, normal_form(failure.forward_path))

    def _put(
        self,
        transaction: lmdb.Transaction,
        key: bytes,
        name: str,
        *,
        is_listed: bool,
        hits: int,
        first: int,
        expires: int,
    ) -> None:
        self._forget(transaction, key)
        head = _HEAD.pack(_VERSION, is_listed, min(hits, 0xFFFFFFFF), first, expires)
        transaction.put(key, head + name.encode("ascii"), db=self._entries)
        transaction.put(_EXPIRY.pack(expires) + key, b"", db=self._expiry)

    def _forget(self, transaction: lmdb.Transaction, key: bytes) -> bool:
        known = _decode(key, transaction.get(key, db=self._entries))
        if known is None:
            return bool(transaction.delete(key, db=self._entries))
        transaction.delete(_EXPIRY.pack(known.expires_utc_s) + key, db=self._expiry)
        return bool(transaction.delete(key, db=self._entries))

    def _make_room(self, transaction: lmdb.Transaction, now: int) -> int:
        """Forgets what is over, and while there are too many what is over next."""
        surplus = transaction.stat(self._entries)["entries"] - self._options.max_entries
        doomed: list[bytes] = []
        for key, _ in transaction.cursor(db=self._expiry):
            (expires,) = _EXPIRY.unpack(key[:8])
            if len(doomed) >= _FORGET_AT_ONCE or (expires > now and len(doomed) >= surplus):
                break
            doomed.append(bytes(key))
        for key in doomed:
            transaction.delete(key, db=self._expiry)
            transaction.delete(key[8:], db=self._entries)
        return len(doomed)

    def _key(self, tenant: bytes, address: bytes) -> bytes:
        return _hash_of(self._secret, tenant, address)


def entry_key(secret: bytes, tenant: bytes, forward_path: bytes) -> bytes:
    """What an entry is found by, 16 octets. tenant b"": in everybody's list."""
    return _hash_of(secret, tenant, normal_form(forward_path))


def _hash_of(secret: bytes, tenant: bytes, address: bytes) -> bytes:
    said = tenant + b"\0" + address
    return hashlib.blake2b(said, key=secret, person=b"angarium-suppr", digest_size=_KEY).digest()


def normal_form(forward_path: bytes) -> bytes:
    """One spelling of an address: lower case, the domain in A-labels. What is behind a "+" belongs to it."""
    local, _, domain = forward_path.rpartition(b"@")
    try:
        domain = to_a_labels(domain).encode("ascii")
    except ValueError:
        domain = domain.lower()
    return local.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape") + b"@" + domain


def _decode(key: bytes | memoryview, value: bytes | memoryview | None) -> Entry | None:
    if value is None or len(value) < _HEAD.size:
        return None
    version, is_listed, hits, first, expires = _HEAD.unpack_from(value)
    if version != _VERSION:
        return None
    return Entry(
        bytes(key).hex(), bytes(value[_HEAD.size :]).decode("ascii", "replace"), bool(is_listed), hits, first, expires
    )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise SuppressionError(f"{path}: {error}") from None
