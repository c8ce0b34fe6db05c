"""`/dashboard/experts`: who labelled how much and how fast, and what experts think of the pre-annotation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from backend.api.dashboard.people_charts import agreement_over_time, corrections, labels_per_day
from backend.api.dashboard.view import render
from backend.api.deps import ServerDep
from backend.api.live import present
from backend.history.agreement import ANSWERS, Readings, agreement
from db import overview
from db.double_readings import double_readings

router = APIRouter()

DAYS = 30
PAIRS = 20
NEWEST = 20_000  # answers whose cells agreement is told of
RESAMPLES = 200  # for its intervals: enough to see them, and a page does not wait


@router.get("/experts")
def experts(request: Request, server: ServerDep) -> HTMLResponse:
    """The page."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=DAYS - 1)
    with server.database.session(read_only=True) as session:
        readings = _readings(session)
        return render(
            request,
            "experts.html.j2",
            live=present(session),
            days=DAYS,
            per_day=labels_per_day(overview.labels_per_day(session, today.date(), DAYS), today.date(), DAYS),
            work=overview.work(session, since),
            corrections=corrections(overview.corrections(session, PAIRS)),
            agreement=agreement_over_time(agreement(readings, "week", RESAMPLES)),
            together=next(iter(agreement(readings, "all", RESAMPLES)), None),
            answers=ANSWERS,
        )


def _readings(session: Session) -> Readings:
    found = double_readings(session, newest=NEWEST)
    return Readings(
        [each.cell_id for each in found],
        [each.expert for each in found],
        [each.label for each in found],
        [each.decided_at for each in found],
    )
