"""A dialogue played against one listener of a configuration, with nothing behind it: what each hook, service and check
decides, what the client would hear, what would be queued.

The composition root of `angarium policy test`. Session, connection, TLS, AUTH, rules and judges are those of a worker
(relay.py), at the other end of a socket pair. What is different: any password is right, the spool is a folder that is
thrown away, the queue sends nothing, and what limits and greylisting count is counted apart from the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sqlite3
import ssl
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import CoroutineType
from typing import Any, Final, cast

import msgspec

from angarium.admission.options import AdmissionOptions
from angarium.admission.tallies import Tallies
from angarium.config.schema import Config
from angarium.events.journal import Journal
from angarium.inbound.acceptor import adopt
from angarium.inbound.admission import Admission
from angarium.inbound.authority import Authority
from angarium.inbound.context import InboundContext, Intake
from angarium.inbound.etrn import EtrnDesk
from angarium.inbound.gate import Gate
from angarium.inbound.limits import is_exempt
from angarium.inbound.listener import drain
from angarium.inbound.options import ListenerOptions
from angarium.inbound.policy import Policy
from angarium.inbound.quota import Counts
from angarium.inbound.recipients import RecipientJudge, own_domain_keys
from angarium.model.plan import Plan, Site
from angarium.outbound.side_tls import SideTls
from angarium.policy.decisions import Accept
from angarium.policy.delegation import Action
from angarium.policy.header import header_end
from angarium.policy.hook_file import HookSource
from angarium.policy.hooks import BoundHook
from angarium.policy.service import PolicyService
from angarium.queue.ready import Egress
from angarium.queue.scheduler import Scheduler
from angarium.queue.shaping import Shaping
from angarium.queue.shares import Shares
from angarium.queue.wheel import Wheel
from angarium.resolver.caching_resolver import CachingResolver
from angarium.routing.egress_rules import egress_pools
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router
from angarium.routing.routes import names_domain
from angarium.sasl.backend import Backend, Conversation, OwnConversation, Peer
from angarium.sasl.backend import Gate as AuthGate
from angarium.sasl.options import AuthOptions
from angarium.sasl.steps import CheckCertificate, CheckPassword, CheckToken, FetchScramKeys, ScramKeys, Unavailable
from angarium.spool.contents import Contents
from angarium.spool.envelope import Attribute
from angarium.spool.shard import Shard
from angarium.tls.certificates import load

SEGMENT_OCTETS: Final = 4 << 20
PATIENCE_S: Final = 300.0  # for one reply: what a client waits for (RFC 5321 §4.5.3.2)
LINE_OCTETS: Final = 1 << 20
_OWN_RECEIVED: Final = re.compile(rb"(?:\A|(?<=\r\n))Received:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE)
# Of the log: what a trial says itself.
_EXPECTED: Final = frozenset(
    (
        "received",
        "rejected",
        "discarded",
        "introduced",
        "authenticated",
        "auth-failed",
        "hook-discard",
        "map-opened",
        "scored",
    )
)


class Step(msgspec.Struct, omit_defaults=True):
    """One command (without its line end) and what came of it.

    decisions  (who, what), in order. printed  by hooks, (where, text).
    """

    command: str
    printed: list[tuple[str, str]] = []
    decisions: list[tuple[str, str]] = []
    reply: str = ""


class Taken(msgspec.Struct):
    """A message that would be queued: as it would be written."""

    reverse_path: str
    recipients: list[str]
    attributes: dict[str, str]
    header: str
    """The header section after all changes, without our Received field."""


class Rehearsal:
    """One connection. steps, taken: what has come of it so far. Made by open() on the loop; close() last.

    is_over  the server has closed, or will.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self.steps: list[Step] = []
        self.taken: list[Taken] = []
        self.is_over = False
        self.offers: list[str] = []  # by EHLO
        self._folder = folder
        self._log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._journal = Journal(self._log, loop)
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._shard = Shard(self._fd, "00", 0, segment_octets=SEGMENT_OCTETS)
        self._shard.attach(loop)
        hostname, counts = config.node.own_hostname(), Counts()
        wheel = Wheel(loop)
        self._scheduler = Scheduler(
            loop, wheel, self._journal, Shares(), router=_Nowhere(),
            pool=egress_pools(config.source, config.pool, config.egress, hostname), shaping=Shaping(config.shaping),
            options=config.queue.default, hostname=hostname,
        )  # fmt: skip
        self._scheduler.set_egress("smtp", Egress())
        self._intake = Intake(self._shard, self._scheduler, self._journal, wheel, loop)
        self._intake.etrn = EtrnDesk(_try_nothing, counts.orders)
        self._authority = _Believing(loop, self._journal, counts)
        told = cast(Journal, _TellingJournal(self._journal, self._note, self._note_printed))
        self._policy = Policy(
            loop, self._journal, partial(_WatchedHook, told=self._note), partial(_WatchedService, told=self._note), told
        )
        self._admission = Admission(loop, told, self._intake, is_exempt)
        self._recipients = RecipientJudge(loop, self._journal, hostname, self._policy.recipient_hook)
        self._resolver = CachingResolver(config.resolver)
        self._context: InboundContext
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._seen: set[int] = set()
        self._is_in_data = False
        self._chunk_left = 0
        self._is_last_chunk = True
        self._accepted = 0
        self._is_lmtp = False

    @classmethod
    async def open(
        cls, config: Config, options: ListenerOptions, hooks: HookSource | None, *, folder: Path, services: bool
    ) -> Rehearsal:
        """folder    empty, ours until close().
        services  False: policy services are not asked; some remember what they are asked about.
        Raises HookFileError, TlsMaterialError, SpoolError.
        """
        self = cls(config, folder)
        try:
            await self._put_together(config, options, hooks, services)
        except BaseException:
            for line in await self.close():
                print(line, file=sys.stderr)  # what a hook file that cannot be run has printed, above all
            raise
        return self

    async def _put_together(
        self, config: Config, options: ListenerOptions, hooks: HookSource | None, services: bool
    ) -> None:
        intake, hostname = self._intake, config.node.own_hostname()
        self._authority.apply(config.auth)
        intake.authority = self._authority
        policy = config.policy if services else msgspec.structs.replace(config.policy, service=[])
        self._policy.apply(policy, hooks)
        intake.appointing = (
            self._admission.judges_of,
            self._policy.appoint_services,
            self._policy.appoint_hooks,
            self._recipients.judges_of,
            self._policy.appoint_last,
        )
        intake.gate = Gate(Tallies(), config.admission)
        self._admission.apply(
            _apart(config.admission, config.node.spool, self._folder), config.resolver, hostname, str(self._folder)
        )
        router = Router(config.all_routes(), self._resolver, Ourselves([hostname], []))
        side_tls = SideTls(asyncio.get_running_loop(), self._journal)
        side_tls.shaping = Shaping(config.shaping)
        await self._recipients.apply(config.domain, config.recipients, config.bcc, router.plan, side_tls.terms)
        intake.own_domains = own_domain_keys(config.domain)
        intake.has_postmaster = names_domain(config.all_routes(), hostname)
        tls = load(options.tls, None) if options.tls is not None else None
        # Who the client is comes in a PROXY header, whatever the listener thinks of balancers.
        seen_by_us = msgspec.structs.replace(options, proxy_from=["127.0.0.1/32"])
        self._context = InboundContext(intake, hostname, seen_by_us, tls)
        self._is_lmtp = options.protocol == "lmtp"

    async def connect(self, host: str) -> None:
        """host: the client's address."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.steps.append(Step("(connects)"))
        adopt(self._context, theirs)
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_OCTETS)
        family, own = ("TCP6", "::1") if ":" in host else ("TCP4", "127.0.0.1")
        self._writer.write(f"PROXY {family} {host} {own} 40000 25\r\n".encode())
        if self._context.is_implicit_tls:
            await self._begin_tls()
        greeting = await self._hear()
        self.is_over = self.is_over or not greeting.startswith("220")

    async def send(self, line: bytes) -> str:
        """One line without its end, of a command or of a message; what is answered, "" when nothing is.

        STARTTLS: what follows is sent under TLS.
        """
        if self.is_over:
            return ""
        if self._is_in_data:
            self._writer.write(line + b"\r\n")
            return await self._hear_of_message() if line == b"." else ""
        if self._chunk_left > 0:
            self._writer.write(line + b"\r\n")
            self._chunk_left -= len(line) + 2
            return await self._hear_of_chunk() if self._chunk_left <= 0 else ""
        self.steps.append(Step(line.decode("utf-8", "replace")))
        self._writer.write(line + b"\r\n")
        words = line.upper().split()
        verb = words[0] if words else b""
        if verb == b"BDAT" and len(words) > 1 and words[1].isdigit():
            self._chunk_left, self._is_last_chunk = int(words[1]), words[-1] == b"LAST"
            return await self._hear_of_chunk() if self._chunk_left == 0 else ""
        reply = await self._hear()
        if verb in (b"EHLO", b"LHLO"):
            self.offers = [each[4:] for each in reply.splitlines()[1:]]
        elif verb == b"RCPT":
            self._accepted += reply.startswith("2")
        elif verb in (b"MAIL", b"RSET"):
            self._accepted = 0
        elif verb == b"DATA":
            self._is_in_data = reply.startswith("354")
        elif verb == b"STARTTLS" and reply.startswith("220"):
            await self._begin_tls()
        return reply

    async def close(self) -> list[str]:
        """What the relay would have logged besides what the steps say, a line each."""
        if hasattr(self, "_writer"):
            self._writer.close()
        await drain(self._intake, [], 0.0)
        await self._admission.close()
        await self._resolver.close()
        self._policy.close()
        self._recipients.close()
        self._authority.close()
        self._scheduler.close()
        self._shard.close()
        self._journal.flush()
        lines = (self._folder / "log").read_text().splitlines()
        os.close(self._log)
        os.close(self._fd)
        return [line for line in lines if msgspec.json.decode(line)["event"] not in _EXPECTED]

    def _note(self, who: str, what: str) -> None:
        self.steps[-1].decisions.append((who, what))

    def _note_printed(self, where: str, text: str) -> bool:
        """False: nobody has connected yet."""
        if self.steps:
            self.steps[-1].printed.append((where, text))
        return bool(self.steps)

    async def _begin_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # it is our own certificate, and nobody is in between
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await self._writer.start_tls(context)

    async def _hear(self, count: int = 1) -> str:
        """Replies, with CRLF turned into LF."""
        lines: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while count and (line := (await self._reader.readline()).decode("utf-8", "replace").rstrip("\r\n")):
                    lines.append(line)
                    count -= line[3:4] != "-"
        except (OSError, TimeoutError):
            pass
        self.is_over = count > 0 or lines[-1][:3] in ("221", "421", "521")
        self.steps[-1].reply = reply = "\n".join(lines)
        return reply

    async def _hear_of_message(self) -> str:
        self._is_in_data = False
        reply = await self._hear(self._accepted if self._is_lmtp and self._accepted else 1)
        self._accepted = 0
        self._take()
        return reply

    async def _hear_of_chunk(self) -> str:
        return await (self._hear_of_message() if self._is_last_chunk else self._hear())

    def _take(self) -> None:
        """What has been written meanwhile."""
        contents = Contents(self._fd, ["00"])
        for message in contents.messages(0):
            envelope = message.envelope
            if envelope.id in self._seen:
                continue
            self._seen.add(envelope.id)
            content = b"".join(contents.body(message))
            end, _ = header_end(content)
            header = _OWN_RECEIVED.sub(b"", content[:end], count=1)
            self.taken.append(
                Taken(
                    _text(envelope.reverse_path),
                    [_text(each.forward_path) for each in envelope.recipients],
                    {Attribute(key).name.lower(): _text(text) for key, text in envelope.attributes},
                    _text(header),
                )
            )


class _Nowhere:
    """The router of a queue that sends nothing: everything goes to a site that nobody serves, and stays."""

    route_of_sender = None
    _plan: Final = Plan(Site("nowhere", "smtp"), float("inf"))

    def plan_now(self, key: bytes) -> Plan:
        return self._plan

    async def plan(self, key: bytes) -> Plan:
        return self._plan


async def _try_nothing(node: str) -> int:
    return 0


def _apart(options: AdmissionOptions, spool: str, folder: Path) -> AdmissionOptions:
    """The same, with a copy of the relay's greylist: what is tried is not remembered."""
    if options.greylist is None:
        return options
    known = Path(options.greylist.path or f"{spool}/greylist.db").absolute()
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{known.as_uri()}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(folder / "greylist.db")) as copy,
    ):
        source.backup(copy)
    return msgspec.structs.replace(
        options, greylist=msgspec.structs.replace(options.greylist, path=f"{folder}/greylist.db")
    )


