"""What the loop is doing right now, as one JSON object for people and programs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from backend.api import auth
from backend.api.deps import ServerDep
from backend.api.refusals import refusals
from backend.serving import active_pair
from db import images, labels, queue, runs
from db.models import TrainingRun

router = APIRouter(prefix="/api/v1", dependencies=[Depends(auth.reader)], responses=refusals(401))


@router.get("/status")
def status(server: ServerDep) -> dict[str, Any]:
    """Active pair, images per split, images waiting for an expert, live labels per class, open training runs."""
    row = active_pair(server.database)
    with server.database.session(read_only=True) as session:
        return {
            "pair": None
            if row is None
            else {"name": row.name, "all_cells": row.all_cells_id, "infected": row.infected_id},
            "images": images.counts(session),
            "pending_reviews": len(queue.pending(session)),
            "labels": labels.class_counts(session),
            "open_runs": [_run(run) for run in runs.all_open(session)],
        }


def _run(run: TrainingRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "role": run.role,
        "trigger": run.trigger,
        "status": run.status.value,
        "step": run.step,
        "steps": run.steps,
        "message": run.message,
        "created_at": run.created_at.isoformat(),
        "updated_at": run.updated_at.isoformat(),
    }
