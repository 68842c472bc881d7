"""The operator's hooks as judges: cases become arguments, decisions become what is answered and what is written.

Calling them, with their deadlines and their errors, is policy/hooks.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Final, TypeVar

from angarium.inbound.judgement import Answer, ConnectCase, Judges, MailCase, MessageCase, NewRecipient, Peer, RcptCase
from angarium.inbound.policy_state import client_of, text_of, visit_of
from angarium.mime.notify import Notify
from angarium.model.refusal import Refusal
from angarium.policy.arguments import Mail, Message, Rcpt
from angarium.policy.decisions import Accept, Decision, Defer, Discard, Redirect, Reject
from angarium.policy.header import Header, needs_whole_header
from angarium.policy.hooks import BoundHook, Hooks
from angarium.spool.envelope import Attribute, encode_id

REASON: Final = "policy-hook"
NEEDS_SMTPUTF8: Final = Refusal(b"553 5.6.7 Redirected to an address that needs SMTPUTF8\r\n", REASON)
HEADER_TOO_BIG: Final = Refusal(b"552 5.3.4 Header section too big for local policy\r\n", "header-too-big")
OTHER_ROUTE: Final = Refusal(
    b"452 4.5.3 This recipient goes another way, send it in a transaction of its own\r\n", "other-route"
)

C = TypeVar("C", ConnectCase, MailCase, RcptCase, MessageCase)


class HookJudges:
    """body_size  octets of a message's body that on_message sees."""

    def __init__(self, hooks: Hooks, body_size: int) -> None:
        self._hooks = hooks
        self._body_size = body_size

    def judges(self) -> Judges:
        hooks = self._hooks
        return Judges(
            connect=(self._on_connect,) if hooks.on_connect else (),
            mail=(self._on_mail,) if hooks.on_mail else (),
            rcpt=(self._on_rcpt,) if hooks.on_rcpt else (),
            message=(self._on_message,) if hooks.on_message else (),
        )

    def _on_connect(self, case: ConnectCase) -> Answer:
        return _ask(self._hooks.on_connect, client_of(case.client), case, _settle_connect)

    def _on_mail(self, case: MailCase) -> Answer:
        visit = visit_of(case.client)
        argument = Mail(
            visit.client or client_of(case.client),
            text_of(case.reverse_path),
            case.announced_octets,
            case.is_smtputf8,
            visit.transaction.notes if visit.transaction is not None else {},
        )
        return _ask(self._hooks.on_mail, argument, case, _settle_mail)

    def _on_rcpt(self, case: RcptCase) -> Answer:
        return _ask(self._hooks.on_rcpt, rcpt_argument(case, case.forward_path), case, _settle_rcpt)

    def _on_message(self, case: MessageCase) -> Answer:
        visit = visit_of(case.client)
        transaction = visit.transaction
        end = case.header_octets
        body_begin = end + 2 if case.content[end : end + 2] == b"\r\n" else end
        argument = Message(
            visit.client or client_of(case.client),
            encode_id(case.id),
            text_of(case.reverse_path),
            tuple(text_of(each.forward_path) for each in transaction.recipients) if transaction is not None else (),
            Header(case.content[:end], case.is_header_whole),
            case.content[body_begin : body_begin + self._body_size],
            len(case.content),
            case.is_whole,
            case.is_smtputf8,
            transaction.notes if transaction is not None else {},
        )
        return _ask(self._hooks.on_message, argument, case, _settle_message)


class LastJudges:
    """Asked when nobody else objects: the hook `route`, and what has to hold for all recipients of a transaction."""

    def __init__(self, route: BoundHook | None) -> None:
        self._route = route

    def judges(self) -> Judges:
        return Judges(rcpt=(self._rcpt,), message=(self._message,))

    def _rcpt(self, case: RcptCase) -> Answer:
        visit = visit_of(case.client)
        transaction = visit.transaction
        if transaction is None:
            return None
        if (refusal := visit.deferral() or transaction.defer_rcpt) is not None:
            return refusal
        recipients = case.recipients
        if recipients is None:
            recipients = [NewRecipient(case.forward_path, case.orcpt, case.notify)]
        if self._route is not None and Attribute.ROUTE not in case.attributes:
            routes = _Routes(self._route, case, recipients)
            answer = routes.go_on()
            if answer is not None:
                return answer if isinstance(answer, Refusal) else _then(answer, lambda: _join(case, recipients))
        return _join(case, recipients)

    def _message(self, case: MessageCase) -> Answer:
        visit = visit_of(case.client)
        transaction = visit.transaction
        if transaction is None:
            return None
        case.fields[:0] = [*visit.fields, *transaction.fields]
        if transaction.discard is not None:
            case.recipients = []
        elif case.recipients is None and transaction.redirect is not None:
            case.recipients = [NewRecipient(path) for path in transaction.redirect]
        if transaction.bcc and case.recipients != []:
            known = transaction.recipients if case.recipients is None else case.recipients
            named = {_with_domain_folded(each.forward_path) for each in known}
            # A hidden copy that fails is nothing that the sender may hear of. Who is named already has the message.
            case.recipients = [
                *known,
                *(
                    NewRecipient(path, notify=Notify.NEVER)
                    for path in transaction.bcc
                    if _with_domain_folded(path) not in named
                ),
            ]
        return visit.deferral()


def _with_domain_folded(path: bytes) -> bytes:
    local_part, at, domain = path.rpartition(b"@")
    return local_part + at + domain.lower()


