"""`/dashboard/models`: what was trained, what it scored, and why it serves or does not."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from backend.api.dashboard.charts import Chart
from backend.api.dashboard.model_charts import calibration, learning_curve, per_class
from backend.api.dashboard.view import render
from backend.api.deps import ServerDep
from backend.api.live import present
from db import evaluations, overview
from db.answers import serving_pair

router = APIRouter()

SHOWN = 20  # versions, and evaluations


@router.get("/models")
def models(request: Request, server: ServerDep) -> HTMLResponse:
    """The page."""
    with server.database.session(read_only=True) as session:
        measured = overview.metrics(session, overview.newest_evaluations(session, SHOWN))
        return render(
            request,
            "models.html.j2",
            live=present(session),
            curve=learning_curve(measured),
            classes=per_class(measured),
            calibration=_calibration(session),
            decisions=overview.decisions(session, SHOWN),
            versions=overview.versions(session, SHOWN),
            runs=overview.runs(session, SHOWN),
        )


def _calibration(session: Session) -> Chart:
    pair = serving_pair(session)
    measured = None if pair is None else evaluations.newest_evaluation(session, pair.id)
    return calibration(measured.report if measured else {}, pair.name if pair else "")
