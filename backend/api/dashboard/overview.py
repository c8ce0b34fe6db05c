"""`/dashboard`: what to see in the morning."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api.dashboard.queue_items import head
from backend.api.dashboard.view import render
from backend.api.deps import ServerDep
from backend.api.live import present

router = APIRouter()

SHOWN = 6  # items of the queue


@router.get("")
def overview(request: Request, server: ServerDep) -> HTMLResponse:
    """The page."""
    with server.database.session(read_only=True) as session:
        return render(request, "overview.html.j2", live=present(session), items=head(session, SHOWN))
