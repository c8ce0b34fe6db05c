"""Tombstones of forgotten patients: written first, they allow the removal, tell of it, and keep the images out.

Each function is one step of a forgetting (`al_loop/forget.py`) that leaves the record whole; repeated, it adds nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from db import removal
from db.chunks import chunks
from db.errors import ImageForgotten, NotFound, PatientInUse
from db.ids import HIGHEST, higher
from db.models import Forgetting, ForgottenImage, Image, Review, RunStatus, TrainingImage, TrainingRun, now

TASKS = "tasks"  # in `Forgetting.removed`: [project id, Label Studio's task id] of each, until they are gone there

ELSEWHERE = "tasks_left_elsewhere"  # in `Forgetting.removed`: how many are in a Label Studio we do not serve any more


def patient_sha256(patient: str) -> str:
    """What a tombstone keeps of a patient's id: enough to know it again."""
    return hashlib.sha256(patient.encode()).hexdigest()


# --- who is forgotten ----------------------------------------------------------------------------------------


def tombstones(session: Session, patient: str | None = None) -> Sequence[Forgetting]:
    """All forgettings, oldest first; of one patient when given."""
    query = select(Forgetting).order_by(Forgetting.id)
    if patient is not None:
        query = query.where(Forgetting.patient_sha256 == patient_sha256(patient))
    return session.scalars(query).all()


def images_of(session: Session, forgetting_ids: Collection[int]) -> Sequence[ForgottenImage]:
    """The images that these tombstones name."""
    query = select(ForgottenImage).where(ForgottenImage.forgetting_id.in_(forgetting_ids))
    return session.scalars(query.order_by(ForgottenImage.image_id)).all()


def forgotten(session: Session, hashes: Iterable[str]) -> dict[str, Forgetting]:
    """The forgetting of each of these images (sha256 of the file) that has one."""
    found: dict[str, Forgetting] = {}
    for chunk in chunks(hashes):
        query = select(ForgottenImage.sha256, Forgetting).join(
            Forgetting, Forgetting.id == ForgottenImage.forgetting_id
        )
        found.update((sha256, row) for sha256, row in session.execute(query.where(ForgottenImage.sha256.in_(chunk))))
    return found


def kept_out(session: Session) -> dict[str, int]:
    """The forgetting of every image that must not come back, by the sha256 of its file."""
    return {row.sha256: row.forgetting_id for row in session.scalars(select(ForgottenImage))}


def admit(session: Session, sha256: str) -> None:
    """Raises ImageForgotten when the image with this sha256 must not come in."""
    for row in forgotten(session, [sha256]).values():
        raise ImageForgotten(
            f"image {sha256[:12]}... belongs to a patient who was forgotten on {row.created_at:%Y-%m-%d} "
            f"(forgetting {row.id}): it stays out"
        )


def returned(session: Session, patients: Iterable[str]) -> list[str]:
    """Those of these patients who were forgotten and have images in the record all the same, by name."""
    known = {row.patient_sha256 for row in tombstones(session)}
    back = [patient for patient in patients if patient_sha256(patient) in known]
    found: list[str] = []
    for chunk in chunks(back):
        query = select(Image.patient).where(Image.patient.in_(chunk)).distinct().order_by(Image.patient)
        found.extend(patient for patient in session.scalars(query) if patient is not None)
    return found


# --- what is to go -------------------------------------------------------------------------------------------


def images(session: Session, patient: str) -> Sequence[Image]:
    """A patient's images that are still in the record, oldest first. Raises NotFound for one that nobody ever named."""
    found = session.scalars(select(Image).where(Image.patient == patient).order_by(Image.id)).all()
    if not found and not tombstones(session, patient):
        named = select(Image.patient).where(Image.patient.is_not(None)).distinct()
        number = session.scalar(select(func.count()).select_from(named.subquery())) or 0
        first = ", ".join(repr(name) for name in session.scalars(named.order_by(Image.patient).limit(5)))
        raise NotFound(
            f"expected a patient of the record, got {patient!r}; {number} are named"
            + (f", the first are {first}: give an id exactly as one of them" if number else ": imports tell who")
        )
    return found


