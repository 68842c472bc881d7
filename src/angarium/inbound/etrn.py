"""ETRN (RFC 1985): a client has the mail of a domain tried now. Who may ask for which, how often, and the answer.

The order itself is the queue's (queue/orders.py), over all workers and in slices. None begins for a domain again within
AGAIN_S of the last, whichever worker was asked, so that asking costs no more than being refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from angarium.inbound.options import domain_key
from angarium.inbound.quota import Allowance
from angarium.metrics.counters import counter
from angarium.queue.shares import Shares
from angarium.smtp import replies

NODE_OCTETS_MAX: Final = 255
_DOMAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
ANSWER_S: Final = 3.0       # by judgement: then it goes on, and the client hears that it was started
AGAIN_S: Final = 30         # by judgement: less than any retry interval that makes sense
AGAIN_NS: Final = AGAIN_S * 10**9

etrn_total = counter("angarium_in_etrn_total", "ETRN orders begun.")

Retry = Callable[[str], Awaitable[int]]


class Client(Protocol):
    """A connection (client.pyx)."""

    @property
    def host(self) -> str: ...

    @property
    def identity(self) -> str | None: ...

    def etrn_answered(self, reply: bytes) -> None: ...


class EtrnRules:
    """listener.etrn_for, compiled."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self._rules: list[tuple[frozenset[str], list[ipaddress.IPv4Network | ipaddress.IPv6Network], set[str]]] = []
        for domain, askers in table.items():
            keys = {"*"} if domain == "*" else {key.decode() for key in domain_key(domain)}
            networks, identities = [], set()
            for asker in askers:
                try:
                    networks.append(ipaddress.ip_network(asker))
                except ValueError:
                    identities.add(asker)
            self._rules.append((frozenset(keys), networks, identities))

    def allows(self, node: str, client: Client) -> bool:
        """node: lower case; with "@" in front it means all below, too, and a rule must say so."""
        name = node.removeprefix("@")
        wanted = [{"*", name}, {"*", "." + name}] if node != name else [_keys_for(name)]
        address = ipaddress.ip_address(client.host or "127.0.0.1")
        return all(
            any(
                keys & some and (client.identity in identities or any(address in network for network in networks))
                for keys, networks, identities in self._rules
            )
            for some in wanted
        )


def _keys_for(name: str) -> set[str]:
    labels = name.split(".")
    return {"*", name} | {"." + ".".join(labels[index:]) for index in range(1, len(labels))}


class EtrnDesk:
    """All ETRN of one worker.

    retry   tries a domain's mail now, everywhere, and says how many recipients that are.
    orders  when they were begun, of all workers (Counts.orders); a worker that is started again finds them there.
    """

    def __init__(self, retry: Retry, orders: Shares) -> None:
        self._retry = retry
        self._orders = orders
        self._tasks: set[asyncio.Future[Any]] = set()

    def ask(self, client: Client, rules: EtrnRules, argument: bytes) -> bytes | None:
        """The reply; None when it comes later, by client.etrn_answered()."""
        node = argument.decode("ascii", "replace").strip().lower().removesuffix(".")
        if node.startswith("#"):
            return replies.ETRN_UNABLE % argument[:NODE_OCTETS_MAX] if " " not in node else replies.ETRN_SYNTAX
        if not _is_domain(node.removeprefix("@")):
            return replies.ETRN_SYNTAX
        told = node.encode("ascii")
        if not rules.allows(node, client):
            return replies.ETRN_NOT_ALLOWED % told
        if not Allowance(self._orders, node, 1, AGAIN_NS).take():
            return replies.ETRN_STARTED % told
        etrn_total.add(1)
        order = asyncio.ensure_future(self._retry(node))
        for task in (order, asyncio.ensure_future(self._answer(client, told, order))):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return None

    async def _answer(self, client: Client, told: bytes, order: asyncio.Future[int]) -> None:
        try:
            count = await asyncio.wait_for(asyncio.shield(order), ANSWER_S)
        except TimeoutError:
            client.etrn_answered(replies.ETRN_STARTED % told)
        except Exception:
            client.etrn_answered(replies.ETRN_UNABLE % told)
        else:
            client.etrn_answered(replies.ETRN_COUNTED % (count, told) if count else replies.ETRN_NOTHING % told)


def _is_domain(name: str) -> bool:
    return len(name) <= NODE_OCTETS_MAX and _DOMAIN.fullmatch(name) is not None
