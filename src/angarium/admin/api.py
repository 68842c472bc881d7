"""The HTTP API: what operators, their scripts and our own commands may ask of a running relay.

    GET    /health                         200 while all workers serve, else 503
    GET    /metrics                        Prometheus text
    GET    /v1/status                      version, addresses, workers and their figures
    GET    /v1/sources                     egress sources, what of them is suspended
    GET    /v1/queue?after=&limit=&domain=&state=
    GET    /v1/queue/{id}
    DELETE /v1/queue/{id}                  without a DSN
    DELETE /v1/queue?domain=  or  ?all=true
    POST   /v1/queue/retry                 {"id": …} or {"domain": …} or {"all": true}
    POST, GET, DELETE /v1/orders …         see order_routes.py
    GET, DELETE /v1/automation …           see automation_routes.py
    GET    /v1/explain/{id}                why a message waits
    GET    /v1/explain?address=            what a message to the address would meet, and who waits
    GET    /v1/top?order=&limit=           the busiest sites
    GET    /v1/refusals/{id}               what was refused, and why
    GET    /v1/trace?client=&data=         dialogues with clients as they happen, one JSON object per line
    GET    /v1/trace?site= | ?domain= | ?next_hop=   likewise with next hops; and &data=
    POST   /v1/reload                      200, or 422 with the reason why the old configuration stays

Answers are JSON; an error is {"error": "one sentence"}. Here is only HTTP: a Backend does the work. There is
no authentication (see options.py), so what a web page could make a browser on this machine send is refused:
requests with an Origin, and requests for a host name that is not this machine's loopback (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from angarium.admin import prometheus
from angarium.admin.automation_routes import AutomationBackend, automation_routes
from angarium.admin.order_routes import OrdersBackend, order_routes
from angarium.admin.views import (
    BadQuery,
    Changed,
    Fault,
    Health,
    QueuePage,
    RefusalView,
    RetryOrder,
    SourcesView,
    Status,
)
from angarium.events.dialogue import DATA_OCTETS, DATA_OCTETS_MOST
from angarium.model.errors import AngariumError, ConfigError
from angarium.outbound.explanation import Question
from angarium.outbound.tracing import Target
from angarium.queue.facts import SitesPart
from angarium.queue.top_sites import ORDERS
from angarium.resolver.domain_name import to_a_labels
from angarium.smtp.reasons import OF_OTHER, of_word

T = TypeVar("T")

PAGE_LIMIT: Final = 1000
STATES: Final = ("routing", "unrouted", "ready", "behind", "in hand", "deferred", "held", "suspended")
_BODY_OCTETS_MAX: Final = 64 << 10
_TARGETS: Final = ("site", "domain", "next_hop")


class Backend(Protocol):
    """What the API needs of the daemon. Raises AngariumError when a worker cannot answer."""

    async def health(self) -> Health: ...

    async def metrics(self) -> bytes: ...

    async def status(self) -> Status: ...

    async def sources(self) -> SourcesView: ...

    async def queue(self, *, after: str, limit: int, domain: str | None, state: str | None) -> QueuePage:
        """Raises BadQuery for an `after` that is not from an earlier page."""

    async def message(self, id_: str) -> dict[str, Any] | None: ...

    async def retry(self, *, id_: str | None, domain: str | None) -> int: ...

    async def delete(self, *, id_: str | None, domain: str | None) -> int: ...

    async def refusal(self, id_: str) -> dict[str, Any] | None:
        """The `rejected` line of the log with this id, as long as a worker remembers it."""

    async def explain_message(self, id_: str) -> dict[str, Any] | None:
        """Why a message waits; None: no queue has it."""

    async def explain_address(self, question: Question) -> dict[str, Any]:
        """What mail to an address, or to a domain, would meet now."""

    async def top(self, *, order: str, limit: int) -> SitesPart:
        """The busiest sites. order: of queue.top_sites.ORDERS."""

    def trace(
        self, *, network: str, data_octets: int, target: Target | None = None
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Events of dialogues with clients of the network, or with next hops, until it is closed; with so many octets
        of the data of each message."""

    async def reload(self) -> None:
        """Raises ConfigError when the new configuration is refused."""


