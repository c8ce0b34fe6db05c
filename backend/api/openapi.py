"""`GET /api/v1/openapi.json`: what this server offers, in OpenAPI's words, the routes that Label Studio calls included.

The dashboard's pages are for people and are not in it.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.openapi.utils import get_openapi

from backend.api import auth
from backend.api.conditional import json_response

router = APIRouter(prefix="/api/v1", dependencies=[Depends(auth.reader)])


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> Response:
    """The description."""
    return json_response(request, get_openapi(title="cellloop", version="1", routes=request.app.routes))
