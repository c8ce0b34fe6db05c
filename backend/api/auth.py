"""Who may call what. Every secret is compared in constant time.

What Label Studio sends is checked by coroutines, on purpose: plain functions would wait for a free thread of the pool,
and /health must answer within a second even while every thread is detecting. Tokens of people and programs are looked
up in SQL, so that a new one counts, and a revoked one ends, at once; that is done in threads.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBasic, HTTPBearer
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from backend import tokens
from backend.api import session
from backend.api.deps import Server, ServerDep
from backend.api.errors import NotSignedIn, ScopeTooSmall, TokenExpected, Unauthorized
from backend.credentials import Credentials
from backend.tokens import Holder
from db.tokens import Scope


class _Bearer(HTTPBearer):
    """Tells the API's OpenAPI document what a route asks for, and decides nothing: the checks below do."""

    async def __call__(self, request: HTTPConnection) -> None:
        return None


class _Basic(HTTPBasic):
    """The same for Basic auth."""

    async def __call__(self, request: HTTPConnection) -> None:
        return None


TOKEN = _Bearer(scheme_name="token", description="a token of `cellloop token create`")
HEADER = _Bearer(scheme_name="webhook", description="the header of our webhooks")
BASIC = _Basic(scheme_name="label_studio", description="what Label Studio has of us")


@dataclass(frozen=True, repr=False)
class Visit:
    """A request of the dashboard with a session. form_token: what the forms of its pages carry."""

    holder: Holder
    form_token: str

    @property
    def may_operate(self) -> bool:
        """Whether pages show the operating forms."""
        return self.holder.scope.includes(Scope.operate)


async def ml_backend(request: Request, server: ServerDep, _told: object = Depends(BASIC)) -> None:
    """Basic auth, as Label Studio sends it to /health, /setup, /predict and /versions. Raises Unauthorized."""
    if not _is_basic(request.headers, server.credentials):
        raise Unauthorized("expected the ML backend's Basic auth; connect again with: cellloop label-studio connect")


async def webhook(
    request: Request, server: ServerDep, _told: object = Depends(BASIC), _or: object = Depends(HEADER)
) -> None:
    """`Authorization: Bearer <webhook secret>`, or the ML backend's Basic auth. Raises Unauthorized.

    Ordinary webhooks carry the static header we set; START_TRAINING comes from the ML backend's connection, which
    knows no such header but sends Basic auth.
    """
    if not is_label_studio(request.headers, server.credentials):
        raise Unauthorized("expected the webhook's secret; set it again with: cellloop label-studio connect")


def reader(request: Request, server: ServerDep, _told: object = Depends(TOKEN)) -> Holder:
    """Who may look: a Bearer token of any scope, or for a GET the dashboard's session. Raises TokenExpected.

    A session never writes: whatever another page may talk a browser into, it changes nothing.
    """
    holder = _bearer(request, server)
    if holder is None and request.method in ("GET", "HEAD"):
        holder = signed_in(request, server)
    if holder is None:
        raise TokenExpected("expected 'Authorization: Bearer <token>'; make one with: cellloop token create")
    return holder


def reviewer(holder: Annotated[Holder, Depends(reader)]) -> Holder:
    """Who may take items of the queue. Raises TokenExpected, ScopeTooSmall."""
    return _with_scope(holder, Scope.review)


def page(request: Request, server: ServerDep) -> Visit:
    """Who has a session of the dashboard; told to the page's template, too. Raises NotSignedIn."""
    holder = signed_in(request, server)
    if holder is None:
        raise NotSignedIn(f"{request.url.path}: expected a session of the dashboard, found none; sign in first")
    key = server.credentials.session_key
    visit = Visit(holder, session.form_token(request.cookies[session.cookie_name(key)], key))
    request.state.visit = visit
    return visit


def operator(visit: Annotated[Visit, Depends(page)]) -> Visit:
    """Who may use the dashboard's operating forms. Raises NotSignedIn, ScopeTooSmall."""
    _with_scope(visit.holder, Scope.operate)
    return visit


def signed_in(request: Request, server: Server) -> Holder | None:
    """Whose session this request comes with: one that we gave, that still lasts, and whose token is still good."""
    key = server.credentials.session_key
    claim = session.claim(request.cookies.get(session.cookie_name(key), ""))
    holder = None if claim is None else tokens.holder(server.database, claim.token_id)
    return holder if claim is not None and holder is not None and claim.genuine(holder, key) else None


def _with_scope(holder: Holder, needed: Scope) -> Holder:
    if not holder.scope.includes(needed):
        raise ScopeTooSmall(
            f"expected a token with scope {needed.value}, {holder.name}'s has {holder.scope.value}; "
            f"make one with: cellloop token create --scope {needed.value}"
        )
    return holder


def is_label_studio(headers: Headers, known: Credentials) -> bool:
    """Whether a request carries one of the secrets that Label Studio has of us."""
    given = _given(headers, "bearer")
    accepted = (known.webhook_secret, known.former_webhook_secret)
    return (given is not None and _is_one_of(given, accepted)) or _is_basic(headers, known)


def _bearer(request: Request, server: Server) -> Holder | None:
    given = _given(request.headers, "bearer")
    return None if given is None else tokens.holder_of(server.database, given.decode("utf-8", "replace"))


def _given(headers: Headers, scheme: str) -> bytes | None:
    given, _, value = headers.get("authorization", "").partition(" ")
    return value.strip().encode() if given.lower() == scheme else None


def _is_basic(headers: Headers, known: Credentials) -> bool:
    given = _given(headers, "basic")
    if given is None:
        return False
    try:
        user, _, password = base64.b64decode(given, validate=True).partition(b":")
    except binascii.Error:
        return False
    right_user = secrets.compare_digest(user, known.basic_user.encode())
    return _is_one_of(password, (known.basic_password, known.former_basic_password)) and right_user


def _is_one_of(given: bytes, accepted: Sequence[str]) -> bool:
    """Whether this is one of the secrets, compared with all of them; an empty one stands for none."""
    found = [secrets.compare_digest(given, secret.encode()) for secret in accepted if secret]
    return any(found)
