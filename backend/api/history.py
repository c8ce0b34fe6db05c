"""`GET /api/v1/history/<question>`: the record's questions, a page at a time.

One route per question, with its filters as query parameters. `next` of an answer is the `cursor` of the next page.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from backend.api import auth
from backend.api.conditional import json_response
from backend.api.deps import Server, ServerDep
from backend.api.refusals import refusals
from backend.history.questions import QUESTIONS
from db import versions
from db.history import Filter, Question, moment

router = APIRouter(prefix="/api/v1", dependencies=[Depends(auth.reader)])

ROWS = 100
MOST_ROWS = 1000
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="most rows of this page")]
Cursor = Annotated[str | None, Query(max_length=4000, description="`next` of the page before")]


class Page(BaseModel):
    """Rows of an answer, and where the next page begins."""

    rows: list[dict[str, Any]]
    next: str | None = Field(description="the next page's cursor; null: this was the last")


# Beside 200; the descriptions are what a client sees.
REFUSALS = refusals(401, 404, 422) | {304: {"description": "what the request's If-None-Match names is still so"}}
# As both engines have it: whole numbers of 32 bits, texts without control characters.
WHOLE: dict[str, Any] = {"ge": -(2**31), "le": 2**31 - 1}
MOMENT: dict[str, Any] = {"max_length": 64, "json_schema_extra": {"format": "date-time"}}
TEXT: dict[str, Any] = {"max_length": 255, "pattern": r"^[^\x00-\x1f\x7f]*$"}


def _route(question: Question) -> Callable[..., Response]:
    def answer(request: Request, server: Server, limit: int, cursor: str | None, **given: Any) -> Response:
        moments = {each.name for each in question.filters if each.kind is datetime}
        asked = {n: moment(value) if n in moments and value is not None else value for n, value in given.items()}
        with server.database.session(read_only=True) as session:
            return json_response(request, question.ask(session, asked, limit=limit, cursor=cursor).to_json())

    fixed: list[tuple[str, Any, Any]] = [
        ("request", Request, inspect.Parameter.empty),
        ("server", ServerDep, inspect.Parameter.empty),
        ("limit", Limit, ROWS),
        ("cursor", Cursor, None),
    ]
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, kind, default in fixed
    ] + [_parameter(each) for each in question.filters]
    answer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    answer.__doc__ = f"{question.about}\n\nColumns: {', '.join(question.types())}. SQL view: {question.view_name}."
    return answer


def _parameter(each: Filter) -> inspect.Parameter:
    kind: Any = str if each.kind is datetime else each.kind  # read by ourselves: a day alone is a moment, too
    limits = {datetime: MOMENT, str: TEXT, int: WHOLE}.get(each.kind, {})
    about = Query(description=each.about, **limits)
    annotation = Annotated[kind, about] if each.required else Annotated[kind | None, about]
    default = inspect.Parameter.empty if each.required else None
    return inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


for _question in QUESTIONS:
    router.get(f"/history/{_question.name}", response_model=Page, responses=REFUSALS)(_route(_question))


@router.get("/history/manifest", responses=REFUSALS)
def manifest(
    request: Request, server: ServerDep, version: Annotated[int, Query(description="model version", **WHOLE)]
) -> Response:
    """Exactly what a model version was trained on: images with their labels of then."""
    with server.database.session(read_only=True) as session:
        found = versions.get(session, version)
        return json_response(request, {"sha256": found.manifest_sha256, "manifest": found.manifest})
