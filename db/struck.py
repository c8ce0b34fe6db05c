"""What columns of JSON and text keep about forgotten images: struck out, so that what is left still says what it was.

Only while the forgetting is not finished: the database refuses it otherwise (`db/guards.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db import forget
from db.chunks import chunks
from db.models import FrozenSplit, Import, InboxEvent, ModelVersion, Project, TrainingRun

STRUCK = "[forgotten]"


def strike(words: Iterable[str], said: str) -> str:
    """The text without these words, wherever they stand for themselves: P1 in "P1_03.png", not in "P12"."""
    for word in sorted(set(words), key=len, reverse=True):
        said = re.sub(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", STRUCK, said)
    return said


def manifest(session: Session, forgetting_id: int, version_id: int, hashes: Collection[str]) -> None:
    """In what a version was trained on, let each of these images say that it is forgotten, and nothing else.

    `manifest_sha256` stays: it says what was there, and the tombstone why it is not there any more.
    """
    version = session.scalars(select(ModelVersion).where(ModelVersion.id == version_id).with_for_update()).one()
    images = [
        {"sha256": image["sha256"], "forgotten": forgetting_id} if image["sha256"] in hashes else image
        for image in version.manifest.get("images", [])
    ]
    changed = sum(new != old for new, old in zip(images, version.manifest.get("images", []), strict=True))
    if changed:
        version.manifest = dict(version.manifest) | {"images": images}
        forget.count_more(session, forgetting_id, "images_in_manifests", changed)


def frozen_split_to_change(session: Session, name: str) -> FrozenSplit | None:
    """The frozen split of this name, held against other writers."""
    return session.scalar(select(FrozenSplit).where(FrozenSplit.name == name).with_for_update())


def set_frozen_split(session: Session, frozen: FrozenSplit, content: dict[str, Any], sha256: str) -> None:
    """Give a frozen split what is left of it."""
    frozen.content, frozen.sha256 = content, sha256
    session.flush()


def imports(session: Session, forgetting_id: int, words: Collection[str]) -> None:
    """Strike names out of where imports came from, and examples that name one out of their reports: the counts stay."""
    changed = 0
    for row in session.scalars(select(Import).with_for_update()):
        examples = row.report.get("examples", {})
        kept = {
            kind: [said if strike(words, said) == said else STRUCK for said in details]
            for kind, details in examples.items()
        }
        source = strike(words, row.source)
        if (source, kept) != (row.source, examples):
            row.source, row.report = source, dict(row.report) | {"examples": kept, "source": source}
            changed += 1
    session.flush()
    forget.count_more(session, forgetting_id, "imports", changed)


def errors_of_runs(session: Session, forgetting_id: int, words: Collection[str]) -> None:
    """Strike names of files out of what ended a training run."""
    changed = 0
    for run in session.scalars(select(TrainingRun).where(TrainingRun.error.is_not(None))):
        said = strike(words, run.error or "")
        if said != run.error:
            same = update(TrainingRun).where(TrainingRun.id == run.id)
            session.execute(same.values(error=said, updated_at=run.updated_at))  # nothing happened to the run
            changed += 1
    forget.count_more(session, forgetting_id, "errors_of_runs", changed)


def events_about(session: Session, tasks: Collection[tuple[int, int]]) -> list[int]:
    """Ids of the webhook calls that speak of one of these tasks (project id, Label Studio's task id)."""
    projects = {row.id: row.ls_project_id for row in session.scalars(select(Project))}
    wanted = {(projects[project_id], task_id) for project_id, task_id in tasks}
    rows = session.execute(select(InboxEvent.id, InboxEvent.payload).execution_options(yield_per=1000))
    return [
        event_id
        for event_id, payload in rows
        if not wanted.isdisjoint((payload.get("project"), task) for task in payload.get("tasks", ()))
    ]


def remove_events(session: Session, forgetting_id: int, event_ids: Collection[int]) -> None:
    """Remove webhook calls. They only wake the worker, so one that speaks of other tasks as well is no loss."""
    gone = 0
    for chunk in chunks(event_ids):
        gone += len(session.scalars(delete(InboxEvent).where(InboxEvent.id.in_(chunk)).returning(InboxEvent.id)).all())
    forget.count_more(session, forgetting_id, "inbox_events", gone)
