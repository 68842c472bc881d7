"""An intake whose listener offers AUTH in clear to loopback, with credentials of the tests' own."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from inbound.intake_harness import IntakeHarness, intake_harness
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.authority import Authority
from angarium.inbound.options import ListenerAuthOptions
from angarium.inbound.quota import Counts
from angarium.model.units import Duration
from angarium.sasl.credential_file import HASHER, Entry, changing
from angarium.sasl.options import AuthOptions, CredentialSource
from angarium.sasl.scram import make_keys

CLEAR = ListenerAuthOptions(offered=True, allow_plaintext_from=["127.0.0.0/8"])
PASSWORD = "correct horse"


def write_credentials(path: Path, *identities: str, password: str = PASSWORD) -> CredentialSource:
    entry = Entry(HASHER.hash(password), make_keys(password, iterations=4096))
    with changing(path, may_make=True) as credentials:
        credentials.entries.update(dict.fromkeys(identities, entry))
    return CredentialSource.decode(f"file:{path}")


@asynccontextmanager
async def auth_harness(
    folder: Path, *, source: CredentialSource | None = None, auth: ListenerAuthOptions = CLEAR, **options: Any
) -> AsyncIterator[IntakeHarness]:
    """options  of AuthOptions, and `tls`, `extensions` and `relay_to` of the listener; no failure is kept waiting
    unless they say so."""
    if source is None:
        source = write_credentials(folder / "credentials", "alice@x.example", "bob@x.example")
    listener = {key: options.pop(key) for key in ("tls", "extensions", "relay_to") if key in options}
    options = {"failure_delay": Duration(0), **options}
    async with intake_harness(folder, auth=auth, relay_from=[], **listener) as harness:
        authority = Authority(harness.loop, harness.journal, Counts())
        authority.apply(AuthOptions(credentials=source, **options))
        harness.intake.authority = authority
        try:
            yield harness
        finally:
            authority.close()


def plain(identity: str = "alice@x.example", password: str = PASSWORD) -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(f"\0{identity}\0{password}".encode()) + b"\r\n"


async def logged_in(port: int, identity: str = "alice@x.example") -> SmtpPeer:
    peer = await SmtpPeer.greeted(port)
    assert (await peer.ask(plain(identity))).startswith("235 2.7.0 ")
    return peer
