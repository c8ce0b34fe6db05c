"""What a schedule says, and how far its triggers are: for people who wonder when the next retraining comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from al_loop import cron
from al_loop.trigger import cools_until, due, trained_until, trigger_config, weighted_count
from backend.settings import Settings
from db import drift, labels, runs, schedules
from db.answers import serving_pair
from db.models import TrainingRun, now


@dataclass(frozen=True)
class Outlook:
    """A role's triggers now. new_cells: reviewed infected and difficult cells by label since the last training.

    drift: what the newest check of the serving pair found, None before the first. due: what would open a run now.
    """

    role: str
    retrain_after: float | None
    cron: str | None
    cooldown_s: float
    on_drift: bool
    set_by: str | None
    set_at: datetime | None
    new_cells: dict[str, int]
    weighted: float
    next_cron: datetime | None
    cooldown_left_s: float
    last_run: dict[str, Any] | None
    drift: dict[str, Any] | None
    due: list[str]

    def to_json(self) -> dict[str, Any]:
        """Everything, moments as ISO 8601."""
        return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in asdict(self).items()}

    def lines(self) -> dict[str, str]:
        """The same for a person."""
        worth = (
            f"{self.weighted:g} of {self.retrain_after:g}" if self.retrain_after else f"{self.weighted:g}, no matter"
        )
        cells = ", ".join(f"{n} {label}" for label, n in self.new_cells.items() if n) or "none"
        who = f"{self.set_by} at {self.set_at:%Y-%m-%d %H:%M} UTC" if self.set_at else "the settings"
        return {
            "role": self.role,
            "set by": who,
            "new reviewed cells": f"{worth} ({cells})",
            "cron": f"{self.cron}, next {self.next_cron:%Y-%m-%d %H:%M} UTC" if self.next_cron else "never",
            "on drift": f"{'yes' if self.on_drift else 'never'}; {drift_in_words(self.drift)}",
            "cooldown": f"{self.cooldown_s:g} s, {self.cooldown_left_s:.0f} s left",
            "last run": run_in_words(self.last_run),
            "due now": " and ".join(self.due) or "nothing",
        }


def outlook(session: Session, settings: Settings, role: str, at: datetime | None = None) -> Outlook:
    """Where this role's triggers stand at a moment (now, when not given)."""
    at = at or now()
    row = schedules.schedule_of(session, role)
    config = trigger_config(session, settings, role)
    counts = labels.new_infected_since(session, trained_until(session, role))
    last, pair = runs.latest(session, role), serving_pair(session)
    check = drift.newest_check(session, pair.id) if pair is not None else None
    return Outlook(
        role=role,
        retrain_after=config.threshold,
        cron=config.cron,
        cooldown_s=config.cooldown_s,
        on_drift=config.on_drift,
        set_by=None if row is None else row.set_by,
        set_at=None if row is None else row.created_at,
        new_cells=counts,
        weighted=weighted_count(counts, config),
        next_cron=None if config.cron is None else cron.following(config.cron, at),
        cooldown_left_s=max(((cools_until(last, config) or at) - at) / timedelta(seconds=1), 0.0),
        last_run=None if last is None else _run(last),
        drift=None
        if check is None
        else {"drifted": check.drifted, "reasons": check.reasons, "at": check.created_at.isoformat()},
        due=list(due(session, role, config, at) or {}),
    )


def _run(run: TrainingRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": run.status.value,
        "because": [why_in_words(name, run.detail.get(name, {})) for name in run.detail.get("triggers", [run.trigger])],
        "opened": run.created_at.isoformat(),
        "finished": None if run.finished_at is None else run.finished_at.isoformat(),
        "note": run.error or run.message,
    }


def run_in_words(run: Mapping[str, Any] | None) -> str:
    """A run of an outlook in one line."""
    if run is None:
        return "none"
    return f"{run['id']}, {run['status']}: {' and '.join(run['because'])}" + (f"; {run['note']}" if run["note"] else "")


def why_in_words(trigger: str, why: Mapping[str, Any]) -> str:
    """What called for a run in a few words: an entry of its detail."""
    if trigger == "reviews" and why:
        return f"reviews worth {why['weighted']:g} of {why['threshold']:g}"
    if trigger == "cron" and why:
        return f"cron {why['cron']} at {why['time'][:16].replace('T', ' ')}"
    if trigger == "drift" and why:
        return f"drift ({'; '.join(why['reasons'])})"
    return f"{trigger} ({why['why']})" if why.get("why") else trigger


def drift_in_words(check: Mapping[str, Any] | None) -> str:
    """The newest drift check of an outlook in one line."""
    if check is None:
        return "not checked yet"
    found = "; ".join(check["reasons"]) or "nothing to compare"
    return f"{'drifted' if check['drifted'] else 'no drift'} at {check['at'][:16].replace('T', ' ')}: {found}"
