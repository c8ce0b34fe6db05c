"""Signing in with a token, and out again."""

from __future__ import annotations

import logging
import math
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from backend import tokens
from backend.api import auth, session
from backend.api.dashboard.forms import Fields, posted
from backend.api.dashboard.view import render
from backend.api.deps import ServerDep

HOME = "/dashboard"
WRONG = "That is not a token of this installation, or not any more."
WAIT = "Too many wrong tokens. Try again in {} s."

log = logging.getLogger(__name__)
router = APIRouter()


def sign_in_address(path: str) -> str:
    """Where to sign in before this path is shown."""
    return f"{HOME}/login" if path == HOME else f"{HOME}/login?next={quote(path, safe='/')}"


def _inside(path: str) -> str:
    """The path, where it is one of the dashboard's pages; else its first page. Never somebody else's address."""
    return path if path == HOME or path.startswith(f"{HOME}/") else HOME


@router.get("/login", response_model=None)
def form(request: Request, server: ServerDep, next: str = HOME) -> Response:
    """The page that asks for the token; the page itself for who is signed in already."""
    if auth.signed_in(request, server) is not None:
        return RedirectResponse(_inside(next), 303)
    return render(request, "login.html.j2", next=_inside(next), problem="")


@router.post("/login")
def sign_in(request: Request, server: ServerDep, given: Annotated[Fields, Depends(posted)]) -> Response:
    """Begin a session where the token is right; say so where it is not, after the same time; 429 after many wrong ones.

    Who has to wait is not even heard, or a guess would cost nothing.
    """
    target = _inside(given.get("next", HOME))
    address = request.client.host if request.client else ""
    wait = math.ceil(server.throttle.wait_s(address))
    if wait:
        reply = render(request, "login.html.j2", 429, next=target, problem=WAIT.format(wait))
        reply.headers["Retry-After"] = str(wait)
        return reply
    holder = tokens.holder_of(server.database, given.get("token", "").strip())
    if holder is None:
        server.throttle.wrong(address)
        log.warning("a wrong token from %s", address)
        return render(request, "login.html.j2", 401, next=target, problem=WRONG)
    server.throttle.right(address)
    key = server.credentials.session_key
    entered = RedirectResponse(target, 303)
    entered.set_cookie(
        session.cookie_name(key), session.new_session(holder, key), max_age=int(session.LIFETIME.total_seconds()),
        httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/",
    )  # fmt: skip
    return entered


@router.post("/logout", dependencies=[Depends(posted)])
async def sign_out(server: ServerDep) -> Response:
    """End the session in this browser."""
    reply = RedirectResponse(f"{HOME}/login", 303)
    reply.delete_cookie(session.cookie_name(server.credentials.session_key), path="/")
    return reply
