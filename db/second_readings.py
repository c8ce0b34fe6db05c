"""Labels that somebody else should read: difficult ones, suspicious ones, and those two experts read differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.images import by_ids
from db.labels import current_revisions
from db.models import Action, Image, LabelRevision, PredictedCell, Prediction, Review, Split, Suspicion
from db.reviews import IMPORT_EXPERT

MOST = 2000  # suspicions looked at, the strongest first
READERS = 3  # a cell that three experts have read is decided by what there is


@dataclass(frozen=True)
class Question:
    """One label to be read again.

    kind: difficult | disagreement | label | overlooked | misplaced. label: the current one, None for "not a cell".
    predicted: what the pair calls it. readers: experts who have answered, for whom it is not. score: 0 to 1.
    """

    cell_id: int
    image_id: int
    predicted_cell_id: int | None
    kind: str
    label: str | None
    predicted: str | None
    readers: tuple[str, ...]
    score: float
    reason: str


def questions(session: Session, pair_id: int, among: Sequence[int] | None = None) -> list[Question]:
    """Every label of the train split that is in doubt and has not been read by enough experts yet.

    among: only about these cells.
    """
    current = current_revisions().subquery("current")
    difficult = select(LabelRevision.cell_id).where(LabelRevision.label == "difficult").distinct()
    hard = (
        select(LabelRevision.cell_id, LabelRevision.image_id, LabelRevision.label)
        .join(current, current.c.id == LabelRevision.id)
        .join(Image, Image.id == LabelRevision.image_id)
        .where(Image.split == Split.train, LabelRevision.cell_id.in_(difficult))
    )
    suspicious = (
        select(LabelRevision.cell_id, LabelRevision.image_id, LabelRevision.label, Suspicion)
        .join(Suspicion, Suspicion.revision_id == LabelRevision.id)
        .join(current, current.c.id == LabelRevision.id)
        .join(Image, Image.id == LabelRevision.image_id)
        .where(Image.split == Split.train)
        .order_by(Suspicion.score.desc(), Suspicion.id)
        .limit(MOST)
    )
    if among is not None:
        hard = hard.where(LabelRevision.cell_id.in_(list(among)))
        suspicious = suspicious.where(LabelRevision.cell_id.in_(list(among)))
    found: dict[int, tuple[Any, ...]] = {}
    for cell_id, image_id, label, suspicion in session.execute(suspicious):
        found.setdefault(cell_id, (image_id, label, suspicion.kind, suspicion.score, suspicion.reason))
    for cell_id, image_id, label in session.execute(hard):
        if label == "difficult":
            found[cell_id] = (image_id, label, "difficult", 1.0, "An expert could not decide")
    for cell_id, image_id, label in _disputed(session, among):
        found.setdefault(cell_id, (image_id, label, "disagreement", 1.0, "Two experts read it differently"))
    readers = readers_of(session, list(found))
    predicted = _predicted(session, pair_id, list(found))
    result = []
    for cell_id, (image_id, label, kind, score, reason) in found.items():
        read_by = readers.get(cell_id, [])
        if len(read_by) >= (READERS if kind == "disagreement" else 2):
            continue
        predicted_id, says = predicted.get(cell_id, (None, None))
        known = tuple(name for name in read_by if name != IMPORT_EXPERT)
        result.append(Question(cell_id, image_id, predicted_id, kind, label, says, known, float(score), reason))
    return sorted(result, key=lambda question: (-question.score, question.cell_id))


def _answers(session: Session, cell_ids: Sequence[int] | None) -> list[tuple[int, int, str | None, str]]:
    """(cell_id, image_id, label, expert) of every live answer, oldest first; of all cells read twice when None."""
    last = select(func.max(LabelRevision.id)).group_by(LabelRevision.cell_id, LabelRevision.thread)
    query = (
        select(LabelRevision.cell_id, LabelRevision.image_id, LabelRevision.label, Review.expert)
        .join(Review, Review.id == LabelRevision.review_id)
        .where(LabelRevision.id.in_(last), LabelRevision.action != Action.withdrawn)
        .order_by(LabelRevision.decided_at, LabelRevision.id)
    )
    if cell_ids is not None:
        parts = (session.execute(query.where(LabelRevision.cell_id.in_(ids))) for ids in chunks(cell_ids))
        return [(cell, image, label, expert) for part in parts for cell, image, label, expert in part]
    twice = (
        select(LabelRevision.cell_id)
        .group_by(LabelRevision.cell_id)
        .having(func.count(LabelRevision.thread.distinct()) > 1)
    )
    rows = session.execute(query.where(LabelRevision.cell_id.in_(twice)))
    return [(cell, image, label, expert) for cell, image, label, expert in rows]


def readers_of(session: Session, cell_ids: Sequence[int]) -> dict[int, list[str]]:
    """Who has a live answer about each cell, an import as `IMPORT_EXPERT`, oldest first, nobody twice."""
    found: dict[int, list[str]] = {}
    for cell_id, _image_id, _label, expert in _answers(session, cell_ids):
        readers = found.setdefault(cell_id, [])
        if expert not in readers:
            readers.append(expert)
    return found


def _disputed(session: Session, among: Sequence[int] | None) -> list[tuple[int, int, str | None]]:
    """(cell, image, newest label) of cells of the train split that different experts read differently."""
    said: dict[int, dict[str, str | None]] = {}
    where: dict[int, tuple[int, str | None]] = {}
    for cell_id, image_id, label, expert in _answers(session, among):
        said.setdefault(cell_id, {})[expert] = label
        where[cell_id] = (image_id, label)
    apart = [
        (cell_id, *where[cell_id])
        for cell_id, answers in said.items()
        if len(set(answers.values())) > 1 and IMPORT_EXPERT not in answers
    ]
    splits = {image_id: image.split for image_id, image in by_ids(session, [each[1] for each in apart]).items()}
    return [each for each in apart if splits[each[1]] == Split.train]


def _predicted(session: Session, pair_id: int, cell_ids: Sequence[int]) -> dict[int, tuple[int, str]]:
    """(predicted cell, class) by cell, as this pair sees it."""
    found: dict[int, tuple[int, str]] = {}
    for ids in chunks(cell_ids):
        rows = session.execute(
            select(PredictedCell.cell_id, PredictedCell.id, PredictedCell.label)
            .join(Prediction, Prediction.id == PredictedCell.prediction_id)
            .where(Prediction.pair_id == pair_id, PredictedCell.cell_id.in_(ids))
        )
        found |= {cell_id: (predicted_id, label) for cell_id, predicted_id, label in rows}
    return found


def chunks(values: Sequence[int], size: int = 500) -> list[list[int]]:
    """The values, so many at a time: engines limit the number of parameters of a statement."""
    wanted = sorted(set(values))
    return [wanted[start : start + size] for start in range(0, len(wanted), size)]
