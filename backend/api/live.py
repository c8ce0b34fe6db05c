"""`GET /api/v1/live`: what changes by the second, cheap enough to be asked for all day."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from backend.api import auth
from backend.api.conditional import json_response
from backend.api.deps import ServerDep
from backend.api.refusals import refusals
from db import inbox, labels, queue, runs, versions, workers
from db.models import RunStatus, TrainingRun, Way

router = APIRouter(prefix="/api/v1", dependencies=[Depends(auth.reader)], responses=refusals(401))


@dataclass(frozen=True)
class OpenRun:
    """A training that is queued or running. progress: how far, in words."""

    id: int
    role: str
    status: str
    step: int
    steps: int
    progress: str
    trigger: str
    since: datetime


@dataclass(frozen=True)
class Live:
    """The present in few numbers. state: changes when anything but a run's progress did.

    workers: each living one with its queues. waiting: items in the queue by way of reviewing. in_hand: how many of them
    somebody has opened.
    """

    doing: str
    runs: list[OpenRun]
    workers: list[str]
    waiting: dict[str, int]
    in_hand: int
    state: str = field(default="")


@router.get("/live", responses={304: {"description": "nothing has changed"}})
def live(request: Request, server: ServerDep) -> Response:
    """Open trainings, counts of the queue and a `state` that tells when to read the rest again; 304 when unchanged."""
    with server.database.session(read_only=True) as session:
        now = asdict(present(session))
    return json_response(request, {**now, "runs": [{**run, "since": run["since"].isoformat()} for run in now["runs"]]})


def present(session: Session) -> Live:
    """What is going on now."""
    open_runs = [_open(run) for run in runs.all_open(session)]
    rows = queue.waiting(session)
    waiting = {way.value: sum(row.items for row in rows if row.way == way) for way in Way}
    in_hand = sum(row.in_hand for row in rows)
    newest = (labels.newest_revision_id(session), versions.newest_decision_id(session), queue.next_ranking(session))
    wish = inbox.asked(session)
    facts: tuple[Any, ...] = (
        newest, waiting, in_hand, [(run.id, run.status) for run in open_runs], None if wish is None else wish.id,
    )  # fmt: skip
    living = [f"{worker.name} ({', '.join(worker.queues)})" for worker in workers.living(session)]
    return Live(_doing(open_runs), open_runs, living, waiting, in_hand, _hash(repr((facts, living)).encode()))


def _open(run: TrainingRun) -> OpenRun:
    return OpenRun(run.id, run.role, run.status.value, run.step, run.steps, _progress(run), run.trigger, run.created_at)


def _progress(run: TrainingRun) -> str:
    if run.status == RunStatus.queued:
        return "waits for the worker"
    if not run.steps:
        return run.message or "has begun"
    share = f"step {run.step} of {run.steps} ({100 * run.step // run.steps} %)"
    ends = f", ends about {run.ends_at:%H:%M} UTC" if run.ends_at is not None else ""
    return (f"{share}: {run.message}" if run.message else share) + ends


def _share(run: OpenRun) -> str:
    return "queued" if run.status == RunStatus.queued else f"training, {100 * run.step // max(run.steps, 1)} %"


def _doing(open_runs: list[OpenRun]) -> str:
    if not open_runs:
        return "No training runs"
    return "; ".join(f"{run.role}: {_share(run)}" for run in open_runs)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]
