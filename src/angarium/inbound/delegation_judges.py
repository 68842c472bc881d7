"""Policy services as judges: what they are told at each stage, and what becomes of their actions.

There is no judge at EHLO and DATA: EHLO is asked about before the MAIL behind it, DATA when the message is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from angarium.events.journal import Journal
from angarium.inbound.delegation_attributes import attributes_of
from angarium.inbound.judgement import ConnectCase, Judges, MailCase, MessageCase, Peer, RcptCase
from angarium.inbound.options import ListenerOptions
from angarium.inbound.policy_state import Transaction, Visit, text_of, visit_of
from angarium.model.refusal import Refusal
from angarium.policy.delegation import Action, Drop, Dunno, Note, Prepend, Refuse, Reroute, Unsupported
from angarium.policy.options import State
from angarium.policy.service import PolicyService
from angarium.spool.envelope import Attribute, encode_id

REASON: Final = "policy-service"
ROUTE: Final = Attribute.ROUTE


class DelegationJudges:
    """Those services of one listener that are asked at all."""

    def __init__(self, services: Sequence[PolicyService], options: ListenerOptions, journal: Journal) -> None:
        self._services = [
            each for each in services if not each.options.listeners or options.address in each.options.listeners
        ]
        self._journal = journal

    def judges(self) -> Judges:
        """MAIL always has one: a transaction begins there."""
        return Judges(
            connect=(self._connect,) if self._is_wanted("connect") else (),
            mail=(self._mail,) if self._is_wanted("ehlo", "mail") else (begin_transaction,),
            rcpt=(self._rcpt,) if self._is_wanted("rcpt") else (),
            message=(self._message,) if self._is_wanted("data", "end-of-message") else (),
        )

    def _is_wanted(self, *states: State) -> bool:
        return any(state in each.options.states for each in self._services for state in states)

    async def _connect(self, case: ConnectCase) -> Refusal | None:
        visit = visit_of(case.client)
        return await self._ask("connect", case.client, visit, None, {})

    async def _mail(self, case: MailCase) -> Refusal | None:
        visit = visit_of(case.client)
        visit.transaction = None        # what was wanted for the one before is over
        if visit.helo_asked != case.client.helo:
            visit.helo_changed()
            refusal = await self._ask("ehlo", case.client, visit, None, {})
            if refusal is not None:
                return refusal
            visit.helo_asked = case.client.helo
        begin_transaction(case)
        return await self._ask("mail", case.client, visit, visit.transaction, {})

    async def _rcpt(self, case: RcptCase) -> Refusal | None:
        visit = visit_of(case.client)
        more = {"recipient": text_of(case.forward_path)}
        if visit.transaction is not None:
            visit.transaction.defer_rcpt = visit.transaction.instead_rcpt = None
        return await self._ask("rcpt", case.client, visit, visit.transaction, more)

    async def _message(self, case: MessageCase) -> Refusal | None:
        visit = visit_of(case.client)
        transaction = visit.transaction
        recipients = transaction.recipients if transaction is not None else []
        more = {
            "queue_id": encode_id(case.id),
            "recipient": text_of(recipients[0].forward_path) if len(recipients) == 1 else "",
            "recipient_count": str(len(recipients)),
        }
        refusal = await self._ask("data", case.client, visit, transaction, more)
        if refusal is None:
            if case.is_whole:
                more["size"] = str(len(case.content))
            refusal = await self._ask("end-of-message", case.client, visit, transaction, more)
        return refusal

    async def _ask(
        self, state: State, client: Peer, visit: Visit, transaction: Transaction | None, more: dict[str, str]
    ) -> Refusal | None:
        for service in self._services:
            if state not in service.options.states or (service.options.ask_for == "strangers" and client.may_relay):
                continue
            action = await service.ask(attributes_of(state, client, transaction) | more)
            if isinstance(action, Unsupported):
                self._journal.log(
                    "error", where="policy-service", service=str(service.options.address),
                    reason=f"action not understood: {action.text}",
                )  # fmt: skip
            elif isinstance(action, Note):
                self._journal.log(
                    "policy-note", service=str(service.options.address), kind=action.kind, text=action.text,
                    client=client.host, sender=text_of(transaction.reverse_path) if transaction is not None else "",
                )  # fmt: skip
            elif isinstance(action, Refuse):
                refusal = Refusal(action.reply, REASON)
                if action.when == "now":
                    return refusal
                _hold(state, action.when, refusal, visit, transaction)
            elif isinstance(action, Dunno):
                if action.is_final:
                    break
            else:
                _keep(action, visit, transaction)
        return None


def begin_transaction(case: MailCase) -> None:
    visit = visit_of(case.client)
    visit.transaction = Transaction(case)
    visit.client = None
    case.attributes.update(visit.attributes)
    visit.transaction.base_route = visit.transaction.route = case.attributes.get(ROUTE)


def _hold(
    state: State, when: Literal["permit", "reject"], refusal: Refusal, visit: Visit, transaction: Transaction | None
) -> None:
    """Until it is known what others say, as long as what the service was asked about lasts. The first one counts."""
    name = "defer" if when == "permit" else "instead"
    holder: Visit | Transaction = visit if transaction is None else transaction
    if state in ("ehlo", "rcpt"):
        name += "_helo" if state == "ehlo" else "_rcpt"
    if getattr(holder, name) is None:
        setattr(holder, name, refusal)


def _keep(action: Action, visit: Visit, transaction: Transaction | None) -> None:
    """For the message, when it is there; what is said before MAIL holds for every message of the session."""
    if isinstance(action, Prepend):
        fields = visit.fields if transaction is None else transaction.fields
        # Said again for every recipient: once is enough (the same `instance`).
        if action.field not in fields:
            fields.append(action.field)
    elif transaction is None:
        return
    elif isinstance(action, Reroute):
        if not action.is_copy:
            transaction.redirect = [action.forward_path]
        elif action.forward_path not in transaction.bcc:
            transaction.bcc.append(action.forward_path)
    elif isinstance(action, Drop):
        transaction.discard = action.text
