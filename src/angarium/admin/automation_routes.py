"""The part of the HTTP API that is about automation; see api.py for the rest and for what holds of both.

    GET    /v1/automation          what is in force, and by which rules
    DELETE /v1/automation/{name}   ends one
    PUT    /v1/automation/{name}   has one hold again that is permanent and was ended
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from angarium.admin.automation_views import AutomationView, MeasureView
from angarium.admin.views import Changed


class AutomationBackend(Protocol):
    """What these routes need of the daemon."""

    def measures(self) -> list[MeasureView]: ...

    def rules(self) -> dict[str, dict[str, Any]]: ...

    async def cancel_measure(self, name: str) -> bool: ...

    async def restore_measure(self, name: str) -> bool: ...


def automation_routes(backend: AutomationBackend, answer: Callable[[object], Response]) -> list[Route]:
    """answer: how api.py writes JSON."""

    async def listed(request: Request) -> Response:
        return answer(AutomationView(measures=backend.measures(), rules=backend.rules()))

    async def cancel(request: Request) -> Response:
        name = request.path_params["name"]
        if not await backend.cancel_measure(name):
            raise HTTPException(404, f'automation does nothing that is called "{name}"')
        return answer(Changed(count=1))

    async def restore(request: Request) -> Response:
        name = request.path_params["name"]
        if not await backend.restore_measure(name):
            raise HTTPException(404, f'nothing permanent that is called "{name}" is cancelled')
        return answer(Changed(count=1))

    return [
        Route("/v1/automation", listed, methods=["GET"]),
        Route("/v1/automation/{name:path}", cancel, methods=["DELETE"]),
        Route("/v1/automation/{name:path}", restore, methods=["PUT"]),
    ]
