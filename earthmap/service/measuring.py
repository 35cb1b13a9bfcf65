"""The numbers of the service over HTTP: every request is counted, and `/metrics` tells them to who operates it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earthmap.service.access import Service, holder_of
from earthmap.service.errors import ProblemError, problem
from earthmap.service.metrics import ServiceMetrics

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""

NO_ROUTE = "none"
"""What requests are counted under that lead nowhere."""


def routes(service: Service) -> list[Route]:
    """`/metrics`, for operators: with an operator's token, or on loopback where there are no tokens."""

    def metrics(request: Request) -> Response:
        holder = holder_of(request, service)
        if not holder.sees_all:
            raise ProblemError(
                problem(403, "Not with this token", f"a {holder.role} may not see the service's numbers")
            )
        foreman, egress = service.foreman, service.egress
        told = service.metrics.render(
            service.jobs.tally(),
            running=0 if foreman is None else foreman.running,
            egress=None if egress is None else egress.read(),
        )
        return Response(told, media_type=MEDIA_TYPE)

    return [Route("/metrics", metrics)]


def paths(refused: dict[str, Any]) -> dict[str, Any]:
    """`/metrics` in the document of the API; `refused` is what it says of a problem."""
    told = {"description": "Numbers for Prometheus", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
    about = "What the service does, in numbers: for operators"
    return {"/metrics": {"get": {"operationId": "metrics", "summary": about, "responses": {"200": told, **refused}}}}


class Measured:
    """An application whose requests are counted by the template of their route, their method and their status."""

    def __init__(self, app: ASGIApp, *, metrics: ServiceMetrics, routes: Sequence[Route]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500  # what a request is told that ends without an answer

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, heard)
        finally:
            took = time.monotonic() - began
            self._metrics.answered(route=self._route(scope), method=scope["method"], status=status, seconds=took)

    def _route(self, scope: Scope) -> str:
        """The template of the route of a request: as few as there are routes, whatever is asked."""
        matching = (route.path for route in self._routes if route.matches(scope)[0] is not Match.NONE)
        return next(matching, NO_ROUTE)
