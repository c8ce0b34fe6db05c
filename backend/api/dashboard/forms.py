"""Posted forms, and the proof that a page of the dashboard sent them: no other site may use a visitor's session.

Three walls, any of which would do in today's browsers: the session's cookie is SameSite=Strict, `Origin` names us, and
the form carries a token that only pages of this session hold.
"""

from __future__ import annotations

import secrets
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from fastapi import Depends, Request

from backend.api import auth
from backend.api.auth import Visit
from backend.api.deps import ServerDep
from backend.api.errors import FormRefused

LONGEST = 4096  # bytes; ours have some 300

Fields = dict[str, str]


async def posted(request: Request, server: ServerDep) -> Fields:
    """The fields of a posted form, the first value of each; none of a body that is too long to be one of ours.

    Raises FormRefused when a browser says that another site has sent it.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc not in _ours(request, server):
        raise FormRefused(f"expected a form of this dashboard, got one from {origin[:80]!r}; open the dashboard itself")
    body = await request.body()
    fields = parse_qs(body.decode("utf-8", "replace")) if len(body) <= LONGEST else {}
    return {name: values[0] for name, values in fields.items()}


def own_form(
    request: Request, visit: Annotated[Visit, Depends(auth.operator)], fields: Annotated[Fields, Depends(posted)]
) -> Fields:
    """The fields of an operating form that a page of this very session holds.

    Raises NotSignedIn, ScopeTooSmall, and FormRefused without its token or its `Origin`.
    """
    genuine = secrets.compare_digest(fields.get("form", "").encode(), visit.form_token.encode())
    if not genuine or "origin" not in request.headers:
        raise FormRefused("expected a form of a page of this session; reload the page and try again")
    return fields


def _ours(request: Request, server: ServerDep) -> set[str]:
    """Hosts that browsers reach us by: the one of this request, and what the settings say of a proxy before us."""
    return {request.headers.get("host", ""), urlsplit(server.settings.public_url).netloc} - {""}
