"""Order the pool: what the active pair saw becomes scores of cells, scores of images, and a queue for the expert.

Only cells with a score above 0 are stored with the ranking; a cell that is not listed left nothing in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from al_loop.acquisition import (
    AcquisitionConfig,
    PoolCells,
    RankedCell,
    RankedImage,
    rank_cells,
    rank_images,
    rarity_weights,
    score_cells,
)
from backend.errors import NoTrainedModel
from backend.instances import CLASSES
from db.labels import class_counts
from db.models import Split
from db.pool import pool_cells, predicted_images
from db.queue import CellRank, QueueEntry, add_ranked_cells, add_ranking, replace_queue
from db.runs import metrics_of, newest_evaluation
from db.session import Database
from db.versions import active_pair


@dataclass(frozen=True)
class RankConfig:
    """acquisition: how cells and images are scored. use_ap: let classes the pair knows badly weigh more."""

    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)
    use_ap: bool = True


@dataclass(frozen=True)
class RankingSummary:
    """What was ordered. images: now waiting; cells: looked at; doubtful: stored with a score; best: images first up."""

    ranking_id: int
    pair: str
    images: int
    cells: int
    doubtful: int
    best: tuple[tuple[int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def rank(database: Database, *, config: RankConfig | None = None) -> RankingSummary:
    """Rank the pool images the active pair has predicted, and let them wait in this order.

    Images it has not predicted yet do not wait. Raises NoTrainedModel before both roles have an active version.
    """
    config = config or RankConfig()
    with database.session() as session:
        pair = active_pair(session)
    if pair is None:
        raise NoTrainedModel(
            "expected two active models to rank the pool by, found none; "
            "run: cellloop train --role all_cells, then --role infected"
        )
    with database.session(read_only=True) as session:
        rows = pool_cells(session, pair.id)
        images = predicted_images(session, pair.id)
        counts = class_counts(session, Split.train)
        ap = known_ap(session, pair.id) if config.use_ap else {}
    # Scoring a large pool takes a second: outside of the transaction that keeps other writers waiting.
    cells = as_columns(rows)
    weights = rarity_weights(counts, config.acquisition, ap)
    scores = score_cells(cells, weights, config.acquisition)
    ranked = rank_cells(cells, scores)
    ordered = rank_images(images, cells, scores, config.acquisition)
    entries = queue_entries(ordered, ranked, cells, [row.id for row in rows])
    settings = asdict(config) | {"class_counts": counts, "ap50": ap, "class_weights": weights.tolist()}
    with database.session() as session:
        ranking = add_ranking(session, pair.id, settings)
        listed = (CellRank(rows[cell.index].id, cell.score, cell.terms, cell.reason) for cell in ranked)
        doubtful = add_ranked_cells(session, ranking.id, listed)
        waiting = set(predicted_images(session, pair.id))  # an image reviewed meanwhile waits no longer
        replace_queue(session, ranking.id, [entry for entry in entries if entry.image_id in waiting])
        ranking_id = ranking.id
    best = tuple((item.image, item.score) for item in ordered[:10])
    return RankingSummary(ranking_id, pair.name, len(ordered), len(cells), doubtful, best)


def queue_entries(
    ordered: Sequence[RankedImage], ranked: Sequence[RankedCell], cells: PoolCells, cell_ids: Sequence[int]
) -> list[QueueEntry]:
    """Images as they wait: with the terms of their score, their best cells and the reasons to look at those."""
    difficult = {int(image) for image in cells.image[cells.difficult >= 1]}
    reasons = {cell.index: cell.reason for cell in ranked}
    return [
        QueueEntry(
            image_id=item.image,
            score=item.score,
            terms=item.terms
            | {
                "best_cells": [cell_ids[index] for index in item.best],
                "reasons": [reasons[index] for index in item.best],
                "second_reading": item.image in difficult,
            },
        )
        for item in ordered
    ]


def as_columns(rows: Sequence[Any]) -> PoolCells:
    """Rows of `db.pool.pool_cells` as arrays; NULL becomes NaN."""
    probabilities = np.array([row.probabilities for row in rows], dtype=np.float64).reshape(len(rows), len(CLASSES))
    numbers = np.array([(row.score_all_cells, row.score_infected, row.pair_iou) for row in rows], dtype=np.float64)
    numbers = numbers.reshape(len(rows), 3)
    return PoolCells(
        image=np.array([row.image_id for row in rows], dtype=np.int64),
        probabilities=probabilities,
        score_all_cells=numbers[:, 0],
        score_infected=numbers[:, 1],
        pair_iou=numbers[:, 2],
        disputed=np.array([row.disputed for row in rows], dtype=bool),
        difficult=np.array([row.difficult for row in rows], dtype=np.float64),
    )


def known_ap(session: Session, pair_id: int) -> dict[str, float]:
    """AP50 per class in this pair's newest evaluation; empty before any."""
    evaluation = newest_evaluation(session, pair_id)
    if evaluation is None:
        return {}
    found = metrics_of(session, evaluation.id)
    return {
        class_name: row.value for (name, class_name), row in found.items() if name == "ap50" and row.value is not None
    }
