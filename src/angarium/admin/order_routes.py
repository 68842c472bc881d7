"""The part of the HTTP API that is about orders; see api.py for the rest and for what holds of both.

    POST   /v1/orders           admin.order_views.OrderRequest: does something with queued mail, and with later mail
    GET    /v1/orders           what holds
    DELETE /v1/orders/{name}
    GET    /v1/in-force?domain=&site=&provider=&source=&pool=&tenant=&campaign=&sender=&recipient=
                                what of orders, quiet hours and automation is about such mail
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from angarium.admin.order_views import OrderAnswer, OrderRequest, OrdersView
from angarium.admin.views import Changed
from angarium.queue.in_force import Facts, InForce
from angarium.queue.standing import Order

Answer = Callable[[object], Response]


class OrdersBackend(Protocol):
    """What these routes need of the daemon."""

    def orders(self) -> list[Order]: ...

    async def give(self, request: OrderRequest) -> OrderAnswer:
        """Raises BadQuery for an order that makes no sense, AngariumError when a worker does not answer."""

    async def cancel(self, name: str) -> list[str]:
        """Names of the orders that are gone."""

    def in_force(self, facts: Facts) -> list[InForce]: ...


def order_routes(
    backend: OrdersBackend, answer: Answer, body: Callable[[Request, type[OrderRequest]], Awaitable[OrderRequest]]
) -> list[Route]:
    """answer, body: how api.py writes and reads JSON."""

    async def give(request: Request) -> Response:
        return answer(await backend.give(await body(request, OrderRequest)))

    async def listed(request: Request) -> Response:
        return answer(OrdersView(orders=backend.orders()))

    async def cancel(request: Request) -> Response:
        name = request.path_params["name"]
        gone = await backend.cancel(name)
        if not gone:
            raise HTTPException(404, f'there is no order "{name}"')
        return answer(Changed(count=len(gone)))

    async def held(request: Request) -> Response:
        if unknown := set(request.query_params) - set(Facts.__struct_fields__):
            raise HTTPException(400, f"{min(unknown)}: unknown parameter")
        return answer(backend.in_force(Facts(**dict(request.query_params))))

    return [
        Route("/v1/in-force", held, methods=["GET"]),
        Route("/v1/orders", give, methods=["POST"]),
        Route("/v1/orders", listed, methods=["GET"]),
        Route("/v1/orders/{name:path}", cancel, methods=["DELETE"]),
    ]
