"""Labels that somebody else should read: difficult ones, suspicious ones, and those two experts read differently."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, cast, func, literal, select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.difficult import DIFFICULT, Doubt, difficult_cells
from db.labels import last_revisions
from db.models import Action, Cell, Image, LabelRevision, PredictedCell, Prediction, Review, ReviewStatus, Split, Way
from db.readings import live_readings
from db.reviews import IMPORT_EXPERT
from db.suspicions import open_suspicions

AGREEMENT = "agreement"  # the kind of question that doubts nothing
READERS = 3  # a cell that three experts have read is decided by what there is


@dataclass(frozen=True)
class Question:
    """One label to be read again.

    kind: difficult | disagreement | agreement, or that of a suspicion. label: the current one, None for "not a cell"
    and for an overlooked cell. predicted: what the pair calls it. readers: experts who have answered, for whom it is
    not. score: 0 to 1.
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

    among: only about these cells. The strongest doubt first; a cell is asked about once.
    """
    found: dict[int, tuple[int, str, str | None, float, str]] = {}
    for cell in difficult_cells(session, Doubt.open, among=among):
        found[cell.cell_id] = (cell.image_id, "difficult", DIFFICULT, 1.0, "An expert could not decide")
    for cell_id, image_id, label in disputed(session, among):
        found.setdefault(cell_id, (image_id, "disagreement", label, 1.0, "Two experts read it differently"))
    for suspicion, label in open_suspicions(session, among):
        said = (suspicion.image_id, suspicion.kind, label, suspicion.score, suspicion.reason)
        found.setdefault(suspicion.cell_id, said)
    readings = live_readings(session, found)
    fields = _field_readers(session, {image for image, kind, *_ in found.values() if kind == "overlooked"})
    predicted = _predicted(session, pair_id, list(found))
    result = []
    for cell_id, (image_id, kind, label, score, reason) in found.items():
        # An import is no reader of ours, but with one expert's answer beside it the label has been read twice.
        said_by = {reading.expert for reading in readings.get(cell_id, [])}
        if len(said_by) >= (READERS if kind == "disagreement" else 2):
            continue
        readers = (said_by | fields.get(image_id, set()) if kind == "overlooked" else said_by) - {IMPORT_EXPERT}
        predicted_id, says = predicted.get(cell_id, (None, None))
        result.append(
            Question(cell_id, image_id, predicted_id, kind, label, says, tuple(sorted(readers)), score, reason)
        )
    return sorted(result, key=lambda question: (-question.score, question.cell_id))


def fair_sample(session: Session, pair_id: int, count: int) -> list[Question]:
    """Cells one expert has read and nobody doubts, for measuring how far experts agree: as many of each label.

    The same cells until they are read, and by an order that has to do with nothing (Knuth's multiplicative hash).
    """
    scattered = (cast(LabelRevision.cell_id, BigInteger) * literal(2654435761, BigInteger)) % literal(
        4294967296, BigInteger
    )
    once = (
        select(
            LabelRevision.cell_id,
            func.min(LabelRevision.image_id).label("image_id"),
            func.min(LabelRevision.label).label("label"),
            func.min(Review.expert).label("expert"),
            func.min(scattered).label("place"),
        )
        .join(Review, Review.id == LabelRevision.review_id)
        .join(Image, Image.id == LabelRevision.image_id)
        .where(
            LabelRevision.id.in_(last_revisions()), LabelRevision.action != Action.withdrawn, Image.split == Split.train
        )
        .group_by(LabelRevision.cell_id)
        .having(func.count(Review.expert.distinct()) == 1)
        .subquery("once")
    )
    nth = func.row_number().over(partition_by=once.c.label, order_by=once.c.place)
    query = (
        select(once.c.cell_id, once.c.image_id, once.c.label, once.c.expert)
        .where(once.c.expert != IMPORT_EXPERT, once.c.label.is_not(None), once.c.label != DIFFICULT)
        .order_by(nth, once.c.place)
        .limit(count)
    )
    rows = session.execute(query).all()
    predicted = _predicted(session, pair_id, [row.cell_id for row in rows])
    found = []
    for cell_id, image_id, label, expert in rows:
        predicted_id, says = predicted.get(cell_id, (None, None))
        why = "To know how far experts agree"
        found.append(Question(cell_id, image_id, predicted_id, AGREEMENT, label, says, (expert,), 0.0, why))
    return found


def disputed(session: Session, among: Collection[int] | None = None) -> list[tuple[int, int, str | None]]:
    """(cell, image, current label) of cells of the train split that our experts read differently."""
    if among is None:
        twice = (
            select(LabelRevision.cell_id)
            .group_by(LabelRevision.cell_id)
            .having(func.count(LabelRevision.thread.distinct()) > 1)
        )
        among = list(session.scalars(twice))
    apart = {}
    for cell_id, readings in live_readings(session, among).items():
        answers = {reading.expert: reading.label for reading in readings if not reading.imported}
        if len(set(answers.values())) > 1:
            apart[cell_id] = readings[-1].label
    where: dict[int, int] = {}
    for chunk in chunks(apart):
        query = select(Cell.id, Cell.image_id).join(Image, Image.id == Cell.image_id)
        rows = session.execute(query.where(Cell.id.in_(chunk), Image.split == Split.train))
        where |= {cell_id: image_id for cell_id, image_id in rows}
    return [(cell_id, image_id, apart[cell_id]) for cell_id, image_id in sorted(where.items())]


def _field_readers(session: Session, image_ids: Collection[int]) -> dict[int, set[str]]:
    """Who has reviewed these images whole, and so has said by silence that there is nothing more."""
    found: dict[int, set[str]] = {}
    for chunk in chunks(image_ids):
        query = select(Review.image_id, Review.expert).where(
            Review.image_id.in_(chunk),
            Review.way == Way.field,
            Review.status == ReviewStatus.submitted,
        )
        for image_id, expert in session.execute(query):
            found.setdefault(image_id, set()).add(expert)
    return found


def _predicted(session: Session, pair_id: int, cell_ids: Sequence[int]) -> dict[int, tuple[int, str]]:
    """(predicted cell, class) by cell, as this pair sees it."""
    found: dict[int, tuple[int, str]] = {}
    for chunk in chunks(cell_ids):
        rows = session.execute(
            select(PredictedCell.cell_id, PredictedCell.id, PredictedCell.label)
            .join(Prediction, Prediction.id == PredictedCell.prediction_id)
            .where(Prediction.pair_id == pair_id, PredictedCell.cell_id.in_(chunk))
        )
        found |= {cell_id: (predicted_id, label) for cell_id, predicted_id, label in rows}
    return found
