"""Asking name servers: UDP, then TCP when the answer was cut, the next server when one is silent or broken.

Says nothing of what an answer means (interpretation.py) and keeps none (caching_resolver.py).
"""

from __future__ import annotations

import asyncio
import socket

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
from angarium.resolver.answer import Kind
from angarium.resolver.options import Nameserver

_queries = counter("angarium_dns_queries_total", "Queries sent to name servers, retries included")
_timeouts = counter("angarium_dns_timeouts_total", "Queries that a name server did not answer in time")

# The size that fits every path without fragments, https://www.dnsflagday.net/2020/
_EDNS_PAYLOAD_OCTETS = 1232


class NoAnswer(msgspec.Struct, frozen=True):
    """No server gave an answer that one could use. kind is SERVER_FAILURE or TIMEOUT."""

    kind: Kind
    detail: str


class Nameservers:
    """The configured servers and what was learnt of them. One per resolver; holds no sockets between queries.

    A socket per query costs some 50 us, but gives each a port of its own: with the 16-bit id alone answers
    could be forged (RFC 5452 §9.2). Connected, so that a server that is not there is known at once.
    """

    def __init__(self, servers: tuple[Nameserver, ...], *, timeout_s: float, tries: int, asks_ad: bool = False) -> None:
        self._servers = servers
        self._timeout_s = timeout_s
        self._tries = tries
        self._asks_ad = asks_ad
        self._first = 0                                 # the server that answered last is asked first
        self._without_edns: set[Nameserver] = set()
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def ask(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> dns.message.Message | NoAnswer:
        """The first response that is NOERROR or NXDOMAIN, or why there is none.

        Takes at most timeout * tries * number of servers.
        """
        no_answer = NoAnswer(Kind.TIMEOUT, "")
        asked = f"{name.to_text(omit_final_dot=True)} {dns.rdatatype.to_text(rdtype)}"
        for _ in range(self._tries):
            is_worth_another_round = False
            for index in self._order():
                server = self._servers[index]
                try:
                    async with asyncio.timeout(self._timeout_s):
                        response = await self._exchange(server, name, rdtype)
                except TimeoutError:
                    _timeouts.add()
                    is_worth_another_round = True
                    # A server that said it failed knows more than one that said nothing.
                    if no_answer.kind is Kind.TIMEOUT:
                        no_answer = NoAnswer(Kind.TIMEOUT, f"{asked}: no answer from {server}")
                    continue
                except (OSError, EOFError, dns.exception.DNSException) as error:
                    is_worth_another_round = True
                    words = error.strerror if isinstance(error, OSError) else type(error).__name__
                    no_answer = NoAnswer(Kind.SERVER_FAILURE, f"{asked}: {words or 'error'} from {server}")
                    continue
                rcode = response.rcode()
                if rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) and not _is_referral(response):
                    self._first = index
                    return response
                words = "no recursion" if rcode == dns.rcode.NOERROR else dns.rcode.to_text(rcode)
                words += _extended(response)
                no_answer = NoAnswer(Kind.SERVER_FAILURE, f"{asked}: {words} from {server}")
            if not is_worth_another_round:
                break           # who said SERVFAIL or REFUSED says it again
        return no_answer

    def _order(self) -> range | list[int]:
        count = len(self._servers)
        if count == 1:
            return range(1)
        return [(self._first + i) % count for i in range(count)]

    async def _exchange(
        self, server: Nameserver, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> dns.message.Message:
        if server not in self._without_edns:
            response = await self._exchange_once(server, self._query(name, rdtype, has_edns=True))
            if response.rcode() not in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
                return response
            # RFC 6891 §7: a server of before 1999, or a firewall's.
            self._without_edns.add(server)
        return await self._exchange_once(server, self._query(name, rdtype, has_edns=False))

    def _query(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, *, has_edns: bool
    ) -> dns.message.Message:
        query = dns.message.make_query(
            name, rdtype, use_edns=0 if has_edns else False, payload=_EDNS_PAYLOAD_OCTETS if has_edns else None
        )
        if self._asks_ad:
            query.flags |= dns.flags.AD         # RFC 6840 §5.7: "I understand AD in the answer"
        return query

    async def _exchange_once(self, server: Nameserver, query: dns.message.Message) -> dns.message.Message:
        # dnspython gets no timeout: ask() has one around all of it, and theirs costs a task per receive.
        _queries.add()
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        udp = await self._backend.make_socket(  # type: ignore[no-untyped-call]
            family, socket.SOCK_DGRAM, 0, None, (server.address, server.port), None
        )
        async with udp:
            try:
                # ignore_errors: garbage, a wrong id or another question does not end the wait, or a forger
                # need only be first to stop mail.
                return await dns.asyncquery.udp(
                    query, server.address, None, server.port, sock=udp, backend=self._backend,
                    raise_on_truncation=True, ignore_errors=True, ignore_unexpected=True,
                )
            except dns.message.Truncated:
                pass
        return await dns.asyncquery.tcp(query, server.address, None, server.port, backend=self._backend)


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
