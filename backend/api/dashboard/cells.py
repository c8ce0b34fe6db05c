"""`/dashboard/cells/<id>`: one cell, and everything that ever happened to it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api.dashboard.life import life_of_cell
from backend.api.dashboard.view import Id, render
from backend.api.deps import ServerDep
from backend.api.live import present
from db import cells, images, labels, overview

router = APIRouter()


@router.get("/cells/{cell_id}")
def cell(cell_id: Id, request: Request, server: ServerDep) -> HTMLResponse:
    """The page. Raises NotFound."""
    with server.database.session(read_only=True) as session:
        row = cells.get(session, cell_id)
        said = [live for live in labels.current_labels(session, [row.image_id]) if live.cell_id == cell_id]
        return render(
            request,
            "cell.html.j2",
            live=present(session),
            cell=row,
            image=images.get(session, row.image_id),
            said=said[0] if said else None,
            place=cells.place_of(session, cell_id),
            life=life_of_cell(overview.cell_events(session, cell_id)),
        )
