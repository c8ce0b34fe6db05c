"""When a role is retrained without anybody asking, and which calls for it the runs so far have answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from db.models import Image, LabelRevision, Schedule, Split, TrainingRun

Calls = dict[str, dict[str, Any]]  # what calls for a retraining (reviews, cron, drift, person, ...) -> why


def add_schedule(
    session: Session,
    role: str,
    *,
    retrain_after: float | None,
    cron: str | None,
    on_drift: bool,
    cooldown_s: float,
    set_by: str,
) -> Schedule:
    """Append what counts for this role from now on."""
    row = Schedule(
        role=role,
        retrain_after=retrain_after,
        cron=cron,
        on_drift=on_drift,
        cooldown_s=cooldown_s,
        set_by=set_by,
    )
    session.add(row)
    session.flush()
    return row


def schedule_of(session: Session, role: str) -> Schedule | None:
    """What counts for this role: the newest row, None before the first."""
    return session.scalar(select(Schedule).where(Schedule.role == role).order_by(Schedule.id.desc()).limit(1))


def cron_since(session: Session, role: str) -> datetime | None:
    """Since when this role's cron times have counted without a break; None when there are none."""
    since = None
    current = schedule_of(session, role)
    for row in session.scalars(select(Schedule).where(Schedule.role == role).order_by(Schedule.id.desc())):
        if current is None or current.cron is None or row.cron != current.cron:
            break
        since = row.created_at
    return since


def hold(session: Session, role: str) -> None:
    """Be alone in deciding about this role's runs until the transaction ends. On SQLite, every writer is alone."""
    connection = session.connection()  # begins the transaction where there is none yet
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"cellloop.runs.{role}"})


def last_cron_time(session: Session, role: str) -> datetime | None:
    """The newest cron time that any run of this role has answered; None before the first."""
    # Whole minutes of UTC, all written alike: the greatest text is the latest time.
    time = TrainingRun.detail["answered"]["cron"].as_string()
    found = session.scalar(select(func.max(time)).where(TrainingRun.role == role))
    return None if found is None else datetime.fromisoformat(found).astimezone(UTC)


def last_drift_check(session: Session, role: str) -> int:
    """Id of the newest drift check that any run of this role has answered; 0 before the first."""
    check = TrainingRun.detail["answered"]["drift"].as_integer()
    return session.scalar(select(func.max(check)).where(TrainingRun.role == role)) or 0


def has_labels_since(session: Session, revision_id: int, until: datetime | None = None) -> bool:
    """Whether anything to train on was said after this revision, recorded by `until` when given."""
    query = select(LabelRevision.id).join(Image, Image.id == LabelRevision.image_id)
    query = query.where(LabelRevision.id > revision_id, Image.split == Split.train).limit(1)
    if until is not None:
        query = query.where(LabelRevision.recorded_at <= until)
    return session.scalar(query) is not None


def detail_of(calls: Calls) -> dict[str, Any]:
    """What a run that is opened for these calls keeps of them: {"triggers": names, name: why, ..., "answered": ...}."""
    return {"triggers": list(calls), **calls, "answered": _answered(calls)}


def note_calls(session: Session, run_id: int, calls: Calls, at: datetime) -> None:
    """Write into an open run's detail what else called for it meanwhile: it answers that, too."""
    query = select(TrainingRun).where(TrainingRun.id == run_id).with_for_update(key_share=True)
    run = session.scalars(query.execution_options(populate_existing=True)).one()
    meanwhile = [*run.detail.get("meanwhile", []), {"at": at.isoformat(timespec="seconds"), **calls}]
    answered = run.detail.get("answered", {}) | _answered(calls)
    run.detail = {**run.detail, "meanwhile": meanwhile, "answered": answered}
    session.flush()


def _answered(calls: Calls) -> dict[str, Any]:
    """The newest cron time and drift check among these calls: what never calls again."""
    keys = {"cron": "time", "drift": "check"}
    return {name: calls[name][key] for name, key in keys.items() if name in calls}
