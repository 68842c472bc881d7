"""A worker's TLS contexts for connections out: made when the first host offers TLS, and anew when their files change.

One for each authority and certificate that [shaping] names and each profile. Sessions are kept by their context: none
that was begun with one certificate, or verified by one authority, is resumed where another is set.

Files are read in a thread. New files that cannot be used change nothing and are reported once per change.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.model.errors import TlsMaterialError
from angarium.tls.certificates import ProfileName, Stamp, load_client, stamp_client
from angarium.tls.client import ClientContext
from angarium.tls.options import CertificateOptions

# As for listeners (tls/watch.py); looked at when a connection is dialled.
LOOK_S: Final = 60.0
# Judged: longer than any site rests between two dials; a reload may have taken away who needed it.
_UNUSED_S: Final = 600.0

refusals = counter(
    "angarium_outbound_tls_material_refused_total",
    "Times the certificate or the authorities for connections out could not be loaded; those before stay.",
)


class Material(msgspec.Struct, frozen=True):
    """Where contexts come from: tls_ca and tls_certificate of [shaping], as they hold for some mail."""

    ca: str | None = None
    certificate: CertificateOptions | None = None


class _Loaded:
    def __init__(self) -> None:
        self.context: ClientContext | None = None
        self.stamp: Stamp | None = None
        self.reason = ""
        self.looked_mono_s = -LOOK_S
        self.used_mono_s = 0.0
        self.lock = asyncio.Lock()


class TlsContexts:
    """Of one worker. What nobody has asked for of late is forgotten: connections keep what they began with."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._loaded: dict[tuple[Material, ProfileName], _Loaded] = {}

    async def get(self, material: Material, profile: ProfileName) -> ClientContext:
        """See ClientContext for profiles. Raises TlsMaterialError when there never was any."""
        loaded = self._loaded.get((material, profile))
        if loaded is None:
            self._forget_unused()
            loaded = self._loaded[material, profile] = _Loaded()
        loaded.used_mono_s = time.monotonic()
        if time.monotonic() - loaded.looked_mono_s >= LOOK_S:
            async with loaded.lock:
                if time.monotonic() - loaded.looked_mono_s >= LOOK_S:
                    await self._look(loaded, material, profile)
        if loaded.context is None:
            raise TlsMaterialError("tls", loaded.reason)
        return loaded.context

    @property
    def count(self) -> int:
        """Of contexts, and of those that could not be made."""
        return len(self._loaded)

    def _forget_unused(self) -> None:
        over_mono_s = time.monotonic() - _UNUSED_S
        self._loaded = {key: each for key, each in self._loaded.items() if each.used_mono_s > over_mono_s}

    async def _look(self, loaded: _Loaded, material: Material, profile: ProfileName) -> None:
        stamp = await self._loop.run_in_executor(None, stamp_client, material.ca, material.certificate)
        if stamp != loaded.stamp or (loaded.context is None and not loaded.reason):
            try:
                loaded.context = await self._loop.run_in_executor(
                    None, load_client, material.ca, material.certificate, profile
                )
                loaded.reason = ""
            except TlsMaterialError as error:
                refusals.add(1)
                loaded.reason = str(error)
                self._journal.log("certificates-refused", listener="outbound", reason=str(error))
        loaded.stamp = stamp
        loaded.looked_mono_s = time.monotonic()
