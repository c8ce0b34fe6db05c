"""Views of what runs by itself: trainings from trigger to end, and how experts took to new pairs."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import aliased

from db.models import CanaryCheck, ModelPair, TrainingRun, Worker
from db.views import View

RUNS = View(
    "v_runs",
    "a training run, from what began it to its end",
    select(
        TrainingRun.id.label("run_id"),
        TrainingRun.role,
        TrainingRun.trigger,
        TrainingRun.detail.label("why"),
        TrainingRun.status,
        TrainingRun.stage,
        TrainingRun.step,
        TrainingRun.steps,
        TrainingRun.message,
        Worker.name.label("worker"),
        TrainingRun.attempt.label("attempts"),
        TrainingRun.newest_revision_id,
        TrainingRun.version_id,
        TrainingRun.error,
        TrainingRun.retry_of,
        TrainingRun.created_at.label("asked_at"),
        TrainingRun.started_at,
        TrainingRun.ends_at,
        TrainingRun.finished_at,
    )
    .select_from(TrainingRun)
    .outerjoin(Worker, Worker.id == TrainingRun.worker_id),
    ("run_id",),
    {
        "run_id": "number of the run",
        "status": "queued, running, succeeded (whatever the gate said), failed or cancelled",
        "newest_revision_id": "it learns from labels up to this revision",
        "version_id": "the version it made; NULL: none yet",
    },
)

_before = aliased(ModelPair)

CANARIES = View(
    "v_canaries",
    "a comparison of what experts correct: a new pair beside the one before it, in fields drawn at random",
    select(
        CanaryCheck.id.label("check_id"),
        CanaryCheck.created_at.label("checked_at"),
        ModelPair.name.label("pair"),
        _before.name.label("predecessor"),
        CanaryCheck.kind,
        CanaryCheck.verdict,
        CanaryCheck.reasons,
        CanaryCheck.numbers,
    )
    .select_from(CanaryCheck)
    .join(ModelPair, ModelPair.id == CanaryCheck.pair_id)
    .join(_before, _before.id == CanaryCheck.predecessor_id),
    ("check_id",),
    {"kind": "replayed: by answers already there, before it serves; live: by answers to the new pair itself"},
)

VIEWS = (RUNS, CANARIES)
