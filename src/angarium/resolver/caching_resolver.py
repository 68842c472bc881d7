"""The Resolver that the daemon uses: name servers behind a cache. One per worker, on its loop only."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import msgspec

from angarium.metrics.counters import counter
from angarium.resolver.answer import Answer, Kind, MxRecord
from angarium.resolver.cache import ExpiringCache
from angarium.resolver.interpretation import TtlBounds, failure, interpret_addresses, interpret_mx, interpret_names
from angarium.resolver.nameservers import Nameservers, NoAnswer
from angarium.resolver.options import ResolverOptions, nameservers_of

_cache_hits = counter("angarium_dns_cache_hits_total", "Look-ups answered from the cache")
_failures = counter("angarium_dns_failures_total", "Look-ups that name servers failed or left unanswered")

# Look-ups that may wait for their turn. Each holds a task, about 3 KiB: beyond this, mail waits in the
# queue, where a recipient costs 200 octets, and not here. Reached only when name servers hang under a
# backlog of very many domains.
_WAITING_LOOKUPS = 10_000

_MX = dns.rdatatype.MX
_A = dns.rdatatype.A
_AAAA = dns.rdatatype.AAAA
_PTR = dns.rdatatype.PTR


class CachingResolver:
    """A Resolver (answer.py) over `options.nameservers`.

    Look-ups of the same name and type that meet are one query. Every kind of answer is cached: positive ones
    for their TTL, negative ones as RFC 2308 §5 says, failures for the least TTL.

    clock  monotonic seconds.
    """

    def __init__(self, options: ResolverOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        servers = nameservers_of(options)
        self._nameservers = Nameservers(
            servers, timeout_s=options.timeout, tries=options.tries, asks_ad=options.trust_ad
        )
        self._bounds = TtlBounds(options.min_ttl, options.max_ttl)
        self._trusts_ad = options.trust_ad
        self._clock = clock
        self._cache: ExpiringCache[tuple[str, int], Answer[Any]] = ExpiringCache(options.cache_entries, clock)
        self._in_flight: dict[tuple[str, int], asyncio.Task[Answer[Any]]] = {}
        self._turns = asyncio.Semaphore(options.concurrency)

    async def mx(self, domain: str) -> Answer[MxRecord]:
        return cast(Answer[MxRecord], self._cached(domain, _MX) or await self._look_up(domain, _MX))

    async def addresses(self, host: str) -> Answer[str]:
        ipv6, ipv4 = self._cached(host, _AAAA), self._cached(host, _A)
        if ipv6 is None and ipv4 is None:
            ipv6, ipv4 = await asyncio.gather(self._look_up(host, _AAAA), self._look_up(host, _A))
        ipv6 = ipv6 or await self._look_up(host, _AAAA)
        ipv4 = ipv4 or await self._look_up(host, _A)
        return _join(ipv6, ipv4)

    async def ipv4(self, host: str) -> Answer[str]:
        """A records only: what lists in DNS answer with (RFC 5782)."""
        return cast(Answer[str], self._cached(host, _A) or await self._look_up(host, _A))

    async def names(self, name: str) -> Answer[str]:
        """PTR records of a name below in-addr.arpa or ip6.arpa: lower case, no final dot."""
        return cast(Answer[str], self._cached(name, _PTR) or await self._look_up(name, _PTR))

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
        return answer

    async def _look_up(self, name: str, rdtype: dns.rdatatype.RdataType) -> Answer[Any]:
        key = (name, int(rdtype))
        task = self._in_flight.get(key)
        if task is None:
            if len(self._in_flight) >= _WAITING_LOOKUPS:
                _failures.add()
                words = f"{name}: too many look-ups wait for name servers"
                return failure(Kind.SERVER_FAILURE, name, words, self._bounds, self._clock())
            task = asyncio.get_running_loop().create_task(self._query(name, rdtype))
            self._in_flight[key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        # One who stops waiting must not end the query for the others.
        return await asyncio.shield(task)

    async def _query(self, name: str, rdtype: dns.rdatatype.RdataType) -> Answer[Any]:
        try:
            wire_name = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            expires = self._clock() + self._bounds.maximum_s
            return Answer(Kind.NXDOMAIN, name, (), expires, "not a domain name")
        async with self._turns:
            response = await self._nameservers.ask(wire_name, rdtype)
        now = self._clock()
        answer: Answer[Any]
        if isinstance(response, NoAnswer):
            answer = failure(response.kind, name, response.detail, self._bounds, now)
        elif rdtype == _MX:
            answer = interpret_mx(name, response, self._bounds, now)
        elif rdtype == _PTR:
            answer = interpret_names(name, response, self._bounds, now)
        else:
            answer = interpret_addresses(name, response, self._bounds, now)
        if answer.kind.is_temporary:
            _failures.add()
        elif self._trusts_ad and isinstance(response, dns.message.Message) and response.flags & dns.flags.AD:
            answer = msgspec.structs.replace(answer, is_secure=True)
        self._cache.put((name, int(rdtype)), answer)
        return answer


def _join(ipv6: Answer[str], ipv4: Answer[str]) -> Answer[str]:
    """One answer of the two families'; see Resolver.addresses."""
    expires = min(ipv6.expires_mono_s, ipv4.expires_mono_s)
    if ipv6.kind is Kind.FOUND or ipv4.kind is Kind.FOUND:
        pairs = itertools.zip_longest(ipv6.records, ipv4.records)
        addresses = tuple(address for pair in pairs for address in pair if address is not None)
        name = ipv6.name if ipv6.kind is Kind.FOUND else ipv4.name
        return Answer(Kind.FOUND, name, addresses, expires)
    for kind in (Kind.TIMEOUT, Kind.SERVER_FAILURE, Kind.NO_DATA):
        for answer in (ipv4, ipv6):
            if answer.kind is kind:
                return Answer(kind, answer.name, (), expires, answer.detail)
    return Answer(Kind.NXDOMAIN, ipv4.name, (), expires, ipv4.detail)
