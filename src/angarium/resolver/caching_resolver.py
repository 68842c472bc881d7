"""The Resolver that the daemon uses: name servers behind a cache. One per worker, on its loop only."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any, cast

import dns.flags
import dns.message
import dns.rdatatype
import msgspec

from angarium.metrics.counters import counter
from angarium.model.tlsa import TlsaRecord
from angarium.resolver.answer import Answer, Kind, MxRecord
from angarium.resolver.cache import ExpiringCache
from angarium.resolver.interpretation import (
    TtlBounds,
    failure,
    interpret_addresses,
    interpret_alias,
    interpret_mx,
    interpret_names,
    interpret_reply,
    interpret_texts,
    interpret_tlsa,
)
from angarium.resolver.nameservers import Nameservers, NoAnswer
from angarium.resolver.options import ResolverOptions, nameservers_of
from angarium.resolver.wire import Reply

_cache_hits = counter("angarium_dns_cache_hits_total", "Look-ups answered from the cache")
_prefetches = counter(
    "angarium_dns_prefetches_total", "Answers in demand that were looked up anew before their time was up"
)
_failures = counter("angarium_dns_failures_total", "Look-ups that name servers failed or left unanswered")

# Look-ups that may wait for their turn. Each holds a task, about 3 KiB: beyond this, mail waits in the
# queue, where a recipient costs 200 octets, and not here. Reached only when name servers hang under a
# backlog of very many domains.
_WAITING_LOOKUPS = 10_000

_MX = dns.rdatatype.MX
_A = dns.rdatatype.A
_AAAA = dns.rdatatype.AAAA
_PTR = dns.rdatatype.PTR

_INTERPRETATIONS: dict[int, Callable[[str, dns.message.Message, TtlBounds, float], Answer[Any]]] = {
    _MX: interpret_mx,
    _A: interpret_addresses,
    _AAAA: interpret_addresses,
    _PTR: interpret_names,
    dns.rdatatype.TLSA: interpret_tlsa,
    dns.rdatatype.TXT: interpret_texts,
    dns.rdatatype.CNAME: interpret_alias,
}

# What is asked for in the last tenth of its time is looked up anew while the old answer still serves, as unbound does.
_PREFETCH_FRACTION = 0.1


class CachingResolver:
    """A Resolver (answer.py) over `options.nameservers`.

    Look-ups of the same name and type that meet are one query. Every kind of answer is cached: positive ones
    for their TTL, negative ones as RFC 2308 §5 says, failures for the least TTL. With `options.prefetch` a name that is
    asked for in the last tenth of that time is looked up anew behind the answer; if that fails, the old one stays.

    clock  monotonic seconds.
    """

    def __init__(self, options: ResolverOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        servers = nameservers_of(options)
        self._nameservers = Nameservers(
            servers, timeout_s=options.timeout, tries=options.tries, asks_ad=options.trust_ad
        )
        self._bounds = TtlBounds(options.min_ttl, options.max_ttl)
        self._trusts_ad = options.trust_ad
        self._concurrency = options.concurrency
        self._prefetch_fraction = _PREFETCH_FRACTION if options.prefetch else 0.0
        self._clock = clock
        self._cache: ExpiringCache[tuple[str, int], Answer[Any]] = ExpiringCache(options.cache_entries, clock)
        self._in_flight: dict[tuple[str, int], asyncio.Task[Answer[Any]]] = {}
        self._turns = asyncio.Semaphore(options.concurrency)

    async def mx(self, domain: str) -> Answer[MxRecord]:
        return cast(Answer[MxRecord], self._cached(domain, _MX) or await self._look_up(domain, _MX))

    async def addresses(self, host: str) -> Answer[str]:
        ipv6, ipv4 = self._cached(host, _AAAA), self._cached(host, _A)
        if ipv6 is None or ipv4 is None:
            # Both are under way before one is waited for.
            asked = [self._look_up(host, rdtype) for rdtype, known in ((_AAAA, ipv6), (_A, ipv4)) if known is None]
            found = [await answer for answer in asked]
            ipv6, ipv4 = ipv6 or found[0], ipv4 or found[-1]
        return _join(ipv6, ipv4)

    async def ipv4(self, host: str) -> Answer[str]:
        """A records only: what lists in DNS answer with (RFC 5782)."""
        return cast(Answer[str], self._cached(host, _A) or await self._look_up(host, _A))

    async def names(self, name: str) -> Answer[str]:
        """PTR records of a name below in-addr.arpa or ip6.arpa: lower case, no final dot."""
        return cast(Answer[str], self._cached(name, _PTR) or await self._look_up(name, _PTR))

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        return cast(Answer[TlsaRecord], await self._of_type(name, dns.rdatatype.TLSA))

    async def txt(self, name: str) -> Answer[str]:
        return cast(Answer[str], await self._of_type(name, dns.rdatatype.TXT))

    async def alias(self, name: str) -> Answer[str]:
        return cast(Answer[str], await self._of_type(name, dns.rdatatype.CNAME))

    async def _of_type(self, name: str, rdtype: dns.rdatatype.RdataType) -> Answer[Any]:
        return self._cached(name, rdtype) or await self._look_up(name, rdtype)

    async def close(self) -> None:
        """Ends the queries under way; who waits for one gets CancelledError."""
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cached(self, name: str, rdtype: dns.rdatatype.RdataType) -> Answer[Any] | None:
        answer = self._cache.get((name, rdtype))
        if answer is not None:
            _cache_hits.add()
            if answer.refresh_mono_s and self._clock() >= answer.refresh_mono_s:
                self._prefetch(name, rdtype)
        return answer

    def _prefetch(self, name: str, rdtype: dns.rdatatype.RdataType) -> None:
        """Never in the way of look-ups that somebody waits for."""
        if (name, int(rdtype)) not in self._in_flight and len(self._in_flight) < self._concurrency:
            _prefetches.add()
            self._begin(name, rdtype)

    def _look_up(self, name: str, rdtype: dns.rdatatype.RdataType) -> asyncio.Future[Answer[Any]]:
        """To be awaited. The query is under way, or stands in line."""
        key = (name, int(rdtype))
        task = self._in_flight.get(key)
        if task is None:
            if len(self._in_flight) >= _WAITING_LOOKUPS:
                _failures.add()
                words = f"{name}: too many look-ups wait for name servers"
                refused: asyncio.Future[Answer[Any]] = asyncio.get_running_loop().create_future()
                refused.set_result(failure(Kind.SERVER_FAILURE, name, words, self._bounds, self._clock()))
                return refused
            task = self._begin(name, rdtype)
        # One who stops waiting must not end the query for the others.
        return asyncio.shield(task)

    def _begin(self, name: str, rdtype: dns.rdatatype.RdataType) -> asyncio.Task[Answer[Any]]:
        key = (name, int(rdtype))
        task = asyncio.get_running_loop().create_task(self._query(name, rdtype))
        self._in_flight[key] = task
        task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return task

    async def _query(self, name: str, rdtype: dns.rdatatype.RdataType) -> Answer[Any]:
        async with self._turns:
            response = await self._nameservers.ask(name, rdtype)
        now = self._clock()
        answer: Answer[Any]
        if response is None:
            return Answer(Kind.NXDOMAIN, name, (), now + self._bounds.maximum_s, "not a domain name")
        if isinstance(response, Reply):
            answer = interpret_reply(name, rdtype, response, self._bounds, now)
        elif isinstance(response, NoAnswer):
            answer = failure(response.kind, name, response.detail, self._bounds, now)
        else:
            answer = _INTERPRETATIONS[rdtype](name, response, self._bounds, now)
        if answer.kind.is_temporary:
            _failures.add()
            known: Answer[Any] | None = self._cache.get((name, int(rdtype)))
            if known is not None:       # prefetched: what is known holds for its time all the same
                again = msgspec.structs.replace(known, refresh_mono_s=now + self._bounds.minimum_s)
                self._cache.put((name, int(rdtype)), again)
                return answer
        elif self._prefetch_fraction:
            refresh = answer.expires_mono_s - (answer.expires_mono_s - now) * self._prefetch_fraction
            answer = msgspec.structs.replace(answer, refresh_mono_s=refresh)
        if self._trusts_ad and _is_authentic(response):
            answer = msgspec.structs.replace(answer, is_secure=not answer.kind.is_temporary)
        self._cache.put((name, int(rdtype)), answer)
        return answer


def _is_authentic(response: Reply | dns.message.Message | NoAnswer) -> bool:
    if isinstance(response, Reply):
        return response.is_authentic
    return isinstance(response, dns.message.Message) and bool(response.flags & dns.flags.AD)


def _join(ipv6: Answer[str], ipv4: Answer[str]) -> Answer[str]:
    """One answer of the two families'; see Resolver.addresses."""
    expires = min(ipv6.expires_mono_s, ipv4.expires_mono_s)
    refresh = min(ipv6.look_again_mono_s, ipv4.look_again_mono_s)
    if ipv6.kind is Kind.FOUND or ipv4.kind is Kind.FOUND:
        pairs = itertools.zip_longest(ipv6.records, ipv4.records)
        addresses = tuple(address for pair in pairs for address in pair if address is not None)
        name = ipv6.name if ipv6.kind is Kind.FOUND else ipv4.name
        # Both families are of one name: where one of them cannot be asked, the other says whether its zone is signed.
        is_secure = all(answer.is_secure for answer in (ipv6, ipv4) if answer.kind is Kind.FOUND)
        return Answer(Kind.FOUND, name, addresses, expires, is_secure=is_secure, refresh_mono_s=refresh)
    for kind in (Kind.TIMEOUT, Kind.SERVER_FAILURE, Kind.NO_DATA):
        for answer in (ipv4, ipv6):
            if answer.kind is kind:
                return Answer(kind, answer.name, (), expires, answer.detail)
    return Answer(Kind.NXDOMAIN, ipv4.name, (), expires, ipv4.detail)