def begin(session: Session, patient: str, reason: str, versions: Iterable[int]) -> None:
    """Write the tombstone of those of the patient's images that have none. Once it is committed, rows may go.

    versions: ids of versions that have learned from them, beside those whose training set lists them. Raises
    PatientInUse while a training uses them: it would record a version that nobody warned of.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE training_runs IN SHARE MODE"))  # SQLite has one writer anyway
    known = select(ForgottenImage.image_id)
    fresh = session.scalars(select(Image).where(Image.patient == patient, Image.id.not_in(known))).all()
    if not fresh:
        return
    ids = [image.id for image in fresh]
    _refuse_while_used(session, ids)
    learned = set(versions)
    for chunk in chunks(ids):
        learned.update(session.scalars(select(TrainingImage.version_id).where(TrainingImage.image_id.in_(chunk))))
    tombstone = Forgetting(patient_sha256=patient_sha256(patient), reason=reason, versions=sorted(learned), removed={})
    session.add(tombstone)
    session.flush()
    session.add_all(
        ForgottenImage(image_id=image.id, forgetting_id=tombstone.id, sha256=image.sha256, file=image.file)
        for image in fresh
    )
    session.flush()


def _refuse_while_used(session: Session, image_ids: Sequence[int]) -> None:
    """A run works with every image that was reviewed when it was opened: it trains, calibrates or is judged on it."""
    for run in session.scalars(select(TrainingRun).where(TrainingRun.status == RunStatus.running)):
        for chunk in chunks(image_ids):
            used = select(Review.id).where(Review.image_id.in_(chunk), Review.recorded_at <= run.created_at).limit(1)
            if session.scalar(used) is not None:
                raise PatientInUse(
                    f"expected no training that works with this patient's images, but run {run.id} ({run.role}) does; "
                    "nothing was removed: wait until it has ended, or cancel it"
                )


# --- removing ------------------------------------------------------------------------------------------------


def waiting(session: Session, forgetting_id: int) -> list[int]:
    """Ids of images that the tombstone names and that are still in the record."""
    named = select(ForgottenImage.image_id).where(ForgottenImage.forgetting_id == forgetting_id)
    return list(session.scalars(select(Image.id).where(Image.id.in_(named)).order_by(Image.id)))


def names(session: Session, forgetting_id: int) -> set[str]:
    """The names that images of this tombstone, still in the record, came with."""
    named = select(ForgottenImage.image_id).where(ForgottenImage.forgetting_id == forgetting_id)
    return set(session.scalars(select(Image.name).where(Image.id.in_(named))))


def remove_image(session: Session, forgetting_id: int, image_id: int) -> None:
    """Remove every row about one image, all at once, so that nobody ever meets half of it."""
    row = _locked(session, forgetting_id)
    if session.scalar(select(Image.id).where(Image.id == image_id).with_for_update()) is None:
        return
    tasks = [list(task) for task in removal.ls_tasks(session, image_id)]
    removed, highest = removal.remove(session, image_id)
    before = dict(row.removed)
    row.removed = before | {
        "rows": dict(Counter(before.get("rows", {})) + Counter(removed)),
        HIGHEST: higher(before.get(HIGHEST, {}), highest),
        TASKS: before.get(TASKS, []) + tasks,
    }
    session.flush()


def add_tasks(session: Session, forgetting_id: int, tasks: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """All tasks (project id, Label Studio's task id) that are to go there, with these ones that were found besides."""
    row = _locked(session, forgetting_id)
    every = sorted({(project_id, task_id) for project_id, task_id in row.removed.get(TASKS, [])} | set(tasks))
    row.removed = dict(row.removed) | {TASKS: [list(task) for task in every]}
    session.flush()
    return every


def count_more(session: Session, forgetting_id: int, what: str, number: int) -> None:
    """Note that more of something was removed or struck out."""
    if number:
        row = _locked(session, forgetting_id)
        row.removed = dict(row.removed) | {what: row.removed.get(what, 0) + number}
        session.flush()


def finish(session: Session, forgetting_id: int, project_ids: Collection[int]) -> None:
    """Nothing is left to remove: what was removed is final.

    project_ids: of the Label Studio that was asked. Tasks in another one are left to whoever runs it.
    """
    row = _locked(session, forgetting_id)
    if row.finished_at is None:
        removed = dict(row.removed)
        here = [project_id in project_ids for project_id, _ in removed.pop(TASKS, [])]
        removed |= {"label_studio_tasks": here.count(True), ELSEWHERE: here.count(False)}
        row.removed = removed | {"files": len(images_of(session, [forgetting_id]))}
        row.finished_at = now()
        session.flush()


def _locked(session: Session, forgetting_id: int) -> Forgetting:
    query = select(Forgetting).where(Forgetting.id == forgetting_id).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()
