"""What the server answers with, for many images in a handful of statements.

Label Studio asks for up to thousands of tasks in one request; a query per image would be a query too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, select
from sqlalchemy.orm import Session, aliased

from db.chunks import chunks
from db.models import (
    Cell,
    Image,
    ItemStatus,
    ModelPair,
    ModelVersion,
    PredictedCell,
    Prediction,
    Project,
    RankedCell,
    Ranking,
    ReviewItem,
    Task,
    VersionStatus,
)


@dataclass(frozen=True)
class ServingPair:
    """The active versions and how they are fused; `name` is Label Studio's model_version."""

    id: int
    name: str
    all_cells_id: int
    all_cells_sha256: str
    infected_id: int
    infected_sha256: str
    fusion: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnsweredCell:
    """One predicted cell as an expert will see it. box: xyxy px. reason: why it is worth a look, "" if unranked."""

    key: str
    box: tuple[float, float, float, float]
    label: str
    score: float
    reason: str
    mask: bytes | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One image's stored prediction by one pair. priority: of its pending review item, 0 without one."""

    image_id: int
    prediction_id: int
    priority: float
    cells: list[AnsweredCell] = field(default_factory=list)


def serving_pair(session: Session) -> ServingPair | None:
    """The pair of the two active versions, None when a role has none active or no row names the pair yet."""
    row = session.execute(_serving()).one_or_none()
    if row is None:
        return None
    pair, all_cells_sha256, infected_sha256 = row
    return ServingPair(
        id=pair.id,
        name=pair.name,
        all_cells_id=pair.all_cells_id,
        all_cells_sha256=all_cells_sha256,
        infected_id=pair.infected_id,
        infected_sha256=infected_sha256,
        fusion=pair.fusion,
    )


# Statements are built once: an expert who opens a task waits for their building longer than for the database.


@cache
def _serving() -> Select[*tuple[Any, ...]]:
    all_cells, infected = aliased(ModelVersion), aliased(ModelVersion)
    return (
        select(ModelPair, all_cells.weights_sha256, infected.weights_sha256)
        .join(all_cells, all_cells.id == ModelPair.all_cells_id)
        .join(infected, infected.id == ModelPair.infected_id)
        .where(
            all_cells.role == "all_cells",
            all_cells.status == VersionStatus.active,
            infected.role == "infected",
            infected.status == VersionStatus.active,
        )
    )


def answers(session: Session, pair_id: int, image_ids: Sequence[int]) -> dict[int, Answer]:
    """Stored predictions of this pair by image id, with the reasons of its latest ranking; others are absent."""
    ranking_id = session.scalar(select(func.max(Ranking.id)).where(Ranking.pair_id == pair_id))
    found: dict[int, Answer] = {}
    for chunk in chunks(image_ids):
        answered = _headers(session, pair_id, chunk)
        found |= {answer.image_id: answer for answer in answered.values()}
        _add_cells(session, answered, ranking_id)
    return found


def _headers(session: Session, pair_id: int, image_ids: Sequence[int]) -> dict[int, Answer]:
    rows = session.execute(_header_rows(), {"pair_": pair_id, "images_": list(image_ids)})
    return {
        prediction_id: Answer(image_id, prediction_id, score if score is not None else 0.0)
        for prediction_id, image_id, score in rows
    }


@cache
def _header_rows() -> Select[*tuple[Any, ...]]:
    waiting = and_(ReviewItem.image_id == Prediction.image_id, ReviewItem.status == ItemStatus.pending)
    return (
        select(Prediction.id, Prediction.image_id, ReviewItem.score)
        .outerjoin(ReviewItem, waiting)
        .where(
            Prediction.pair_id == bindparam("pair_"),
            Prediction.image_id.in_(bindparam("images_", expanding=True)),
        )
    )


def _add_cells(session: Session, answered: dict[int, Answer], ranking_id: int | None) -> None:
    rows = session.execute(_cell_rows(), {"predictions_": list(answered), "ranking_": ranking_id})
    for prediction_id, key, x1, y1, x2, y2, label, score, reason, mask in rows:
        answered[prediction_id].cells.append(AnsweredCell(key, (x1, y1, x2, y2), label, score, reason or "", mask))


@cache
def _cell_rows() -> Select[*tuple[Any, ...]]:
    # Columns, not entities: 150,000 mapped objects for one request would cost more than everything else.
    ranked = and_(
        RankedCell.predicted_cell_id == PredictedCell.id,
        RankedCell.ranking_id == bindparam("ranking_", type_=RankedCell.ranking_id.type),
    )
    return (
        select(
            PredictedCell.prediction_id,
            Cell.key,
            PredictedCell.x1,
            PredictedCell.y1,
            PredictedCell.x2,
            PredictedCell.y2,
            PredictedCell.label,
            PredictedCell.score,
            RankedCell.reason,
            PredictedCell.mask,
        )
        .join(Cell, Cell.id == PredictedCell.cell_id)
        .outerjoin(RankedCell, ranked)
        .where(PredictedCell.prediction_id.in_(bindparam("predictions_", expanding=True)))
        .order_by(PredictedCell.id)
    )


def images_by_sha256(session: Session, hashes: Sequence[str]) -> dict[str, Image]:
    """Images by the sha256 of their file; unknown hashes are absent."""
    found: dict[str, Image] = {}
    for chunk in chunks(hashes):
        found |= {image.sha256: image for image in session.scalars(_images(), {"hashes_": chunk})}
    return found


def images_of_tasks(session: Session, url: str, ls_project_id: int, ls_task_ids: Sequence[int]) -> dict[int, Image]:
    """Images by Label Studio task id, for the tasks of this project that we know."""
    found: dict[int, Image] = {}
    for chunk in chunks(ls_task_ids):
        rows = session.execute(_tasks(), {"url_": url, "project_": ls_project_id, "tasks_": chunk})
        found |= {ls_task_id: image for ls_task_id, image in rows}
    return found


@cache
def _images() -> Select[Image]:
    return select(Image).where(Image.sha256.in_(bindparam("hashes_", expanding=True)))


@cache
def _tasks() -> Select[*tuple[Any, ...]]:
    return (
        select(Task.ls_task_id, Image)
        .join(Project, Project.id == Task.project_id)
        .join(Image, Image.id == Task.image_id)
        .where(
            Project.url == bindparam("url_"),
            Project.ls_project_id == bindparam("project_"),
            Task.ls_task_id.in_(bindparam("tasks_", expanding=True)),
        )
    )
