"""A DNS server of the tests' own: zones and faults as Python data, UDP and TCP on one port of 127.0.0.1.

Towards its clients it is a recursive name server: RA is set, CNAME chains are followed in the answer.

    records = {"example.com": {"MX": ["10 mx.example.com."]}, "mx.example.com": {"A": ["192.0.2.1"]}}
    with DnsServer(records) as dns:
        options = ResolverOptions(nameservers=[dns.address])
        dns.set_fault("mx.example.com", "servfail")     # at any time, also while it runs
        dns.set_records("example.org", {"A": ["192.0.2.2"]})

Records: name -> type -> list of rdata in zone-file text, or (ttl, list). A name that is neither in them
nor above one of them is NXDOMAIN. Negative answers carry an SOA with `negative_ttl` as MINIMUM (RFC 2308).

Faults, by "name" or by "name TYPE":
    nxdomain  nodata  nodata-without-soa  servfail  refused  referral
    formerr-with-edns       only a query without EDNS is answered
    drop  drop:N            all, or the first N
    slow:SECONDS
    held                    until release()
    truncate                over UDP only; all of it by TCP
    truncate-then-close     and TCP is closed without an answer
    wrong-id  garbage       ahead of the true answer
    wrong-id-only  wrong-question
    secure                  no fault: AD is set, where the query asks for it
    bogus                   SERVFAIL, with the extended error that says so (RFC 8914)

From a shell:  python -m tests.dns_server --port 5353 --zone zone.json
where the file holds {"records": {...}, "faults": {...}}; the first line printed is the address.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Rdatas = list[str] | tuple[int, list[str]]
Records = Mapping[str, Mapping[str, Rdatas]]

_TTL_S = 300
_RCODES = {"nxdomain": dns.rcode.NXDOMAIN, "servfail": dns.rcode.SERVFAIL, "refused": dns.rcode.REFUSED}
_CHAIN = 20     # CNAMEs put into one answer: more than a client may follow


class DnsServer:
    """A context manager: serves from a thread of its own until the end of the block.

    queries  "name TYPE" of every query that came, in order; over TCP with " tcp" behind.
    peak     most queries that were being answered at the same time (slow ones, that is).
    """

    def __init__(self, records: Records, faults: Mapping[str, str] | None = None, *, negative_ttl: int = 60,
                 port: int = 0) -> None:
        self.queries: list[str] = []
        self.peak = 0
        self._under_way = 0
        self._records: dict[str, Mapping[str, Rdatas]] = {}
        self._faults: dict[str, str] = {}
        self._drops: dict[str, int] = {}
        self._negative_ttl = negative_ttl
        for name, of_name in records.items():
            self.set_records(name, of_name)
        for name, fault in (faults or {}).items():
            self.set_fault(name, fault)
        self._udp, self._tcp = _bind(port)
        self.port = cast(int, self._udp.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="dns-server", daemon=True)

    def __enter__(self) -> DnsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()

    def set_records(self, name: str, of_name: Mapping[str, Rdatas]) -> None:
        self._records[_key(name)] = of_name

    def set_fault(self, name: str, fault: str | None) -> None:
        """name may be "name" or "name TYPE"; None heals it."""
        host, _, rdtype = name.partition(" ")
        key = f"{_key(host)} {rdtype}".strip()
        if fault is None:
            self._faults.pop(key, None)
            return
        self._faults[key] = fault
        if fault.startswith("drop:"):
            self._drops[key] = int(fault[5:])

    def release(self) -> None:
        """What is held goes on, and nothing is held any more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def count(self, name: str, rdtype: str) -> int:
        """How often this was asked."""
        asked = f"{_key(name)} {rdtype}"
        return sum(query in (asked, f"{asked} tcp") for query in self.queries)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        datagrams, _ = await self._loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=self._udp)
        server = await asyncio.start_server(self._serve_tcp, sock=self._tcp)
        await self._is_over.wait()
        datagrams.close()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                for response in await self.respond(await reader.readexactly(length), is_tcp=True):
                    writer.write(len(response).to_bytes(2, "big") + response)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def respond(self, wire: bytes, *, is_tcp: bool) -> list[bytes]:
        """What goes back for one query: mostly one response, none when it is dropped."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = _key(question.name.to_text())
        asked = f"{name} {dns.rdatatype.to_text(question.rdtype)}"
        self.queries.append(f"{asked} tcp" if is_tcp else asked)
        key = asked if asked in self._faults else name
        fault, _, argument = self._faults.get(key, "").partition(":")
        if fault == "drop" and (not argument or self._take_drop(key)):
            return []
        if fault == "truncate-then-close" and is_tcp:
            raise ConnectionError
        if fault == "slow":
            self._under_way += 1
            self.peak = max(self.peak, self._under_way)
            await asyncio.sleep(float(argument))
            self._under_way -= 1
        if fault == "held":
            await self._released.wait()
        response = self._answer(query)
        self._damage(response, query, fault, is_tcp)
        true = response.to_wire(max_size=65535)
        if fault in ("wrong-id", "wrong-id-only"):
            forged = dns.message.from_wire(true)
            forged.id ^= 0x5555
            forged.answer = [dns.rrset.from_text(question.name, 60, "IN", "A", "203.0.113.66")]
            return [forged.to_wire()] if fault == "wrong-id-only" else [forged.to_wire(), true]
        if fault == "garbage":
            return [b"\x00\x01garbage", true]
        return [true]

    def _take_drop(self, key: str) -> bool:
        self._drops[key] -= 1
        return self._drops[key] >= 0

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        name, rdtype = _key(question.name.to_text()), dns.rdatatype.to_text(question.rdtype)
        for _ in range(_CHAIN):
            of_name = self._records.get(name)
            if of_name is None:
                if not any(known.endswith("." + name) for known in self._records):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                break
            if rdtype in of_name:
                response.answer.append(_rrset(name, rdtype, of_name[rdtype]))
                return response
            if "CNAME" not in of_name:
                break
            response.answer.append(_rrset(name, "CNAME", of_name["CNAME"]))
            rdata = response.answer[-1][0]
            name = _key(rdata.to_text())
        if len(response.answer) < _CHAIN:
            self._deny(response, name)
        return response

    def _deny(self, response: dns.message.Message, name: str) -> None:
        zone = name.partition(".")[2] or "."
        soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {self._negative_ttl}"
        response.authority.append(_rrset(zone, "SOA", (3600, [soa])))

    def _damage(
        self, response: dns.message.Message, query: dns.message.Message, fault: str, is_tcp: bool
    ) -> None:
        if fault in _RCODES or fault.startswith(("nodata", "referral")):
            response.answer.clear()
            response.authority.clear()
            response.set_rcode(_RCODES.get(fault, dns.rcode.NOERROR))
        if fault in ("nxdomain", "nodata"):
            self._deny(response, _key(query.question[0].name.to_text()))
        if fault == "referral":
            response.flags &= ~dns.flags.RA
        if fault == "bogus":
            response.answer.clear()
            response.set_rcode(dns.rcode.SERVFAIL)
            response.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "no\r\nsignature")])
        if fault == "formerr-with-edns" and query.edns >= 0:
            response.answer.clear()
            response.set_rcode(dns.rcode.FORMERR)
        if fault.startswith("truncate") and not is_tcp:
            response.answer.clear()
            response.flags |= dns.flags.TC
        if fault == "secure" and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        if fault == "wrong-question":
            response.question = [dns.rrset.RRset(dns.name.from_text("other.example."), dns.rdataclass.IN,
                                                 query.question[0].rdtype)]


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._respond(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respond(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            responses = await self._server.respond(data, is_tcp=False)
        except dns.exception.DNSException:
            return      # not a query: as silent as a real server
        for response in responses:
            self._transport.sendto(response, addr)


def _bind(port: int) -> tuple[socket.socket, socket.socket]:
    """One port for both; a free UDP port may be taken for TCP, so try a few."""
    for _ in range(50):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.setblocking(False)
        try:
            udp.bind(("127.0.0.1", port))
            tcp.bind(udp.getsockname())
            return udp, tcp
        except OSError:
            udp.close()
            tcp.close()
            if port:
                raise
    raise OSError("no port that is free for both UDP and TCP")


def _key(name: str) -> str:
    return name.lower().removesuffix(".")


def _rrset(name: str, rdtype: str, rdatas: Rdatas) -> dns.rrset.RRset:
    ttl, texts = rdatas if isinstance(rdatas, tuple) else (_TTL_S, rdatas)
    return dns.rrset.from_text_list(dns.name.from_text(name), ttl, "IN", rdtype, texts)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="DNS server for tests, on 127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; it is printed")
    parser.add_argument("--zone", type=Path, required=True, help='JSON: {"records": {...}, "faults": {...}}')
    options = parser.parse_args(arguments)
    zone = json.loads(options.zone.read_text())
    with DnsServer(zone["records"], zone.get("faults"), port=options.port) as server:
        print(server.address, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
