"""Who may come in, as judges: waiting before the greeting, points of lists and names, greylisting.

What is counted in memory is not here (limits.pyx). A client whose network, identity or certificate may relay, and one
in an exempt network, is asked nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from angarium.admission.greylist_store import GreylistStore
from angarium.admission.options import AdmissionOptions
from angarium.admission.scoring import Scores, Verdict
from angarium.events.journal import Journal
from angarium.inbound.judgement import Answer, ConnectCase, Judges, Peer, RcptCase
from angarium.inbound.options import ListenerOptions
from angarium.metrics.counters import counter
from angarium.model.refusal import Refusal
from angarium.resolver.cache import ExpiringCache
from angarium.resolver.caching_resolver import CachingResolver
from angarium.resolver.options import ResolverOptions

refused_total = counter("angarium_in_score_refused_total", "Connections and recipients refused for a client's points.")

# While the load is high a place is worth more than what the wait finds out. By judgement.
_TIGHT_WAIT_S = 1.0
_WORDS_OCTETS = 200
# For so long what is known of a client is not even put together anew.
_DECIDED_S = 30.0


class _Passed(msgspec.Struct, frozen=True):
    expires_mono_s: float


class _Decision(msgspec.Struct, frozen=True):
    """What holds for all recipients of an address and its HELO."""

    expires_mono_s: float
    refusal: Refusal | None
    is_greylisted: bool


class Load(Protocol):
    """Of the Intake: whether the load is high."""

    @property
    def is_tight(self) -> bool: ...


class Admission:
    """[admission] of one worker, but for its limits. apply() before listeners are, and at a reload; close() last.

    is_exempt  whether nothing holds for a client (limits.pyx).
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, journal: Journal, load: Load, is_exempt: Callable[[Peer], bool]
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._load = load
        self._is_exempt = is_exempt
        self._options = AdmissionOptions()
        self._made_of: tuple[object, ...] = ()
        self._resolver: CachingResolver | None = None
        self._scores: Scores | None = None
        self._greylist: GreylistStore | None = None
        self._waited: ExpiringCache[str, _Passed]
        self._ending: set[asyncio.Task[None]] = set()
        self._teaser = b""
        self._told = ""

    def apply(
        self, options: AdmissionOptions, resolver: ResolverOptions, hostname: str, spool: str
    ) -> None:
        """A reload keeps what is known, unless the answers could be others now.

        spool  the directory that has the greylist's file unless it says otherwise.
        """
        our_names = frozenset({hostname.lower()})
        made_of = (options.dns_list, options.checks, options.timeout, options.cache_time, resolver, our_names)
        if made_of != self._made_of:
            # Its own, with its own cache: strangers must not crowd out where our mail goes to.
            self._end(self._scores, self._resolver)
            self._resolver = CachingResolver(resolver)
            self._scores = Scores(options, self._resolver, our_names)
            self._made_of = made_of
        if options.greylist != self._options.greylist:
            self._end(self._greylist)
            self._greylist = None
            if options.greylist is not None:
                path = options.greylist.path or f"{spool}/greylist.db"
                self._greylist = GreylistStore(path, options.greylist, self._tell)
        self._waited = ExpiringCache(options.cache_entries, time.monotonic)
        self._teaser = f"220-{hostname} {options.teaser}\r\n".encode() if options.teaser else b""
        self._options = options

    async def close(self) -> None:
        self._end(self._scores, self._resolver, self._greylist)
        self._scores = self._resolver = self._greylist = None
        self._made_of = ()
        if self._ending:
            await asyncio.wait(self._ending)

    def judges_of(self, listener: ListenerOptions) -> Judges:
        """Who is asked on this listener."""
        scores, options = self._scores, self._options
        assert scores is not None
        asks = listener.admission.checks and scores.asks_of_address
        waits = listener.admission.checks and options.greet_wait > 0
        helo = listener.admission.checks and scores.asks_of_helo
        greylist = self._greylist if listener.admission.greylist else None
        connect = (Arrival(self, asks, waits),) if asks or waits else ()
        is_late = options.refuse_score > 0 and (helo or (asks and options.refuse_at == "rcpt"))
        entry = (Entry(self, asks, helo, is_late, greylist),) if is_late or greylist is not None else ()
        return Judges(connect=connect, entry=entry)

    @property
    def options(self) -> AdmissionOptions:
        return self._options

    @property
    def scores(self) -> Scores:
        assert self._scores is not None
        return self._scores

    def exempts(self, client: Peer) -> bool:
        return self._is_exempt(client)

    async def wait_for_talk(self, client: Peer, host: str) -> None:
        """Long enough for one that does not wait to say something, which the connection finds. Who has waited is not
        made to again for a while."""
        if self._waited.get(host) is not None:
            return
        if self._teaser:
            client.say_first(self._teaser)
        wait_s = float(self._options.greet_wait)
        await asyncio.sleep(min(wait_s, _TIGHT_WAIT_S) if self._load.is_tight else wait_s)
        self._waited.put(host, _Passed(time.monotonic() + self._options.cache_time))

    def has_waited(self, host: str) -> bool:
        return self._waited.get(host) is not None

    def tell_scored(self, client: Peer, verdict: Verdict) -> None:
        self._journal.log("scored", client=_logged(client), score=verdict.score, reasons=list(verdict.words))

    def _tell(self, words: str) -> None:
        """The same trouble is not told for every recipient."""
        if words != self._told:
            self._told = words
            self._journal.log("error", where="greylist", reason=words)

    def _end(self, *parts: Scores | CachingResolver | GreylistStore | None) -> None:
        for part in parts:
            if part is not None:
                task = self._loop.create_task(part.close())
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)


