"""Recipient domains and who waits for them (Cython callers see more, in the .pxd)."""

from typing import final

from angarium.model.plan import Plan
from angarium.queue.shaping import Kind

@final
class DomainQueue:
    """One recipient domain and route, its plan, and who waits for one.

    key  domain in lower case; behind a NUL its tenant, where limits look at that, and its route (routing/route_key.py).
    """

    count: int
    unrouted: int
    key: bytes
    @property
    def domain(self) -> bytes: ...
    @property
    def tenant(self) -> bytes: ...
    @property
    def route(self) -> bytes: ...
    @property
    def route_key(self) -> bytes: ...
    kind: Kind | None
    plan: Plan | None
    plan_expires_mono_s: float
    @property
    def site_name(self) -> str | None: ...
    @property
    def provider_name(self) -> str | None: ...

@final
class DomainTable:
    """All domain queues of a worker, by name."""

    def __len__(self) -> int: ...