class _Routes:
    """The hook `route` asked about each recipient that one RCPT stands for; those of one envelope go one way."""

    def __init__(self, hook: BoundHook, case: RcptCase, recipients: list[NewRecipient]) -> None:
        self._hook = hook
        self._case = case
        self._left = [each.forward_path for each in recipients]
        self._route: bytes | None = None
        self._is_first = True

    def go_on(self) -> Refusal | Coroutine[Any, Any, Refusal | None] | None:
        while self._left:
            answer = self._hook(rcpt_argument(self._case, self._left[0]))
            if type(answer) is CoroutineType:
                return self._wait(answer)
            refusal = self._take(answer)
            if refusal is not None:
                return refusal
        return None

    async def _wait(self, answer: Coroutine[Any, Any, Decision | None]) -> Refusal | None:
        while True:
            refusal = self._take(await answer)
            if refusal is not None:
                return refusal
            rest = self.go_on()
            if not isinstance(rest, CoroutineType):
                return rest  # type: ignore[return-value]
            answer = rest

    def _take(self, decision: object) -> Refusal | None:
        if isinstance(decision, Reject | Defer):
            return _refusal(decision)
        self._left.pop(0)
        attributes = decision.attributes() if isinstance(decision, Accept) else {}
        route = attributes.get(Attribute.ROUTE)
        if not self._is_first and route != self._route:
            return OTHER_ROUTE
        self._is_first = False
        self._route = route
        self._case.attributes.update(attributes)
        return None


def rcpt_argument(case: RcptCase, forward_path: bytes) -> Rcpt:
    visit = visit_of(case.client)
    transaction = visit.transaction
    return Rcpt(
        visit.client or client_of(case.client),
        text_of(case.reverse_path),
        text_of(forward_path),
        len(transaction.recipients) if transaction is not None else 0,
        transaction.notes if transaction is not None else {},
    )


def _ask(hook: BoundHook | None, argument: object, case: C, settle: Callable[[C, Decision], Refusal | None]) -> Answer:
    if hook is None:
        return None
    answer = hook(argument)
    if answer is None:
        return None
    if type(answer) is CoroutineType:
        return _later(answer, case, settle)
    return settle(case, answer)  # type: ignore[arg-type]


async def _later(
    answer: Coroutine[Any, Any, Decision | None], case: C, settle: Callable[[C, Decision], Refusal | None]
) -> Refusal | None:
    decision = await answer
    return None if decision is None else settle(case, decision)


async def _then(
    answer: Coroutine[Any, Any, Refusal | None], follow: Callable[[], Refusal | None]
) -> Refusal | None:
    refusal = await answer
    return follow() if refusal is None else refusal


def _refusal(decision: Reject | Defer, reject_code: int = 550) -> Refusal:
    return Refusal(decision.reply(451 if isinstance(decision, Defer) else reject_code), REASON)


def _settle_connect(case: ConnectCase, decision: Decision) -> Refusal | None:
    if isinstance(decision, Reject | Defer):
        return _refusal(decision, 554)  # RFC 5321 §3.1
    if isinstance(decision, Accept):
        visit_of(case.client).attributes.update(decision.attributes())
    return None


def _settle_mail(case: MailCase, decision: Decision) -> Refusal | None:
    if isinstance(decision, Reject | Defer):
        return _refusal(decision)
    if isinstance(decision, Accept):
        case.attributes.update(decision.attributes())
        transaction = visit_of(case.client).transaction
        if transaction is not None:
            transaction.base_route = transaction.route = case.attributes.get(Attribute.ROUTE)
    return None


def _settle_rcpt(case: RcptCase, decision: Decision) -> Refusal | None:
    if isinstance(decision, Reject | Defer):
        return _refusal(decision)
    if isinstance(decision, Discard):
        case.recipients = []
        return None
    if isinstance(decision, Redirect):
        paths = decision.paths()
        if not may_have(case.client, paths):
            return NEEDS_SMTPUTF8
        # What the client asked to be told of its own recipient holds for those in its place (RFC 3461 §5.2.7).
        case.recipients = [NewRecipient(path, case.orcpt, case.notify) for path in paths]
    accept = decision.accept if isinstance(decision, Redirect) else decision
    case.attributes.update(accept.attributes())
    return None


def _settle_message(case: MessageCase, decision: Decision) -> Refusal | None:
    if isinstance(decision, Reject | Defer):
        return _refusal(decision)
    if isinstance(decision, Discard):
        case.recipients = []
        return None
    if isinstance(decision, Redirect):
        paths = decision.paths()
        if not may_have(case.client, paths):
            return NEEDS_SMTPUTF8
        case.recipients = [NewRecipient(path) for path in paths]
    accept = decision.accept if isinstance(decision, Redirect) else decision
    if not case.is_header_whole and needs_whole_header(accept.fields):
        return HEADER_TOO_BIG
    case.fields.extend(accept.fields)
    case.attributes.update(accept.attributes())
    return None


def _join(case: RcptCase, recipients: list[NewRecipient]) -> Refusal | None:
    """One more RCPT of this transaction, when it goes the way of those before."""
    transaction = visit_of(case.client).transaction
    if transaction is None:
        return None
    route = case.attributes.get(Attribute.ROUTE, transaction.base_route)
    if recipients and transaction.recipients and route != transaction.route:
        return OTHER_ROUTE
    transaction.instead_rcpt = None     # nobody has refused this one
    if not recipients:
        return None
    transaction.route = route
    transaction.recipients.extend(recipients)
    return None


def may_have(peer: Peer, paths: list[bytes]) -> bool:
    """RFC 6531 §3.4: no address that needs SMTPUTF8 in a transaction without."""
    transaction = visit_of(peer).transaction
    return all(path.isascii() for path in paths) or (transaction is not None and transaction.is_smtputf8)
