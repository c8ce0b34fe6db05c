"""`/dashboard/smears`: parasitaemia per slide and patient."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api.dashboard.smear_counts import chart, counted, point
from backend.api.dashboard.view import Later, render
from backend.api.deps import ServerDep
from backend.api.live import present
from backend.instances import INFECTED
from db import overview
from db.answers import serving_pair

router = APIRouter()

SHOWN = 20  # slides


@router.get("/smears")
def smears(request: Request, server: ServerDep, before: Later | None = None) -> HTMLResponse:
    """The newest slides with their patients, and those before."""
    with server.database.session(read_only=True) as session:
        serving = serving_pair(session)
        pair = serving.name if serving else None
        newest = overview.newest_slides(session, SHOWN + 1, before)
        names = [name for name, _ in newest[:SHOWN]]
        patients = overview.patients_of(session, names)
        rows = overview.parasitaemia(session, overview.images_of(session, names, patients))
        slides = counted(rows, "slide", names, pair)
        return render(
            request,
            "smears.html.j2",
            live=present(session),
            slides=slides,
            patients=counted(rows, "patient", patients, pair),
            chart=chart(slides, pair),
            point=point,
            pair=pair,
            stages=INFECTED,
            before=before,
            more=newest[SHOWN - 1][1] if len(newest) > SHOWN else None,
        )
