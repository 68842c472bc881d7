"""Asking name servers: UDP, then TCP when the answer was cut, the next server when one is silent or broken.

Says nothing of what an answer means (interpretation.py) and keeps none (caching_resolver.py).
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import msgspec

from angarium.metrics.counters import counter
from angarium.resolver import wire
from angarium.resolver.answer import Kind
from angarium.resolver.datagram import Arrivals, Exchange
from angarium.resolver.options import Nameserver
from angarium.resolver.wire import Reply

_queries = counter("angarium_dns_queries_total", "Queries sent to name servers, retries included")
_timeouts = counter("angarium_dns_timeouts_total", "Queries that a name server did not answer in time")

# The size that fits every path without fragments, https://www.dnsflagday.net/2020/
_EDNS_PAYLOAD_OCTETS = 1232


class NoAnswer(msgspec.Struct, frozen=True):
    """No server gave an answer that one could use. kind is SERVER_FAILURE or TIMEOUT."""

    kind: Kind
    detail: str


class Nameservers:
    """The configured servers and what was learnt of them. One per resolver; holds no sockets between queries."""

    def __init__(self, servers: tuple[Nameserver, ...], *, timeout_s: float, tries: int, asks_ad: bool = False) -> None:
        self._servers = servers
        self._timeout_s = timeout_s
        self._tries = tries
        self._asks_ad = asks_ad
        self._arrivals = Arrivals()
        self._first = 0                                 # the server that answered last is asked first
        self._without_edns: set[Nameserver] = set()
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def ask(
        self, name: str, rdtype: dns.rdatatype.RdataType
    ) -> Reply | dns.message.Message | NoAnswer | None:
        """The first response that is NOERROR or NXDOMAIN, or why there is none. A Reply where the response was as most
        are; None when `name` is no domain name.

        name  A-labels in lower case.
        Takes at most timeout * tries * number of servers.
        """
        question = _question(name, rdtype)
        if question is None:
            return None
        no_answer = NoAnswer(Kind.TIMEOUT, "")
        for _ in range(self._tries):
            is_worth_another_round = False
            for index in self._order():
                server = self._servers[index]
                try:
                    # One deadline for UDP, EDNS left out, and TCP together.
                    deadline_s = asyncio.get_running_loop().time() + self._timeout_s
                    response = await self._exchange(server, name, question, deadline_s)
                except TimeoutError:
                    _timeouts.add()
                    is_worth_another_round = True
                    # A server that said it failed knows more than one that said nothing.
                    if no_answer.kind is Kind.TIMEOUT:
                        no_answer = NoAnswer(Kind.TIMEOUT, f"{_asked(name, rdtype)}: no answer from {server}")
                    continue
                except (OSError, EOFError, dns.exception.DNSException) as error:
                    is_worth_another_round = True
                    words = error.strerror if isinstance(error, OSError) else type(error).__name__
                    words = f"{_asked(name, rdtype)}: {words or 'error'} from {server}"
                    no_answer = NoAnswer(Kind.SERVER_FAILURE, words)
                    continue
                if isinstance(response, Reply):
                    self._first = index
                    return response
                rcode = response.rcode()
                if rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) and not _is_referral(response):
                    self._first = index
                    return response
                words = "no recursion" if rcode == dns.rcode.NOERROR else dns.rcode.to_text(rcode)
                words += _extended(response)
                no_answer = NoAnswer(Kind.SERVER_FAILURE, f"{_asked(name, rdtype)}: {words} from {server}")
            if not is_worth_another_round:
                break           # who said SERVFAIL or REFUSED says it again
        return no_answer

    def _order(self) -> range | list[int]:
        count = len(self._servers)
        if count == 1:
            return range(1)
        return [(self._first + i) % count for i in range(count)]

    async def _exchange(
        self, server: Nameserver, name: str, question: bytes, deadline_s: float
    ) -> Reply | dns.message.Message:
        if server not in self._without_edns:
            response = await self._exchange_once(server, name, question, _EDNS_PAYLOAD_OCTETS, deadline_s)
            if isinstance(response, Reply) or response.rcode() not in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
                return response
            # RFC 6891 §7: a server of before 1999, or a firewall's.
            self._without_edns.add(server)
        return await self._exchange_once(server, name, question, 0, deadline_s)

    async def _exchange_once(
        self, server: Nameserver, name: str, question: bytes, payload_octets: int, deadline_s: float
    ) -> Reply | dns.message.Message:
        _queries.add()
        number = int.from_bytes(os.urandom(2), "big")
        octets = wire.query(number, question, payload_octets=payload_octets, asks_ad=self._asks_ad)

        def accept(response: bytes) -> Reply | dns.message.Message | _Truncated | None:
            return wire.read(response, number, question, name) or _read_unusual(response, octets)

        loop = asyncio.get_running_loop()
        exchange: Exchange[Reply | dns.message.Message | _Truncated] = Exchange(
            loop, server.address, server.port, octets, accept, arrivals=self._arrivals
        )
        timer = loop.call_at(deadline_s, _time_out, exchange.outcome)
        try:
            found = await exchange.outcome
        finally:
            timer.cancel()
            exchange.close()
        if not isinstance(found, _Truncated):
            return found
        async with asyncio.timeout_at(deadline_s):
            query = dns.message.from_wire(octets)
            return await dns.asyncquery.tcp(query, server.address, None, server.port, backend=self._backend)


class _Truncated(msgspec.Struct, frozen=True):
    """The response did not fit; it is to be asked for by TCP."""


def _asked(name: str, rdtype: dns.rdatatype.RdataType) -> str:
    return f"{name} {dns.rdatatype.to_text(rdtype)}"


def _time_out(outcome: asyncio.Future[Any]) -> None:
    if not outcome.done():
        outcome.set_exception(TimeoutError())


def _question(name: str, rdtype: dns.rdatatype.RdataType) -> bytes | None:
    """The question section; None when the name is none."""
    plain = wire.question(name, rdtype)
    if plain is not None:
        return plain
    try:
        return dns.message.make_query(dns.name.from_text(name), rdtype).to_wire()[12:]
    except (dns.exception.DNSException, UnicodeError):
        return None


def _read_unusual(octets: bytes, query: bytes) -> dns.message.Message | _Truncated | None:
    """Garbage, a wrong number or another question is None."""
    asked = dns.message.from_wire(query)
    try:
        response = dns.message.from_wire(octets, raise_on_truncation=True)
    except dns.message.Truncated as truncated:
        is_ours = asked.is_response(truncated.message())  # type: ignore[no-untyped-call]
        return _Truncated() if is_ours else None
    except Exception:
        return None             # whatever dnspython makes of octets that anybody may have sent
    return response if asked.is_response(response) else None


def _extended(response: dns.message.Message) -> str:
    """What the server adds about its failure (RFC 8914): " (dnssec bogus)". Not its free words: they are anybody's."""
    for error in response.extended_errors()[:1]:
        name = getattr(error.code, "name", "")
        return f" ({name.lower().replace('_', ' ')})" if name else ""
    return ""


def _is_referral(response: dns.message.Message) -> bool:
    """Whether this is an empty answer from a server that neither recursed nor owns the zone.

    Taken for "no such record" it would turn a wrong name server in the configuration into failed mail.
    """
    return not response.answer and not response.flags & (dns.flags.RA | dns.flags.AA)