class Arrival:
    """The judge of connections."""

    def __init__(self, admission: Admission, asks: bool, waits: bool) -> None:
        self._admission = admission
        self._asks = asks
        self._waits = waits

    def __call__(self, case: ConnectCase) -> Answer:
        client, admission = case.client, self._admission
        host = client.host
        if client.may_relay or not host or admission.exempts(client):
            return None
        verdict = admission.scores.of_address_now(host) if self._asks else None
        is_known = verdict is not None or not self._asks
        if is_known and (not self._waits or admission.has_waited(host)):
            return self._judged(client, verdict)
        return self._find_out(client, host)

    async def _find_out(self, client: Peer, host: str) -> Refusal | None:
        admission = self._admission
        verdict = None
        # Both at once: DNS is asked while nothing is said.
        async with asyncio.TaskGroup() as both:
            if self._waits:
                both.create_task(admission.wait_for_talk(client, host))
            if self._asks:
                scoring = both.create_task(admission.scores.of_address(host))
        if self._asks:
            verdict = scoring.result()
            if verdict.words:
                admission.tell_scored(client, verdict)
        return self._judged(client, verdict)

    def _judged(self, client: Peer, verdict: Verdict | None) -> Refusal | None:
        options = self._admission.options
        if verdict is None:
            return None
        if options.tarpit_score and verdict.score >= options.tarpit_score:
            client.hold_back(options.tarpit_delay)
        if options.refuse_at == "connect" and 0 < options.refuse_score <= verdict.score:
            refused_total.add()
            return _refusal(b"554", client, verdict)
        return None


class Entry:
    """The judge of recipients."""

    def __init__(
        self, admission: Admission, asks: bool, helo: bool, is_late: bool, greylist: GreylistStore | None
    ) -> None:
        self._admission = admission
        self._asks = asks
        self._helo = helo
        self._is_late = is_late
        self._greylist = greylist
        entries = admission.options.cache_entries
        self._known: ExpiringCache[tuple[str, bytes], _Decision] = ExpiringCache(entries, time.monotonic)

    def __call__(self, case: RcptCase) -> Answer:
        """At once, when everything is known: four microseconds."""
        client = case.client
        if client.may_relay:
            return None
        host, helo = client.host, client.helo
        known = self._known.get((host, helo))
        if known is None:
            known = self._decide(client, host, helo)
            if known is None:
                return self._find_out(case, host)
            self._known.put((host, helo), known)
        if known.refusal is not None:
            refused_total.add()
            return known.refusal
        if not known.is_greylisted:
            client.let_in(_DECIDED_S)
            return None
        assert self._greylist is not None
        if self._greylist.knows_network(host):
            client.let_in(_DECIDED_S)
            return None
        if self._greylist.wait_now(host, case.reverse_path, case.forward_path) == 0:
            return None
        return self._ask_greylist(case, host)

    def _decide(self, client: Peer, host: str, helo: bytes) -> _Decision | None:
        """What holds for all recipients of this client; None: something must be asked."""
        expires = time.monotonic() + _DECIDED_S
        if not host or self._admission.exempts(client):
            return _Decision(expires, None, False)
        scores = self._admission.scores
        verdict = scores.of_address_now(host) if self._asks else NOTHING
        points = scores.helo_points_now(helo.decode("ascii", "replace"), host) if self._helo else []
        if verdict is None or points is None:
            return None
        verdict = verdict.with_points(points)
        refusal = self._judged(client, verdict)
        is_greylisted = self._greylist is not None and self._is_suspect(verdict)
        return _Decision(min(expires, verdict.expires_mono_s), refusal, is_greylisted)

    async def _find_out(self, case: RcptCase, host: str) -> Refusal | None:
        scores = self._admission.scores
        verdict = await scores.of_address(host) if self._asks else NOTHING
        if self._helo:
            verdict = verdict.with_points(
                await scores.helo_points(case.client.helo.decode("ascii", "replace"), host)
            )
        if (refusal := self._judged(case.client, verdict)) is not None:
            refused_total.add()
            return refusal
        if self._greylist is None or not self._is_suspect(verdict):
            return None
        return await self._ask_greylist(case, host)

    async def _ask_greylist(self, case: RcptCase, host: str) -> Refusal | None:
        assert self._greylist is not None
        wait_s = await self._greylist.wait_s(host, case.reverse_path, case.forward_path)
        if wait_s == 0:
            return None
        return Refusal(b"450 4.7.1 Greylisted, try again in %d seconds\r\n" % wait_s, "greylisted")

    def _judged(self, client: Peer, verdict: Verdict) -> Refusal | None:
        if self._is_late and verdict.score >= self._admission.options.refuse_score:
            return _refusal(b"550", client, verdict)
        return None

    def _is_suspect(self, verdict: Verdict) -> bool:
        greylist = self._admission.options.greylist
        if verdict.score < 0:
            return False  # a list speaks for it
        return greylist is not None and (greylist.from_score is None or verdict.score >= greylist.from_score)


NOTHING = Verdict(0, (), float("inf"))


def _refusal(code: bytes, client: Peer, verdict: Verdict) -> Refusal:
    words = ", ".join(verdict.words).encode("ascii", "replace")[:_WORDS_OCTETS]
    host = client.host.encode("ascii", "replace")
    return Refusal(b"%s 5.7.1 Client [%s] refused: %s\r\n" % (code, host, words), "client-score")


def _logged(client: Peer) -> str:
    """As everywhere in the log: RFC 5321 §4.1.3's form of an IPv6 address."""
    return f"IPv6:{client.host}" if ":" in client.host else client.host
