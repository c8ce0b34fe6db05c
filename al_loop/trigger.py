"""When reviewed cells are enough for a retraining: so many new infected or difficult ones, the rare counting more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from al_loop.context import Loop
from al_loop.retrain import training_config
from backend.settings import Settings
from db import labels, runs
from db.models import RunStatus, TrainingRun, now

# BBBC041's training labels hold 1,473 trophozoites, 353 rings, 179 schizonts and 144 gametocytes; a cell's weight
# is the square root of how much rarer it is than the commonest stage, rounded: a first guess that a
# measurement of learning curves may replace.
WEIGHTS: dict[str, float] = {
    "trophozoite": 1.0,
    "ring": 2.0,
    "schizont": 3.0,
    "gametocyte": 3.0,
    "difficult": 0.5,
}


@dataclass(frozen=True)
class TriggerConfig:
    """threshold: weighted count of new reviewed cells that starts a retraining. cooldown_s: least time between two."""

    threshold: float = 25.0
    cooldown_s: float = 3600.0
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))


def trigger_config(settings: Settings) -> TriggerConfig:
    """What the installation's settings say about triggers."""
    return TriggerConfig(threshold=settings.retrain_after, cooldown_s=settings.retrain_cooldown_s)


def weighted_count(counts: Mapping[str, int], config: TriggerConfig) -> float:
    """What `counts` (new reviewed cells per label) are worth; labels without a weight are worth nothing."""
    return sum(config.weights.get(label, 0.0) * n for label, n in counts.items())


def cooled_down(last: TrainingRun | None, config: TriggerConfig, at: datetime) -> bool:
    """Whether the last run ended long enough ago. A failed run cools down too, or it would fail in a tight loop."""
    if last is None:
        return True
    if last.status in (RunStatus.queued, RunStatus.running):
        return False
    return at - (last.finished_at or last.updated_at) >= timedelta(seconds=config.cooldown_s)


def trained_until(session: Session, role: str) -> int:
    """The newest label revision that a finished training of `role` has already seen; 0 before the first."""
    last = runs.latest(session, role, RunStatus.succeeded)
    return last.newest_revision_id if last is not None else 0


def due(session: Session, role: str, config: TriggerConfig) -> dict[str, Any] | None:
    """The reason for a retraining as stored with the run, or None while there is none."""
    if not cooled_down(runs.latest(session, role), config, now()):
        return None
    counts = labels.new_infected_since(session, trained_until(session, role))
    worth = weighted_count(counts, config)
    if worth < config.threshold:
        return None
    return {"new_cells": counts, "weighted": worth, "threshold": config.threshold}


def ask_for_retraining(loop: Loop, why: str, role: str = "infected") -> int | None:
    """Queue a retraining for the worker because a person wants one; its run, None when one is open already."""
    config = asdict(training_config(loop.settings, role))
    with loop.database.session() as session:
        run = runs.open_run(session, role, "person", {"why": why}, config)
        return run.id if run is not None else None
