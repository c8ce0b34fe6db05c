"""Around every request: an id, one line in the log, its count and time, and an answer even where a bug is ours.

A line and a number name the route's pattern, never the address: a crop's address is its authorisation, and others hold
names of patients.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.errors import failed_response
from backend.api.metrics import Metrics
from backend.api.routes import described, method_of, route_of
from backend.logs import about

log = logging.getLogger("cellloop.requests")

HEADER = b"x-request-id"
SANE = re.compile(rb"[A-Za-z0-9._-]{1,64}")
QUIET = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})  # asked all day, by machines
GONE = 499  # whoever asked did not wait for the answer


class Requests:
    """ASGI middleware, the outermost. A sane `X-Request-ID` is kept, so that a proxy's log and ours meet."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(HEADER, b"")
        request_id = given if SANE.fullmatch(given) else secrets.token_hex(8).encode()
        status, began = 0, time.perf_counter()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id)]}
            await send(message)

        with about(request=request_id.decode()), self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_named)
            except Exception:
                log.exception("%s failed", described(scope))
                if not status:
                    await failed_response(described(scope))(scope, receive, send_named)
            finally:
                self._tell(scope, status or GONE, time.perf_counter() - began)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = method_of(scope), route_of(scope)
        self.metrics.answered(method, route, status, seconds)
        level = logging.DEBUG if route in QUIET else logging.INFO
        facts = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
        log.log(level, "%s %s %d in %.0f ms", method, route, status, 1000 * seconds, extra=facts)
