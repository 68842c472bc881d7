"""Recipient domains and who waits for them (Cython callers see more, in the .pxd)."""

from typing import final

from angarium.model.plan import Plan

@final
class DomainQueue:
    """One recipient domain, its plan, and who waits for one."""

    count: int
    unrouted: int
    domain: bytes
    plan: Plan | None
    plan_expires_mono_s: float

@final
class DomainTable:
    """All domain queues of a worker, by name."""

    def __len__(self) -> int: ...