def application(
    backend: Backend, orders: OrdersBackend | None = None, automation: AutomationBackend | None = None
) -> ASGIApp:
    """The ASGI application. orders, automation: None: that part is left out."""

    async def health(request: Request) -> Response:
        answer = await backend.health()
        return _json(answer, 200 if answer.status == "ok" else 503)

    async def metrics(request: Request) -> Response:
        return Response(await backend.metrics(), media_type=prometheus.CONTENT_TYPE)

    async def status(request: Request) -> Response:
        return _json(await backend.status())

    async def sources(request: Request) -> Response:
        return _json(await backend.sources())

    async def queue(request: Request) -> Response:
        query = _query(request, {"after", "limit", "domain", "state"})
        if "state" in query and query["state"] not in STATES:
            raise HTTPException(400, f"state: one of {', '.join(STATES)}")
        page = await backend.queue(
            after=query.get("after", ""),
            limit=_limit(query.get("limit", "100")),
            domain=query.get("domain"),
            state=query.get("state"),
        )
        return _json(page)

    async def message(request: Request) -> Response:
        found = await backend.message(request.path_params["id"])
        if found is None:
            raise HTTPException(404, f"{request.path_params['id']} is not in the queue")
        return _json(found)

    async def delete_message(request: Request) -> Response:
        count = await backend.delete(id_=request.path_params["id"], domain=None)
        if count == 0:
            raise HTTPException(404, f"{request.path_params['id']} is not in the queue")
        return _json(Changed(count=count))

    async def delete_several(request: Request) -> Response:
        query = _query(request, {"domain", "all"})
        # Not "nothing given means everything": a script whose variable is empty must not empty the queue.
        if bool(query.get("domain")) == (query.get("all") == "true"):
            raise HTTPException(400, 'exactly one of "domain" and "all=true" is needed')
        return _json(Changed(count=await backend.delete(id_=None, domain=query.get("domain"))))

    async def retry(request: Request) -> Response:
        order = await _body(request, RetryOrder)
        return _json(Changed(count=await backend.retry(id_=order.id, domain=order.domain)))

    async def refusal(request: Request) -> Response:
        found = await backend.refusal(request.path_params["id"])
        if found is None:
            raise HTTPException(404, f"no worker remembers refusal {request.path_params['id']}; look for it in the log")
        reason = of_word(str(found.get("reason", ""))) or OF_OTHER
        return _json(RefusalView(event=found, sentence=reason.sentence, keys=list(reason.keys)))

    async def explain_message(request: Request) -> Response:
        found = await backend.explain_message(request.path_params["id"])
        if found is None:
            raise HTTPException(404, f"{request.path_params['id']} is not in the queue")
        return _json(found)

    async def explain_address(request: Request) -> Response:
        query = _query(request, {"address", "sender", "tenant", "campaign", "pool", "source"})
        try:
            address = _address(query.pop("address", ""))
        except ValueError as error:
            raise HTTPException(400, f"address: {error}") from None
        keys = {key: query.get(key, "") for key in ("sender", "tenant", "campaign", "pool", "source")}
        return _json(await backend.explain_address(Question(address, **keys)))

    async def top(request: Request) -> Response:
        query = _query(request, {"order", "limit"})
        order = query.get("order", "depth")
        if order not in ORDERS:
            raise HTTPException(400, f"order: one of {', '.join(ORDERS)}")
        return _json(await backend.top(order=order, limit=_limit(query.get("limit", "20"))))

    async def trace(request: Request) -> Response:
        query = _query(request, {"client", "data", *_TARGETS})
        data_octets = _data_octets(query.get("data", "false"))
        targets = {key: value for key, value in query.items() if key in _TARGETS}
        if targets and (len(query) > 1 + ("data" in query) or not all(targets.values())):
            raise HTTPException(400, "one of client, site, domain and next_hop, and data")
        network = query.get("next_hop", "") if targets else query.get("client", "")
        if not targets or "next_hop" in targets:
            try:
                network = str(ipaddress.ip_network(network))
            except ValueError as error:
                raise HTTPException(400, f"{'next_hop' if targets else 'client'}: {error}") from None
        if targets:
            return _Stream(backend.trace(network="", data_octets=data_octets, target=Target(**targets)))
        return _Stream(backend.trace(network=network, data_octets=data_octets))

    async def reload(request: Request) -> Response:
        await backend.reload()
        return _json(Changed(count=1))

    return _LocalOnly(
        Starlette(
            routes=[
                Route("/health", health, methods=["GET"]),
                Route("/metrics", metrics, methods=["GET"]),
                Route("/v1/status", status, methods=["GET"]),
                Route("/v1/sources", sources, methods=["GET"]),
                Route("/v1/queue", queue, methods=["GET"]),
                Route("/v1/queue", delete_several, methods=["DELETE"]),
                Route("/v1/queue/retry", retry, methods=["POST"]),
                Route("/v1/queue/{id:str}", message, methods=["GET"]),
                Route("/v1/queue/{id:str}", delete_message, methods=["DELETE"]),
                Route("/v1/explain", explain_address, methods=["GET"]),
                Route("/v1/explain/{id:str}", explain_message, methods=["GET"]),
                Route("/v1/top", top, methods=["GET"]),
                Route("/v1/refusals/{id:str}", refusal, methods=["GET"]),
                Route("/v1/trace", trace, methods=["GET"]),
                Route("/v1/reload", reload, methods=["POST"]),
                *(order_routes(orders, _json, _body) if orders is not None else ()),
                *(automation_routes(automation, _json) if automation is not None else ()),
            ],
            exception_handlers={
                HTTPException: _on_http_error,
                BadQuery: _on_bad_query,
                ConfigError: _on_refused,
                AngariumError: _on_unavailable,
                Exception: _on_bug,
            },
        )
    )


