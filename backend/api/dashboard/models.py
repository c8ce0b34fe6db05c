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
from backend.instances import ROLES
from db import evaluations, overview, versions
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
            serving=_serving(session),
        )


def _serving(session: Session) -> list[tuple[str, int, int | None]]:
    """Of each role that has one: the version that serves, and what a rollback would bring back."""
    serving = versions.active_ids(session)
    return [(role, serving[role], versions.replaced_by(session, serving[role])) for role in ROLES if role in serving]


def _calibration(session: Session) -> Chart:
    pair = serving_pair(session)
    measured = None if pair is None else evaluations.newest_evaluation(session, pair.id)
    return calibration(measured.report if measured else {}, pair.name if pair else "")
