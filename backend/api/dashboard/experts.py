"""`/dashboard/experts`: who labelled how much and how fast, and what experts think of the pre-annotation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api.dashboard.people_charts import corrections, labels_per_day
from backend.api.dashboard.view import render
from backend.api.deps import ServerDep
from backend.api.live import present
from db import overview

router = APIRouter()

DAYS = 30
PAIRS = 20


@router.get("/experts")
def experts(request: Request, server: ServerDep) -> HTMLResponse:
    """The page."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=DAYS - 1)
    with server.database.session(read_only=True) as session:
        return render(
            request,
            "experts.html.j2",
            live=present(session),
            days=DAYS,
            per_day=labels_per_day(overview.labels_per_day(session, since), today.date(), DAYS),
            work=overview.work(session, since),
            corrections=corrections(overview.corrections(session, PAIRS)),
        )
