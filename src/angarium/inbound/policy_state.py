"""What policy keeps of a connection and of the transaction in it: between one command's decisions and the next's."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, Final

import msgspec

from angarium.bounces.verp import Trace
from angarium.inbound.judgement import MailCase, NewRecipient, Peer
from angarium.model.refusal import Refusal
from angarium.policy.arguments import Client
from angarium.policy.decisions import FieldChange

_numbers: Final = itertools.count(1)


class Visit:
    """One connection. client: as hooks see it, of the newest MAIL."""

    __slots__ = (
        "attributes", "client", "defer", "defer_helo", "fields", "helo_asked", "instead", "instead_helo", "notes",
        "report", "tenant", "transaction",
    )  # fmt: skip

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}
        self.attributes: dict[int, bytes] = {}      # of every message
        self.fields: list[FieldChange] = []
        self.defer: Refusal | None = None           # every recipient that nobody else refuses
        self.defer_helo: Refusal | None = None      # likewise, until another EHLO
        self.instead: Refusal | None = None         # in place of whatever else would be refused for good
        self.instead_helo: Refusal | None = None    # likewise, until another EHLO
        self.helo_asked = b""                       # services know of this EHLO
        self.client: Client | None = None
        self.transaction: Transaction | None = None     # the newest, perhaps over
        self.report: PendingReport | None = None
        self.tenant = b""                           # of the newest MAIL, where suppression lists are asked

    def deferral(self) -> Refusal | None:
        """What is said to the recipient, or to the message, that nobody refuses: what was wanted first (access(5),
        DEFER_IF_PERMIT)."""
        transaction = self.transaction
        return self.defer or self.defer_helo or (None if transaction is None else transaction.defer)

    def in_place_of(self, refusal: Refusal) -> Refusal:
        """What is said of a refusal by whoever came later: the first deferral that was wanted then (access(5),
        DEFER_IF_REJECT). What was wanted for one RCPT is over with it."""
        transaction = self.transaction
        found = self.instead or self.instead_helo
        if transaction is not None:
            found = found or transaction.instead or transaction.instead_rcpt
            transaction.instead_rcpt = None
        return found if found is not None and refusal.reply.startswith(b"5") else refusal

    def helo_changed(self) -> None:
        self.defer_helo = self.instead_helo = None


class PendingReport(msgspec.Struct, frozen=True):
    """A transaction to an address for reports (inbound/report_desk.py). trace: what the address itself says."""

    address: bytes
    trace: Trace | None


class Transaction:
    """From MAIL on, or from before it until it is refused."""

    __slots__ = (
        "base_route", "bcc", "defer", "defer_rcpt", "discard", "fields", "instance", "instead", "instead_rcpt",
        "is_smtputf8", "notes", "octets", "recipients", "redirect", "reverse_path", "route",
    )  # fmt: skip

    def __init__(self, case: MailCase) -> None:
        self.reverse_path = case.reverse_path
        self.octets = case.announced_octets
        self.is_smtputf8 = case.is_smtputf8
        self.notes: dict[str, Any] = {}
        # What tells one message's questions from another's, over all workers (SMTPD_POLICY_README, "instance").
        self.instance = f"{os.getpid():x}.{int(time.time()):x}.{next(_numbers):x}"
        self.recipients: list[NewRecipient] = []
        self.base_route: bytes | None = None        # from MAIL or before
        self.route: bytes | None = None             # of the recipients accepted so far
        self.fields: list[FieldChange] = []
        self.redirect: list[bytes] | None = None
        self.bcc: list[bytes] = []
        self.discard: str | None = None
        self.defer: Refusal | None = None           # every recipient, and the message, that nobody else refuses
        self.defer_rcpt: Refusal | None = None      # the RCPT that is asked about now, likewise
        self.instead: Refusal | None = None         # as of the visit: for what is refused in this transaction,
        self.instead_rcpt: Refusal | None = None    # and for the RCPT that is asked about now


def visit_of(peer: Peer) -> Visit:
    if peer.visit is None:
        peer.visit = Visit()
    return peer.visit


def client_of(peer: Peer) -> Client:
    """As hooks see it now."""
    visit = visit_of(peer)
    visit.client = client = Client(
        peer.host,
        peer.helo.decode("ascii", "replace"),
        peer.identity or "",
        peer.is_secure,
        peer.may_relay,
        str(peer.listener.address),
        peer.protocol,
        peer.name,
        peer.reverse_name,
        visit.notes,
    )
    return client


def text_of(path: bytes) -> str:
    """A path that the session has parsed: ASCII or well-formed UTF-8."""
    return path.decode("utf-8", "replace")