class _Believing(Authority):
    """Every password is right."""

    def _make(self, options: AuthOptions) -> Backend | None:
        return _AnyPassword() if options.credentials.kind else None


class _AnyPassword:
    mechanisms: Final = frozenset(("PLAIN", "LOGIN"))

    def begin(self, mechanism: str, peer: Peer, gate: AuthGate) -> Conversation:
        return OwnConversation(mechanism, peer, self, gate)

    def close(self) -> None:
        pass

    async def whose_password(self, ask: CheckPassword, peer: Peer) -> str | None:
        return ask.identity

    async def whose_token(self, ask: CheckToken, peer: Peer) -> str | None:
        raise Unavailable("not in a trial")

    async def whose_certificate(self, ask: CheckCertificate, peer: Peer) -> str | None:
        raise Unavailable("not in a trial")

    async def scram_keys(self, ask: FetchScramKeys) -> ScramKeys:
        raise Unavailable("not in a trial")


class _TellingJournal:
    """What client checks find out, told as their decision; what hooks print, told beside them."""

    def __init__(
        self, journal: Journal, told: Callable[[str, str], None], told_printed: Callable[[str, str], bool]
    ) -> None:
        self._journal = journal
        self._told = told
        self._told_printed = told_printed

    def log(self, event: str, **fields: Any) -> None:
        if event == "printed":
            where = " at ".join(filter(None, (fields.get("hook"), fields.get("at")))) or fields["stream"]
            if self._told_printed(where, fields["text"]):
                return
        if event == "scored":
            self._told("client checks", f"{fields['score']} points: {', '.join(fields['reasons'])}")
        self._journal.log(event, **fields)


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
    def __init__(self, *facts: Any, told: Callable[[str, str], None]) -> None:
        super().__init__(*facts)
        self._told = told

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
