"""Policy of one worker: the hooks of the operator's file and the policy services, appointed as judges of its listeners.

Three makers of judges, because others stand between them: appoint_services (MAIL begins a transaction there), then
appoint_hooks, then whoever knows recipients, then appoint_last. Without a [policy] nobody is appointed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from angarium.events.journal import Journal
from angarium.inbound.delegation_judges import DelegationJudges
from angarium.inbound.hook_judges import HookJudges, LastJudges
from angarium.inbound.judgement import Judges
from angarium.inbound.options import ListenerOptions
from angarium.policy.arguments import Outcome
from angarium.policy.hook_file import HookFileError, HookSource
from angarium.policy.hooks import BoundHook, Hooks
from angarium.policy.options import PolicyOptions
from angarium.policy.outcomes import OutcomeTeller
from angarium.policy.printed import Printed
from angarium.policy.service import PolicyService
from angarium.spool.envelope import encode_id

NOBODY = Judges()


class Policy:
    """apply() before the first listener is made, and before listeners follow a reload. drain() and close() last."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        make_hook: Callable[..., BoundHook] = BoundHook,
        make_service: Callable[..., PolicyService] = PolicyService,
        printed_to: Journal | None = None,
    ) -> None:
        """make_hook, make_service, printed_to: where somebody listens in (rehearsal.py)."""
        self._make_hook = make_hook
        self._make_service = make_service
        self._loop = loop
        self._journal = journal
        self._options = PolicyOptions()
        self._hooks: Hooks | None = None
        self._teller: OutcomeTeller | None = None
        self._printed = Printed(loop, printed_to or journal)
        self._services: list[PolicyService] = []

    def apply(self, options: PolicyOptions, source: HookSource | None) -> None:
        """Runs the hook file anew. Raises HookFileError, and then nothing has changed.

        source  of options.file; None: there is none.
        """
        hooks = None if source is None else self._run(source, options)
        self._hooks = hooks
        if options.service != self._options.service:
            for service in self._services:
                service.close()
            self._services = [self._make_service(each, self._loop, self._journal) for each in options.service]
        self._options = options
        former, self._teller = self._teller, None
        if hooks is not None and hooks.on_outcome is not None:
            backlog = former.take_backlog() if former is not None else ()
            self._teller = OutcomeTeller(hooks.on_outcome, options.outcomes, self._loop, backlog)
        self._journal.outcomes = None if self._teller is None else self._tell

    def _run(self, source: HookSource, options: PolicyOptions) -> Hooks:
        # From the first hook file to the end: what one of them has left behind may print when there are none any more.
        self._printed.start()
        try:
            return Hooks(source, options, self._loop, self._journal, self._make_hook)
        except HookFileError:
            self._journal.flush()  # who cannot start ends at once, and what the file has printed may tell why
            raise

    def auth_hook(self) -> BoundHook | None:
        """Who knows credentials, where the configuration says that a hook does."""
        return None if self._hooks is None else self._hooks.on_auth

    def recipient_hook(self) -> BoundHook | None:
        """Who knows recipients, likewise."""
        return None if self._hooks is None else self._hooks.knows_recipient

    @property
    def is_empty(self) -> bool:
        return self._hooks is None and not self._services

    def appoint_services(self, options: ListenerOptions) -> Judges:
        if self.is_empty:
            return NOBODY
        return DelegationJudges(self._services, options, self._journal).judges()

    def appoint_hooks(self, options: ListenerOptions) -> Judges:
        return NOBODY if self._hooks is None else HookJudges(self._hooks, self._options.body_size).judges()

    def appoint_last(self, options: ListenerOptions) -> Judges:
        if self.is_empty:
            return NOBODY
        return LastJudges(None if self._hooks is None else self._hooks.route).judges()

    async def drain(self, deadline_s: float) -> None:
        """The hook on_outcome is told what it is behind with, by the deadline."""
        if self._teller is not None:
            await self._teller.drain(deadline_s)

    def close(self) -> None:
        self._journal.outcomes = None
        if self._teller is not None:
            self._teller.close()
        for service in self._services:
            with contextlib.suppress(OSError):
                service.close()
        self._printed.stop()

    def _tell(  # noqa: PLR0917
        self,
        event: str,
        id_: int,
        reverse_path: bytes,
        forward_path: bytes,
        octets: int,
        site: bytes | None,
        source: bytes | None,
        remote: bytes,
        code: int,
        status: str,
        reply: bytes,
        attempt: int,
        age_s: float,
        elapsed_s: float,
        bounce_class: str,
    ) -> None:
        """What queue/log.pyx calls for each line."""
        if self._teller is None or not self._teller.has_room():
            return
        self._teller.put(
            Outcome(
                event,  # type: ignore[arg-type]
                encode_id(id_),
                _text(reverse_path),
                _text(forward_path),
                octets,
                _text(site or b""),
                _text(source or b""),
                _text(remote),
                code,
                status,
                _text(reply),
                attempt,
                age_s,
                elapsed_s,
                bounce_class,
            )
        )


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
