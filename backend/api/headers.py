"""What every reply says about itself, so that a browser does nothing we did not mean.

A route that knows better says so itself (a crop is shown on Label Studio's pages); nothing it has said is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMMON = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",  # what is not said to be cachable is private
}
# JSON and pictures: opened as a page, they are nothing and do nothing.
API = COMMON | {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
# No exception of any kind: no inline script or style, no eval, no other origin. The charting library gets its few
# rules from charts.css instead of writing them itself (see templates/page.html.j2).
DASHBOARD = COMMON | {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # with none at all, browsers send `Origin: null` with our own forms
}


class SafeHeaders:
    """ASGI wrapper that adds headers to every reply, errors included."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self.app = app
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    given.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, add)
