"""When a role is retrained: enough new reviewed cells, a cron time, drift, or a person. Whatever calls, one run.

An automatic call waits for the cooldown, a person's does not. A run's `detail` names all that called for it
(`db.schedules.detail_of`). Calls that come while it is open are added there, and no other run follows.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from al_loop import cron
from al_loop.context import Loop
from al_loop.retrain import training_config
from backend.settings import Settings
from db import drift, labels, runs, schedules
from db.answers import serving_pair
from db.models import RunStatus, TrainingRun, now
from db.schedules import Calls, detail_of

log = logging.getLogger("cellloop.trigger")

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
    """threshold: weighted count of new reviewed cells that starts a retraining. cooldown_s: least time between two.

    cron: five fields, UTC. None for either: never for that.
    """

    threshold: float | None = 25.0
    cooldown_s: float = 3600.0
    cron: str | None = None
    on_drift: bool = True
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))


def trigger_config(session: Session, settings: Settings, role: str) -> TriggerConfig:
    """What `cellloop schedule set` said last about this role; before that, what the settings say.

    By the settings `infected` is retrained for reviews and drift, and `all_cells` only when somebody asks.
    """
    row = schedules.schedule_of(session, role)
    if row is not None:
        return TriggerConfig(row.retrain_after, row.cooldown_s, row.cron, row.on_drift)
    by_itself = role == "infected"
    return TriggerConfig(settings.retrain_after if by_itself else None, settings.retrain_cooldown_s, None, by_itself)


def weighted_count(counts: Mapping[str, int], config: TriggerConfig) -> float:
    """What `counts` (new reviewed cells per label) are worth; labels without a weight are worth nothing."""
    return sum(config.weights.get(label, 0.0) * n for label, n in counts.items())


def cools_until(last: TrainingRun | None, config: TriggerConfig) -> datetime | None:
    """Until when no run opens by itself; None before the first. A failed run cools down, too, or it would fail on."""
    if last is None:
        return None
    return (last.finished_at or last.updated_at) + timedelta(seconds=config.cooldown_s)


def cooled_down(last: TrainingRun | None, config: TriggerConfig, at: datetime) -> bool:
    """Whether the last run ended long enough ago."""
    until = cools_until(last, config)
    return until is None or (last is not None and last.status not in runs.OPEN and at >= until)


def trained_until(session: Session, role: str) -> int:
    """The newest label revision that a finished training of `role` has already seen; 0 before the first."""
    last = runs.latest(session, role, RunStatus.succeeded)
    return last.newest_revision_id if last is not None else 0


def calls(session: Session, role: str, config: TriggerConfig, at: datetime) -> Calls:
    """What calls for a retraining now, whatever the cooldown says."""
    seen = trained_until(session, role)
    found: Calls = {}
    if config.threshold is not None:
        counts = labels.new_infected_since(session, seen)
        worth = weighted_count(counts, config)
        if worth >= config.threshold:
            found["reviews"] = {"new_cells": counts, "weighted": worth, "threshold": config.threshold}
    return found | timed_calls(session, role, config, at, seen)


def timed_calls(session: Session, role: str, config: TriggerConfig, at: datetime, seen: int) -> Calls:
    """A cron time or a drift check that no run has answered yet, and that new labels could answer.

    seen: the newest revision that was trained on. Without a newer one, training would only give the same version
    again: that cron time passes, and the drift waits for labels.
    """
    found: Calls = {}
    since = schedules.cron_since(session, role) if config.cron is not None else None
    if config.cron is not None and since is not None:
        time = cron.latest(config.cron, at)  # those missed before it are answered with it
        # A clock that jumps back comes to the same time again: it is not later than what was answered.
        if time > max(since, schedules.last_cron_time(session, role) or since) and schedules.has_labels_since(
            session, seen, time
        ):
            found["cron"] = {"time": time.isoformat(), "cron": config.cron}
    pair = serving_pair(session) if config.on_drift else None
    check = drift.newest_check(session, pair.id) if pair is not None else None
    new = check is not None and check.drifted and check.id > schedules.last_drift_check(session, role)
    if check is not None and new and schedules.has_labels_since(session, seen):
        found["drift"] = {"check": check.id, "reasons": check.reasons}
    return found


def due(session: Session, role: str, config: TriggerConfig, at: datetime | None = None) -> Calls | None:
    """What calls for a retraining that may begin now, None while nothing does or the last run has not cooled down."""
    at = at or now()
    if not cooled_down(runs.latest(session, role), config, at):
        return None
    return calls(session, role, config, at) or None


def open_when_due(loop: Loop, role: str, at: datetime | None = None) -> int | None:
    """Open a run when one is due; its id. None when nothing calls, or a run is open: that one answers the call.

    Any number of workers may ask at the same time: one of them gets the run.
    """
    at = at or now()
    with loop.database.session(read_only=True) as session:  # most times nothing is due, and nobody is kept waiting
        config = trigger_config(session, loop.settings, role)
        run = runs.open_of(session, role)
        if run is None and due(session, role, config, at) is None:
            return None
        if run is not None and not timed_calls(session, role, config, at, trained_until(session, role)):
            return None
    with loop.database.session() as session:
        schedules.hold(session, role)  # what we see as unanswered, nobody answers meanwhile
        run = runs.open_of(session, role)
        if run is not None:
            _note(session, run, timed_calls(session, role, config, at, trained_until(session, role)), at)
            return None
        found = due(session, role, config, at)
        return None if found is None else _open(session, loop, role, found)


def ask_for_retraining(
    loop: Loop, why: str, role: str = "infected", trigger: str = "person", at: datetime | None = None
) -> int | None:
    """Queue a retraining for the worker because somebody wants one; its run. No cooldown keeps it.

    None when one is open already, which then notes the wish. trigger: person | label-studio.
    """
    at = at or now()
    wish: Calls = {trigger: {"why": why}}
    with loop.database.session() as session:
        schedules.hold(session, role)
        run = runs.open_of(session, role)
        if run is not None:
            _note(session, run, wish, at)
            return None
        return _open(session, loop, role, wish | calls(session, role, trigger_config(session, loop.settings, role), at))


def _open(session: Session, loop: Loop, role: str, found: Calls) -> int | None:
    config = asdict(training_config(loop.settings, role))
    run = runs.open_run(session, role, next(iter(found)), detail_of(found), config)
    if run is None:
        return None
    log.info("training run %d of %s opened by %s", run.id, role, " and ".join(found))
    return run.id


def _note(session: Session, run: TrainingRun, found: Calls, at: datetime) -> None:
    if found:
        schedules.note_calls(session, run.id, found, at)
        log.info("training run %d answers %s, too", run.id, " and ".join(found))
