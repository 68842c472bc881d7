"""A dialogue played against policy with nobody at the other end: what each hook and service decides, what would be
answered, what would be written. Nothing is stored or sent.

The session, the judges and the hooks are those of a worker; the connection, TLS, AUTH and the spool are not there.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, Iterable
from types import CoroutineType
from typing import Any, Final, TypeVar

import msgspec

from angarium.events.journal import Journal
from angarium.inbound.delegation_judges import DelegationJudges
from angarium.inbound.hook_judges import HookJudges, LastJudges
from angarium.inbound.judgement import (
    Answer,
    ConnectCase,
    Judges,
    MailCase,
    MessageCase,
    NewRecipient,
    RcptCase,
    appoint,
)
from angarium.inbound.options import ListenerOptions
from angarium.inbound.policy_state import Visit
from angarium.model.refusal import Refusal
from angarium.policy.decisions import Accept
from angarium.policy.delegation import Action
from angarium.policy.hook_file import HookSource
from angarium.policy.hooks import BoundHook, Hooks
from angarium.policy.options import PolicyOptions
from angarium.policy.service import PolicyService
from angarium.smtp import replies, server_events
from angarium.smtp.server_session import ServerSession
from angarium.smtp.server_settings import ServerSettings
from angarium.spool.envelope import Attribute

C = TypeVar("C", ConnectCase, MailCase, RcptCase, MessageCase)

QUEUED: Final = b"250 2.0.0 Ok: would be queued\r\n"


class Step(msgspec.Struct, omit_defaults=True):
    """One command (without its line end) and what came of it. decisions: (who, what), in order."""

    command: str
    decisions: list[tuple[str, str]] = []
    reply: str = ""


class Taken(msgspec.Struct):
    """A message that would be queued: as it would be written."""

    reverse_path: str
    recipients: list[str]
    attributes: dict[str, str]
    header: str
    """The header section after all changes, without our Received field."""


class RehearsedPeer:
    """The client, as judges see it."""

    def __init__(self, listener: ListenerOptions, host: str, identity: str | None, is_secure: bool) -> None:
        self.listener = listener
        self.host = host
        self.helo = b""
        self.identity = identity
        self.is_secure = is_secure
        self.tls_version = "TLSv1.3" if is_secure else ""
        self.visit: Visit | None = None
        address = ipaddress.ip_address(host or "127.0.0.1")
        networks = listener.networks(listener.relay_from)
        self.may_relay = identity is not None or any(
            address in network for network in networks if network.version == address.version
        )

    @property
    def network(self) -> bytes:
        address = ipaddress.ip_address(self.host or "127.0.0.1")
        return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed[:8]

    def hold_back(self, seconds: float) -> None:
        """Nobody waits in a rehearsal."""

    def say_first(self, line: bytes) -> None:
        """Nor is anybody greeted in two parts."""

    def let_in(self, seconds: float) -> None:
        """Judges of entry are not rehearsed: points are of addresses that really come."""


class Rehearsal:
    """One connection. steps, taken: what has come of it so far. Raises HookFileError when it is made.

    services  False: policy services are not asked; some remember what they are asked about.
    """

    def __init__(
        self,
        peer: RehearsedPeer,
        options: PolicyOptions,
        source: HookSource | None,
        journal: Journal,
        *,
        hostname: str,
        services: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.steps: list[Step] = []
        self.taken: list[Taken] = []
        self._peer = peer
        self._services = [
            _WatchedService(each, loop, journal, self._note) for each in (options.service if services else ())
        ]
        self._judges = self._appointed(options, source, loop, journal)
        listener = peer.listener
        self._session = ServerSession(
            ServerSettings(
                hostname, max_message_octets=listener.max_message_octets, max_recipients=listener.max_recipients,
                max_line_octets=listener.max_line_octets, max_errors=listener.max_errors,
            )
        )  # fmt: skip
        self._is_over = False
        self._body = b""
        self._case: MessageCase | None = None
        self._refusal: Refusal | None = None
        self._reverse_path = b""
        self._is_smtputf8 = False
        self._recipients: list[NewRecipient] = []
        self._attributes: dict[int, bytes] = {}

    @property
    def is_over(self) -> bool:
        return self._is_over

    async def connect(self) -> None:
        self.steps.append(Step("(connects)"))
        refusal = await self._ask(self._judges.connect, ConnectCase(self._peer))
        if refusal is None:
            self._session.greet()
        else:
            self._session.close_with(refusal.reply)
        await self._go_on()

    async def send(self, line: bytes) -> str:
        """One line without its end, of a command or of a message; what is answered, "" when nothing is."""
        if self._is_over:
            return ""
        if self._is_in_data():
            self._session.receive(line + b"\r\n")
        else:
            self.steps.append(Step(line.decode("utf-8", "replace")))
            self._session.receive(line + b"\r\n")
        return await self._go_on()

    def close(self) -> None:
        for service in self._services:
            service.close()

    def _is_in_data(self) -> bool:
        return self._session.is_in_data()

    def _appointed(
        self, options: PolicyOptions, source: HookSource | None, loop: asyncio.AbstractEventLoop, journal: Journal
    ) -> Judges:
        def make(*facts: Any, **more: Any) -> BoundHook:
            return _WatchedHook(*facts, told=self._note, **more)

        hooks = None if source is None else Hooks(source, options, loop, journal, make)
        makers: list[Callable[[ListenerOptions], Judges]] = [
            lambda listener: DelegationJudges(self._services, listener, journal).judges()
        ]
        if hooks is not None:
            makers.append(lambda listener: HookJudges(hooks, options.body_size).judges())
        makers.append(lambda listener: LastJudges(None if hooks is None else hooks.route).judges())
        return appoint(makers, self._peer.listener) or Judges()

    def _note(self, who: str, what: str) -> None:
        self.steps[-1].decisions.append((who, what))

    async def _ask(self, judges: Iterable[Callable[[C], Answer]], case: C) -> Refusal | None:
        for judge in judges:
            answer = judge(case)
            if isinstance(answer, CoroutineType):
                answer = await answer
            if answer is not None:
                return answer  # type: ignore[return-value]
        return None

    async def _go_on(self) -> str:
        while (event := self._session.next_event()) is not None:
            match event:
                case server_events.Helo(name=name):
                    self._peer.helo = name
                case server_events.Mail():
                    await self._mail(event)
                case server_events.Rcpt():
                    await self._rcpt(event)
                case server_events.Data():
                    self._body, self._case, self._refusal = b"", None, None
                    self._session.begin_data()
                case server_events.Body():
                    self._body += self._session.take_body()
                    await self._look(is_whole=False)
                case server_events.Message():
                    self._body += self._session.take_body()
                    await self._look(is_whole=True)
                    self._finish()
                case server_events.Close():
                    self._is_over = True
                    break
        reply = self._session.take_output().decode("utf-8", "replace").rstrip("\r\n")
        if reply:
            self.steps[-1].reply = reply
        return reply

    async def _mail(self, event: server_events.Mail) -> None:
        case = MailCase(self._peer, event.reverse_path, event.envid, event.announced_octets, event.smtputf8)
        refusal = await self._ask(self._judges.mail, case)
        if refusal is not None:
            self._session.refuse(refusal.reply)
            return
        self._reverse_path, self._is_smtputf8 = event.reverse_path, event.smtputf8
        self._attributes = dict(case.attributes)
        self._recipients = []
        self._session.accept()

    async def _rcpt(self, event: server_events.Rcpt) -> None:
        domain = event.forward_path[event.domain_offset :].lower().removesuffix(b".")
        listener = self._peer.listener
        parents = [b"." + domain.split(b".", cut)[-1] for cut in range(1, domain.count(b".") + 1)]
        is_ours = domain in listener.domains or any(each in listener.domains for each in parents)
        if domain and not (self._peer.may_relay or is_ours):
            self._session.refuse(replies.RELAY_DENIED)
            return
        case = RcptCase(self._peer, self._reverse_path, event.forward_path, event.orcpt, event.notify)
        refusal = await self._ask(self._judges.rcpt, case)
        if refusal is not None:
            self._session.refuse(refusal.reply)
            return
        self._recipients += [NewRecipient(event.forward_path)] if case.recipients is None else case.recipients
        self._attributes.update(case.attributes)
        self._session.accept()

    async def _look(self, *, is_whole: bool) -> None:
        if self._case is not None:
            return
        self._case = case = MessageCase(
            self._peer, 0, self._reverse_path,
            trace=b"", content=self._body, is_whole=is_whole, is_smtputf8=self._is_smtputf8,
        )  # fmt: skip
        self._refusal = await self._ask(self._judges.message, case)

    def _finish(self) -> None:
        case = self._case
        assert case is not None
        if self._refusal is not None:
            self._session.finish(self._refusal.reply)
            return
        recipients = self._recipients if case.recipients is None else case.recipients
        self._attributes.update(case.attributes)
        if recipients:
            self.taken.append(
                Taken(
                    _text(self._reverse_path),
                    [_text(each.forward_path) for each in recipients],
                    {Attribute(key).name.lower(): _text(text) for key, text in self._attributes.items()},
                    case.new_header().decode("utf-8", "replace"),
                )
            )
        self._session.finish(QUEUED if recipients else b"250 2.0.0 Ok: would be discarded\r\n")


class _WatchedHook(BoundHook):
    __slots__ = ("_told",)

    def __init__(self, *facts: Any, told: Callable[[str, str], None], **more: Any) -> None:
        super().__init__(*facts, **more)
        self._told = told

    def __call__(self, argument: object) -> Any:
        answer = super().__call__(argument)
        if isinstance(answer, CoroutineType):
            return self._later(answer)
        self._told(self.name, _shown(answer))
        return answer

    async def _later(self, answer: Coroutine[Any, Any, Any]) -> Any:
        decision = await answer
        self._told(self.name, _shown(decision))
        return decision


class _WatchedService(PolicyService):
    def __init__(self, *facts: Any) -> None:
        *rest, self._told = facts
        super().__init__(*rest)

    async def ask(self, attributes: dict[str, str]) -> Action:
        action = await super().ask(attributes)
        self._told(f"{self.options.address} ({attributes['protocol_state']})", _shown(action))
        return action


def _shown(decision: object) -> str:
    """`Reject('no', status='5.1.1')`, as a hook would write it."""
    if decision is None:
        return "no objection"
    if not isinstance(decision, msgspec.Struct):
        return repr(decision)
    told = [
        f"{getattr(decision, field.name)!r}"
        if number == 0 and not isinstance(decision, Accept)
        else f"{field.name}={getattr(decision, field.name)!r}"
        for number, field in enumerate(msgspec.structs.fields(decision))
        if field.required or getattr(decision, field.name) != field.default
    ]
    return f"{type(decision).__name__}({', '.join(told)})"


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
