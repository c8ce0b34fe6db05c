"""Who may call what. Every secret is compared in constant time.

The checks are coroutines on purpose: plain functions would wait for a free thread of the pool, and /health must
answer within a second even while every thread is detecting.
"""

from __future__ import annotations

import base64
import binascii
import secrets

from fastapi import Request

from backend.api import session
from backend.api.deps import ServerDep
from backend.api.errors import NotSignedIn, TokenExpected, Unauthorized
from backend.credentials import Credentials


async def ml_backend(request: Request, server: ServerDep) -> None:
    """Basic auth, as Label Studio sends it to /health, /setup, /predict and /versions. Raises Unauthorized."""
    if not _is_basic(request, server):
        raise Unauthorized("expected the ML backend's Basic auth; connect again with: cellloop label-studio connect")


async def webhook(request: Request, server: ServerDep) -> None:
    """`Authorization: Bearer <webhook secret>`, or the ML backend's Basic auth. Raises Unauthorized.

    Ordinary webhooks carry the static header we set; START_TRAINING comes from the ML backend's connection, which
    knows no such header but sends Basic auth.
    """
    if not _is_bearer(request, server.credentials.webhook_secret) and not _is_basic(request, server):
        raise Unauthorized("expected the webhook's secret; set it again with: cellloop label-studio connect")


async def api(request: Request, server: ServerDep) -> None:
    """`Authorization: Bearer <api token>` of our own API; for a GET the dashboard's session does. Raises TokenExpected.

    A session never writes: whatever another page may talk a browser into, it changes nothing.
    """
    reads = request.method in ("GET", "HEAD") and signed_in(request, server.credentials)
    if not reads and not _is_bearer(request, server.credentials.api_token):
        raise TokenExpected("expected 'Authorization: Bearer <api_token>'; the token is in the home's credentials.json")


async def page(request: Request, server: ServerDep) -> None:
    """The dashboard's session. Raises NotSignedIn."""
    if not signed_in(request, server.credentials):
        raise NotSignedIn(f"{request.url.path}: expected a session of the dashboard, found none; sign in first")


def signed_in(request: Request, credentials: Credentials) -> bool:
    """Whether this request comes with a session that we gave and that still lasts."""
    key = credentials.session_key
    return session.lasts(request.cookies.get(session.cookie_name(key), ""), key)


def is_api_token(given: str, credentials: Credentials) -> bool:
    """Whether this is our API's token."""
    return secrets.compare_digest(given.encode(), credentials.api_token.encode())


def _header(request: Request, scheme: str) -> bytes | None:
    given, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip().encode() if given.lower() == scheme else None


def _is_bearer(request: Request, secret: str) -> bool:
    given = _header(request, "bearer")
    return given is not None and secrets.compare_digest(given, secret.encode())


def _is_basic(request: Request, server: ServerDep) -> bool:
    given = _header(request, "basic")
    if given is None:
        return False
    try:
        decoded = base64.b64decode(given, validate=True)
    except binascii.Error:
        return False
    expected = f"{server.credentials.basic_user}:{server.credentials.basic_password}"
    return secrets.compare_digest(decoded, expected.encode())
