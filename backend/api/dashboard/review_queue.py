"""`/dashboard/queue`: what waits for an expert, why, and since when."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api.dashboard.queue_items import SLOTS, head
from backend.api.dashboard.view import render
from backend.api.deps import ServerDep
from backend.api.live import present
from db import queue
from db.models import Way

router = APIRouter()

SHOWN = 24  # of each way of reviewing


@router.get("/queue")
def review_queue(request: Request, server: ServerDep) -> HTMLResponse:
    """The page."""
    with server.database.session(read_only=True) as session:
        return render(
            request,
            "queue.html.j2",
            live=present(session),
            waiting=queue.waiting(session),
            slots=SLOTS,
            cells=head(session, SHOWN, Way.cell),
            fields=head(session, SHOWN, Way.field),
        )
