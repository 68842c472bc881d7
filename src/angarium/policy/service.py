"""A server of the policy delegation protocol, as a client: kept connections, one question at a time on each, so many at
once. Every question has an answer by its deadline, if only the configured default.
"""

from __future__ import annotations

import asyncio
import contextlib

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.policy.delegation import ANSWER_OCTETS, Action, action_text, parse_action, request
from angarium.policy.options import ServiceOptions

questions_total = counter("angarium_policy_questions_total", "Questions put to policy services.")
failures_total = counter("angarium_policy_service_failures_total", "Questions without an answer: the default held.")

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PolicyService:
    """One per worker and [[policy.service]]. close() last; questions under way end as they can."""

    def __init__(self, options: ServiceOptions, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self.options = options
        self.default = parse_action(options.default)
        self._loop = loop
        self._journal = journal
        self._places = asyncio.Semaphore(options.connections)
        self._idle: list[tuple[_Connection, asyncio.TimerHandle]] = []
        self._is_closed = False

    async def ask(self, attributes: dict[str, str]) -> Action:
        """Never raises but when cancelled."""
        questions_total.add(1)
        try:
            async with asyncio.timeout(self.options.timeout), self._places:
                return parse_action(await self._answer(request(attributes)))
        except TimeoutError:
            reason = f"no answer within {self.options.timeout!s}"
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        except ValueError as error:
            reason = str(error)
        failures_total.add(1)
        self._journal.log("error", where="policy-service", service=str(self.options.address), reason=reason)
        return self.default

    def close(self) -> None:
        self._is_closed = True
        while self._idle:
            (_, writer), timer = self._idle.pop()
            timer.cancel()
            writer.close()

    async def _answer(self, octets: bytes) -> str:
        """Raises OSError, IncompleteReadError, LimitOverrunError; ValueError: no answer of the protocol."""
        while self._idle:
            connection, timer = self._idle.pop()
            timer.cancel()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                return await self._exchange(connection, octets)
            # A kept connection that the server has closed meanwhile tells nothing about the server.
        return await self._exchange(await self._connect(), octets)

    async def _connect(self) -> _Connection:
        address = self.options.address
        if address.is_unix:
            return await asyncio.open_unix_connection(address.path, limit=ANSWER_OCTETS)
        return await asyncio.open_connection(address.host, address.port, limit=ANSWER_OCTETS)

    async def _exchange(self, connection: _Connection, octets: bytes) -> str:
        reader, writer = connection
        is_good = False
        try:
            writer.write(octets)
            text = action_text(await reader.readuntil(b"\n\n"))
            if text is None:
                raise ValueError('an answer without "action="')
            is_good = not reader.at_eof()
            return text
        finally:
            # Behind anything but a whole answer, a late one would be taken for that of the next question.
            if is_good and not self._is_closed and self.options.idle_time > 0:
                timer = self._loop.call_later(self.options.idle_time, self._retire, connection)
                self._idle.append((connection, timer))
            else:
                writer.close()

    def _retire(self, connection: _Connection) -> None:
        self._idle = [each for each in self._idle if each[0] is not connection]
        connection[1].close()
