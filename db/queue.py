"""The review queue: rankings, their cells, and the fields and cells that wait for an expert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.errors import IllegalTransition
from db.ids import give_ids
from db.models import (
    ITEM_TRANSITIONS,
    ItemStatus,
    PredictedCell,
    RankedCell,
    Ranking,
    ReviewItem,
    Slot,
    Way,
    now,
)


@dataclass(frozen=True)
class CellRank:
    """One cell's score in a ranking, every term of it, and the reason in words (cut at 255 characters)."""

    predicted_cell_id: int
    score: float
    terms: dict[str, Any]
    reason: str


@dataclass(frozen=True)
class QueueEntry:
    """A field's or a cell's place in the queue: the highest score first, with everything it is made of.

    readers: experts who have read it, for whom it is not.
    """

    image_id: int
    score: float
    terms: dict[str, Any]
    way: Way = Way.field
    slot: Slot = Slot.acquisition
    cell_id: int | None = None
    predicted_cell_id: int | None = None
    reason: str = ""
    readers: tuple[str, ...] = ()


def _cut(text: str) -> str:
    return text if len(text) <= 255 else text[:254] + "…"


def add_ranking(session: Session, pair_id: int, config: dict[str, Any]) -> Ranking:
    """Record one ordering of the pool by this pair."""
    ranking = Ranking(pair_id=pair_id, config=config)
    session.add(ranking)
    session.flush()
    return ranking


def next_ranking(session: Session) -> int:
    """A number no ranking has had so far: what is drawn at random for the next one is drawn by it."""
    return (session.scalar(select(func.max(Ranking.id))) or 0) + 1


def latest_ranking(session: Session) -> Ranking | None:
    """The newest ranking."""
    return session.scalar(select(Ranking).order_by(Ranking.id.desc()).limit(1))


def add_ranked_cells(session: Session, ranking_id: int, rows: Iterable[CellRank]) -> int:
    """Store the cells of a ranking; how many."""
    values = [
        {
            "ranking_id": ranking_id,
            "predicted_cell_id": row.predicted_cell_id,
            "score": float(row.score),
            "terms": row.terms,
            "reason": _cut(row.reason),
        }
        for row in rows
    ]
    if values:
        session.execute(insert(RankedCell), values)
    return len(values)


def replace_queue(session: Session, ranking_id: int, entries: Iterable[QueueEntry]) -> list[ReviewItem]:
    """Let these entries wait instead of what waited so far. Gives their items, in order.

    What waits already keeps its item, with today's score. What is in an expert's hands stays, in or out of the entries.
    """
    kept = {_place(item): item for item in _locked(session)}
    wanted = list(entries)
    named = {_place(entry) for entry in wanted}
    moment = now()
    for place, item in list(kept.items()):
        if place not in named and not in_hands(item, moment):
            _set_status(kept.pop(place), ItemStatus.superseded)
    session.flush()  # before the new ones: a field or a cell waits at most once
    items = []
    fresh = add_items(session, ranking_id, (entry for entry in wanted if _place(entry) not in kept))
    kept |= {_place(item): item for item in fresh}
    for entry in wanted:
        item = kept[_place(entry)]
        item.ranking_id, item.slot = ranking_id, entry.slot
        item.predicted_cell_id, item.readers = entry.predicted_cell_id, list(entry.readers)
        item.score, item.terms, item.reason = float(entry.score), entry.terms, _cut(entry.reason)
        items.append(item)
    session.flush()
    return items


def _place(item: ReviewItem | QueueEntry) -> tuple[Way, int]:
    return item.way, item.image_id if item.cell_id is None else item.cell_id


def in_hands(item: ReviewItem, moment: datetime) -> bool:
    """Whether somebody has it in hand at this moment."""
    return item.assigned_until is not None and item.assigned_until > moment


def _locked(session: Session) -> Sequence[ReviewItem]:
    query = select(ReviewItem).where(ReviewItem.status == ItemStatus.pending).order_by(ReviewItem.id)
    return session.scalars(query.with_for_update(key_share=True)).all()


def pending(session: Session, way: Way | None = None, most: int | None = None) -> Sequence[ReviewItem]:
    """What waits for an expert, the most valuable first; in this way of reviewing, and so many, when given."""
    query = select(ReviewItem).where(ReviewItem.status == ItemStatus.pending)
    if way is not None:
        query = query.where(ReviewItem.way == way)
    query = query.order_by(ReviewItem.score.desc(), ReviewItem.image_id, ReviewItem.id)
    return session.scalars(query.limit(most)).all()


@dataclass(frozen=True)
class Waiting:
    """How many items of one kind wait, how many of them somebody has in hand, and since when the oldest does."""

    way: Way
    slot: Slot
    items: int
    in_hand: int
    since: datetime


