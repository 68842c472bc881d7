"""An intake with hooks of the test's own, written into a file as an operator would."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness

from angarium.inbound.policy import Policy
from angarium.model.units import decode_unit
from angarium.policy.hook_file import read_source
from angarium.policy.options import PolicyOptions


def policy_options(**options: Any) -> PolicyOptions:
    """As from a file."""
    return msgspec.convert(options, PolicyOptions, dec_hook=decode_unit)


def apply_policy(harness: IntakeHarness, policy: Policy, hooks: str, **options: Any) -> None:
    """As a reload does. hooks: the text of the file, "" for none."""
    source = None
    path = Path(options.pop("path", "policy.py"))
    if hooks:
        path.write_text("from angarium.policy import *\n" + textwrap.dedent(hooks))
        source = read_source(str(path))
    policy.apply(policy_options(**options), source)
    for listener in harness.listeners:
        listener.apply(HOSTNAME, listener.context.options, listener.context.tls)


@asynccontextmanager
async def policy_harness(
    folder: Path, hooks: str, *, listener: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[IntakeHarness]:
    """options  of [policy]."""
    async with intake_harness(folder, **(listener or {})) as harness:
        policy = Policy(harness.loop, harness.journal)
        harness.policy = policy  # type: ignore[attr-defined]
        harness.intake.appointing = (policy.appoint_services, policy.appoint_hooks, policy.appoint_last)
        apply_policy(harness, policy, hooks, path=folder / "policy.py", **options)
        try:
            yield harness
        finally:
            policy.close()
