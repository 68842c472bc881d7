"""The judge of recipients: what [domain.*], [recipients] and [[bcc]] make of RCPT and MAIL.

Asked last, when everybody else has agreed. What maps in memory can say is said at once; only a next hop that must be
asked makes the session wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from angarium.events.journal import Journal
from angarium.inbound.call_ahead import CallAhead
from angarium.inbound.call_dialogue import CannotAsk
from angarium.inbound.hook_judges import NEEDS_SMTPUTF8, may_have
from angarium.inbound.judgement import Answer, Judges, MailCase, NewRecipient, RcptCase
from angarium.inbound.options import ListenerOptions, domain_key
from angarium.inbound.recipient_hook import RecipientHook, Verdict
from angarium.metrics.counters import counter
from angarium.mime.notify import Notify
from angarium.model.plan import Plan, Site
from angarium.model.refusal import Refusal
from angarium.policy.arguments import Recipient
from angarium.policy.decisions import Defer, Redirect, Reject
from angarium.policy.hooks import BoundHook
from angarium.recipients.map_watch import MapWatch
from angarium.recipients.maps import MapTrouble
from angarium.recipients.options import BccOptions, DomainOptions, RecipientsOptions
from angarium.recipients.rewriting import Found, Rewriting, notify_of_members, original_recipient
from angarium.smtp import replies
from angarium.tls.terms import TlsTerms

unknown_total = counter("angarium_in_unknown_recipients_total", "RCPT refused: nobody of that name in our domain.")
troubles_total = counter(
    "angarium_in_recipient_troubles_total", "RCPT or MAIL answered 451: a map or next hop cannot be asked."
)

UNKNOWN: Final = Refusal(replies.UNKNOWN_RECIPIENT, "unknown-recipient")
CANNOT_ASK: Final = Refusal(replies.CANNOT_ASK_NEXT_HOP, "next-hop-not-asked")
TROUBLE: Final = Refusal(replies.RECIPIENT_TROUBLE, "map-trouble")
HOOK_REASON: Final = "policy-hook"
TOO_MANY: Final = Refusal(replies.TOO_MANY_RECIPIENTS, "too-many-recipients")


class RecipientJudge:
    """One per worker; apply() before the first listener is made, and at each reload, behind that of policy.

    hook  the operator's knows_recipient of this moment.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        hostname: str,
        hook: Callable[[], BoundHook | None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._hostname = hostname
        self._maps = MapWatch(loop, journal)
        self._rewriting = Rewriting({}, RecipientsOptions(), (), self._maps)
        self._call_ahead: CallAhead | None = None
        self._hook = RecipientHook(hook)
        self._maps.start()

    async def apply(
        self,
        domains: Mapping[str, DomainOptions],
        options: RecipientsOptions,
        bcc: Sequence[BccOptions],
        plan: Callable[[bytes], Awaitable[Plan]],
        terms: Callable[[Site], Awaitable[TlsTerms]],
    ) -> None:
        """New options, at once when their maps are open. plan: Router.plan; terms: SideTls.terms. What next hops have
        answered is forgotten only when the options for asking change."""
        rewriting = Rewriting(domains, options, bcc, self._maps)
        await self._maps.look()
        if self._call_ahead is None or self._call_ahead.options != options.call_ahead:
            if self._call_ahead is not None:
                self._call_ahead.close()
            self._call_ahead = CallAhead(self._hostname, options.call_ahead)
        self._call_ahead.plan = plan
        self._call_ahead.terms = terms
        self._hook.apply(options.hook)
        self._rewriting = rewriting
        self._maps.keep_only(rewriting.maps)

    def close(self) -> None:
        self._maps.stop()
        self._hook.close()
        if self._call_ahead is not None:
            self._call_ahead.close()

    def judges_of(self, options: ListenerOptions) -> Judges:
        """The same for all listeners."""
        return Judges(
            mail=(self.mail,) if self._rewriting.looks_at_senders else (),
            rcpt=(self.rcpt,) if self._rewriting.looks_at_recipients else (),
        )

    def mail(self, case: MailCase) -> Refusal | None:
        try:
            case.reverse_path = self._rewriting.rewrite_sender(case.reverse_path)
        except MapTrouble as error:
            return self._trouble(case.reverse_path, error)
        return None

    def rcpt(self, case: RcptCase) -> Answer:
        named = case.recipients
        if named is None:
            named = [NewRecipient(case.forward_path, case.orcpt, case.notify)]
        try:
            found = [self._rewriting.find(each.forward_path) for each in named]
        except MapTrouble as error:
            return self._trouble(case.forward_path, error)
        if len(found) == 1 and found[0].asks and self._call_ahead is not None:
            mailbox = found[0].mailboxes[0]
            key = self._rewriting.key(mailbox)
            is_known = self._call_ahead.known(key)
            if is_known is None:
                return self._ask(case, named, found[0], mailbox, key)
            return self._asked(case, named, found[0], is_known)
        if len(found) == 1 and found[0].asks_hook:
            return self._ask_hook(case, named, found[0])
        return self._take(case, named, found)

    def for_report(self, mailbox: bytes) -> list[bytes]:
        """Who gets a report to a mailbox: its aliases count as in a session. Raises MapTrouble."""
        return list(self._rewriting.find(mailbox).mailboxes) or [mailbox]

    async def _ask(
        self, case: RcptCase, named: list[NewRecipient], found: Found, mailbox: bytes, key: bytes
    ) -> Refusal | None:
        assert self._call_ahead is not None
        try:
            is_known = await self._call_ahead.ask(mailbox, key)
        except CannotAsk as error:
            self._journal.log("call-ahead-failed", to=mailbox.decode("utf-8", "replace"), reason=str(error))
            if self._call_ahead.options.on_trouble == "defer":
                troubles_total.add(1)
                return CANNOT_ASK
            is_known = True
        return self._asked(case, named, found, is_known)

    def _ask_hook(self, case: RcptCase, named: list[NewRecipient], found: Found) -> Answer:
        mailbox = found.mailboxes[0]
        *texts, domain = self._rewriting.parts(mailbox)
        local, name, tag = (each.decode("utf-8", "replace") for each in texts)
        recipient = Recipient(mailbox.decode("utf-8", "replace"), local, name, tag, domain)
        verdict = self._hook.ask(recipient, self._rewriting.key(mailbox))
        if isinstance(verdict, Coroutine):
            return self._wait_for_hook(case, named, found, verdict)
        return self._told(case, named, found, verdict)

    async def _wait_for_hook(
        self, case: RcptCase, named: list[NewRecipient], found: Found, verdict: Coroutine[Any, Any, Verdict]
    ) -> Refusal | None:
        return self._told(case, named, found, await verdict)

    def _told(self, case: RcptCase, named: list[NewRecipient], found: Found, verdict: Verdict) -> Refusal | None:
        """By the hook."""
        if isinstance(verdict, Defer):
            troubles_total.add(1)
            return Refusal(verdict.reply(451), HOOK_REASON)
        if isinstance(verdict, Reject):
            unknown_total.add(1)
            return Refusal(verdict.reply(550), HOOK_REASON)
        if isinstance(verdict, Redirect):
            paths = verdict.paths()
            if not may_have(case.client, paths):
                return NEEDS_SMTPUTF8
            try:
                return self._take(case, named, [self._standing_for(paths)])
            except MapTrouble as error:
                return self._trouble(case.forward_path, error)
        return self._asked(case, named, found, verdict)

    def _standing_for(self, mailboxes: list[bytes]) -> Found:
        """Who gets mail for those that a recipient stands for: as with an alias for them. Raises MapTrouble."""
        each_found = [self._rewriting.find(each) for each in mailboxes]
        known = dict.fromkeys(mailbox for each in each_found for mailbox in each.mailboxes)
        unknown = [mailbox for mailbox, each in zip(mailboxes, each_found, strict=True) if each.is_unknown]
        unknown += [mailbox for each in each_found for mailbox in each.unknown]
        return Found(tuple(known), is_unknown=bool(unknown) and not known, unknown=tuple(unknown) if known else ())

    def _asked(self, case: RcptCase, named: list[NewRecipient], found: Found, is_known: bool) -> Refusal | None:
        if not is_known:
            if found.otherwise is None:
                return self._take(case, named, [Found((), is_unknown=True)])
            try:
                found = self._rewriting.find(found.otherwise)
            except MapTrouble as error:
                return self._trouble(case.forward_path, error)
        return self._take(case, named, [found])

    def _take(self, case: RcptCase, named: list[NewRecipient], found: Sequence[Found]) -> Refusal | None:
        if all(each.is_unknown for each in found) and found:
            unknown_total.add(1)
            return UNKNOWN
        recipients: dict[tuple[bytes, int], NewRecipient] = {}
        for recipient, its in zip(named, found, strict=True):
            for each in _written_out(recipient, its):
                recipients.setdefault((each.forward_path, each.notify & Notify.EXPANDED), each)
            if its.unknown:
                self._journal.log(
                    "alias-unknown",
                    alias=recipient.forward_path.decode("utf-8", "replace"),
                    unknown=[each.decode("utf-8", "replace") for each in its.unknown[:20]],
                )
        is_first = case.recipient_count == 0
        for copy in self._rewriting.copies(case.reverse_path, case.forward_path, is_first=is_first):
            recipients.setdefault((copy, 0), NewRecipient(copy, b"", Notify.NEVER))
        if case.recipient_count + len(recipients) > self._rewriting.options.max_recipients and len(recipients) > 1:
            return TOO_MANY
        case.recipients = list(recipients.values())
        return None

    def _trouble(self, path: bytes, error: MapTrouble) -> Refusal:
        troubles_total.add(1)
        self._journal.log("recipient-trouble", path=path.decode("utf-8", "replace"), reason=str(error))
        return TROUBLE


def own_domain_keys(domains: Mapping[str, DomainOptions]) -> frozenset[bytes]:
    """As relay_to is compared: A-labels and U-labels, a leading dot kept."""
    return frozenset(key for name in domains for key in domain_key(name))


def _written_out(recipient: NewRecipient, found: Found) -> list[NewRecipient]:
    """One recipient as the envelope has it: RFC 3461 §5.2.7 for what an alias leads to."""
    if found.mailboxes == (recipient.forward_path,) and not found.unknown:
        return [recipient]
    orcpt = recipient.orcpt or original_recipient(recipient.forward_path)
    if len(found.mailboxes) == 1:
        return [NewRecipient(found.mailboxes[0], orcpt, recipient.notify)]
    notify = notify_of_members(recipient.notify)
    members = [NewRecipient(each, orcpt, notify) for each in found.mailboxes]
    if recipient.notify & Notify.SUCCESS and members:
        # Nothing is sent to it: the queue only tells the sender that it was expanded.
        expanded = NewRecipient(recipient.forward_path, recipient.orcpt, Notify.SUCCESS | Notify.EXPANDED)
        members.insert(0, expanded)
    return members