def waiting(session: Session, moment: datetime | None = None) -> list[Waiting]:
    """What waits at this moment (now), by way of reviewing and slot."""
    in_hand = case((ReviewItem.assigned_until > (moment or now()), 1), else_=0)
    query = (
        select(ReviewItem.way, ReviewItem.slot, func.count(), func.sum(in_hand), func.min(ReviewItem.created_at))
        .where(ReviewItem.status == ItemStatus.pending)
        .group_by(ReviewItem.way, ReviewItem.slot)
        .order_by(ReviewItem.way.desc(), ReviewItem.slot)
    )
    return [Waiting(way, slot, items, int(held), since) for way, slot, items, held, since in session.execute(query)]


def add_items(session: Session, ranking_id: int, entries: Iterable[QueueEntry]) -> list[ReviewItem]:
    """Let these entries wait, too, where their field or cell does not wait already."""
    wanted = list(entries)
    if not wanted:
        return []
    images = {entry.image_id for entry in wanted}
    waiting = {_place(item) for item in _locked(session) if item.image_id in images}
    fresh = [
        ReviewItem(
            ranking_id=ranking_id,
            way=entry.way,
            slot=entry.slot,
            image_id=entry.image_id,
            cell_id=entry.cell_id,
            predicted_cell_id=entry.predicted_cell_id,
            readers=list(entry.readers),
            score=float(entry.score),
            terms=entry.terms,
            reason=_cut(entry.reason),
        )
        for entry in wanted
        if _place(entry) not in waiting
    ]
    give_ids(session, fresh)
    session.add_all(fresh)
    session.flush()
    return fresh


def rescore(session: Session, scores: Mapping[int, tuple[float, dict[str, Any]]]) -> None:
    """Give waiting items another score with its terms, by item id, in one statement."""
    if scores:
        rows = [{"id": item_id, "score": float(score), "terms": terms} for item_id, (score, terms) in scores.items()]
        session.execute(update(ReviewItem), rows)


def _set_status(item: ReviewItem, status: ItemStatus) -> None:
    if status not in ITEM_TRANSITIONS[item.status]:
        raise IllegalTransition(f"review item {item.id} is {item.status.value}: it cannot become {status.value}")
    item.status = status
    item.closed_at = now()
    item.assigned_to = item.assigned_until = None


def close(session: Session, image_id: int, status: ItemStatus | str) -> ReviewItem | None:
    """An expert has answered (done) or skipped this field; None when it was not waiting.

    An answer is about all of its cells: those that waited for a first reading are done with it.
    """
    query = select(ReviewItem).where(ReviewItem.image_id == image_id, ReviewItem.status == ItemStatus.pending)
    waiting = session.scalars(query.with_for_update(key_share=True)).all()
    field = next((item for item in waiting if item.way == Way.field), None)
    cells = [item for item in waiting if item.way == Way.cell and item.slot != Slot.second_reading]
    for item in [*([field] if field else []), *(cells if status == ItemStatus.done else [])]:
        _set_status(item, ItemStatus(status))
    session.flush()
    return field


def close_cell(session: Session, cell_id: int, status: ItemStatus | str) -> ReviewItem | None:
    """An expert has answered (done) or skipped this cell; None when it was not waiting."""
    query = select(ReviewItem).where(
        ReviewItem.cell_id == cell_id, ReviewItem.way == Way.cell, ReviewItem.status == ItemStatus.pending
    )
    item = session.scalar(query.with_for_update(key_share=True))
    if item is not None:
        _set_status(item, ItemStatus(status))
        session.flush()
    return item


def reasons(session: Session, prediction_id: int) -> dict[int, tuple[float, str]]:
    """Cell id -> (score, reason) of a prediction's cells, in the newest ranking that saw them; empty before any."""
    cells = select(PredictedCell.id).where(PredictedCell.prediction_id == prediction_id)
    newest = select(func.max(RankedCell.ranking_id)).where(RankedCell.predicted_cell_id.in_(cells))
    query = (
        select(PredictedCell.cell_id, RankedCell.score, RankedCell.reason)
        .join(RankedCell, RankedCell.predicted_cell_id == PredictedCell.id)
        .where(PredictedCell.prediction_id == prediction_id)
        .where(RankedCell.ranking_id == newest.scalar_subquery())
    )
    return {cell_id: (score, reason) for cell_id, score, reason in session.execute(query)}


def terms_of(session: Session, ranking_id: int, predicted_cell_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The terms a ranking stored, by predicted cell; cells it did not list are absent."""
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks(predicted_cell_ids):
        query = select(RankedCell.predicted_cell_id, RankedCell.terms).where(
            RankedCell.ranking_id == ranking_id, RankedCell.predicted_cell_id.in_(chunk)
        )
        found |= {cell_id: terms for cell_id, terms in session.execute(query)}
    return found


def ranked_cells(session: Session, ranking_id: int) -> Sequence[RankedCell]:
    """All cells of a ranking, the most valuable first."""
    query = select(RankedCell).where(RankedCell.ranking_id == ranking_id)
    return session.scalars(query.order_by(RankedCell.score.desc(), RankedCell.id)).all()