class _LocalOnly:
    """Refuses what a browser sends on behalf of a web page."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if b"origin" in headers or not _is_local(headers.get(b"host", b"").decode("latin-1")):
                await _json(Fault(error="not for web pages"), 403)(scope, receive, send)
                return
        await self._inner(scope, receive, send)


class _Stream(StreamingResponse):
    """Events, one JSON object per line; ended for its source, too, when the reader goes away."""

    def __init__(self, batches: AsyncIterator[list[dict[str, Any]]]) -> None:
        self._batches = batches
        super().__init__(self._lines(), media_type="application/x-ndjson")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await cast(AsyncGenerator[object, None], self._batches).aclose()

    async def _lines(self) -> AsyncIterator[bytes]:
        yield b"\n"             # the reader may know that it has begun
        async for events in self._batches:
            yield b"".join(msgspec.json.encode(event) + b"\n" for event in events)


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= PAGE_LIMIT:
        raise HTTPException(400, f"limit: between 1 and {PAGE_LIMIT}")
    return int(text)


def _data_octets(text: str) -> int:
    if text in ("true", "false"):
        return DATA_OCTETS if text == "true" else 0
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= DATA_OCTETS_MOST:
        raise HTTPException(400, f'data: "true", "false" or a number of octets from 1 to {DATA_OCTETS_MOST}')
    return int(text)


def _address(text: str) -> str:
    """"user@domain" or a domain, the domain in lower case. Raises ValueError."""
    local, at, domain = text.rpartition("@")
    if not domain.startswith("["):
        to_a_labels(domain.encode())
    return f"{local}{at}{domain.lower()}"


def _query(request: Request, known: set[str]) -> dict[str, str]:
    """The query's keys; an unknown one is refused: a filter with a typing error would match everything."""
    if unknown := set(request.query_params) - known:
        raise HTTPException(400, f"{min(unknown)}: unknown parameter")
    return dict(request.query_params)


async def _body(request: Request, kind: type[T]) -> T:
    octets = bytearray()
    async for piece in request.stream():
        octets += piece
        if len(octets) > _BODY_OCTETS_MAX:
            raise HTTPException(413, "the body is too large")
    try:
        return msgspec.json.decode(bytes(octets), type=kind)
    except msgspec.MsgspecError as error:
        raise HTTPException(400, str(error)) from None


def _json(answer: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer) + b"\n", status_code=status, media_type="application/json")


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(Fault(error=error.detail), error.status_code)


async def _on_bad_query(request: Request, error: Exception) -> Response:
    return _json(Fault(error=str(error)), 400)


async def _on_refused(request: Request, error: Exception) -> Response:
    return _json(Fault(error=str(error)), 422)


async def _on_unavailable(request: Request, error: Exception) -> Response:
    return _json(Fault(error=str(error)), 503)


async def _on_bug(request: Request, error: Exception) -> Response:
    return _json(Fault(error=f"internal error: {error!r}"), 500)
