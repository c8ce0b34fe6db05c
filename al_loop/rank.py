"""Order the pool: what the active pair saw becomes scores of cells, and a batch of fields and cells for the experts.

Only the batch is written, with the cells in question of each of its fields: a pool of a million cells is scored in a
second, and written it would take minutes. `al_loop/rerank.py` keeps the batch in order while reviews come in; a new
one is made when half of it is gone, or when something changed that concerns all cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from al_loop.acquisition import (
    AcquisitionConfig,
    CellScores,
    PoolCells,
    cell_terms,
    rank_images,
    rarity_weights,
    score_cells,
)
from al_loop.batch import RANDOM_REASON, BatchConfig, Offer, Place, candidates, compose
from al_loop.cost import SecondsModel, learn_seconds
from al_loop.pool_columns import Known, columns
from al_loop.reasons import reason
from al_loop.second_readings import second_readings
from backend.errors import NoTrainedModel
from db import assignments, queue
from db.evaluations import metrics_of, newest_evaluation
from db.labels import class_counts, newest_revision_id
from db.models import ReviewItem, Slot, Split, Way
from db.packed import embeddings
from db.pool import WaitingImages, answered_cells, called_difficult, predicted_images, reviewed_cells, waiting_images
from db.projects import ways
from db.queue import CellRank, QueueEntry
from db.reviews import recent_looks
from db.session import Database
from db.versions import active_pair

MARKED = 30  # cells of a field that carry a reason: more marks than that mark nothing


@dataclass(frozen=True)
class RankConfig:
    """acquisition: how cells and images are scored. batch: how many of them wait, and why.

    use_ap: let classes the pair knows badly weigh more. seed: of what is drawn at random.
    """

    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    use_ap: bool = True
    seed: int = 0


@dataclass(frozen=True)
class RankingSummary:
    """What was ordered. images, cells: of the pool; doubtful: cells with a score; waiting: items by way and slot.

    left_out: images and doubtful cells for which the batch had no room. best: images of the first items, and scores.
    """

    ranking_id: int
    pair: str
    images: int
    cells: int
    doubtful: int
    waiting: dict[str, int]
    left_out: int
    best: tuple[tuple[int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def rank(database: Database, *, config: RankConfig | None = None) -> RankingSummary:
    """Rank the pool images the active pair has predicted, and let the best fields and cells wait in this order.

    Images it has not predicted yet do not wait. Raises NoTrainedModel before both roles have an active version.
    """
    config = config or RankConfig()
    with database.session(read_only=True) as session:
        pair = active_pair(session)
        if pair is None:
            raise NoTrainedModel(
                "expected two active models to rank the pool by, found none; "
                "run: cellloop train --role all_cells, then --role infected"
            )
        config = with_learned_seconds(config, session)
        waiting = waiting_images(session, pair.id)
        counts, newest = class_counts(session, Split.train), newest_revision_id(session)
        ap = known_ap(session, pair.id) if config.use_ap else {}
        weights = rarity_weights(counts, config.acquisition, ap)
        known = Known(reviewed_cells(session), called_difficult(session), answered_cells(session, pair.id))
        items = queue.pending(session)
        offer, rows = make_offer(waiting, known, weights, config, frozenset(ways(session)), items)
        among = candidates(offer, config.batch)
        vectors = _embeddings(session, waiting, offer.cells, rows, among)
        fair = round(config.batch.fair_share * config.batch.second_share * config.batch.size)
        again = second_readings(session, pair.id, weights, offer.seconds, fair=fair)
        ranking_number = queue.next_ranking(session)
    # Outside of the transaction that keeps other writers waiting.
    rng = np.random.default_rng([config.seed, ranking_number])
    places = compose(offer, among, vectors, config.batch, rng, again.places)
    entries, marked = _entries(places, offer, waiting, rows, again.entries)
    settings = asdict(config) | {"class_counts": counts, "ap50": ap, "class_weights": weights.tolist()}
    settings |= {"newest_revision_id": newest, "items": len(entries)}
    doubtful = int((offer.scores.score > 0).sum())
    settings["left_out"] = len(waiting) + doubtful - len({p.image for p in places}) - len(marked)
    with database.session() as session:
        ranking = queue.add_ranking(session, pair.id, settings)
        queue.add_ranked_cells(session, ranking.id, marked)
        still = set(predicted_images(session, pair.id))  # an image reviewed meanwhile waits no longer
        done = set(reviewed_cells(session).tolist())
        entries = [
            e for e in entries if e.slot == Slot.second_reading or (e.image_id in still and e.cell_id not in done)
        ]
        queue.replace_queue(session, ranking.id, entries)
        ranking_id = ranking.id
    return RankingSummary(
        ranking_id,
        pair.name,
        images=len(waiting),
        cells=len(offer.cells),
        doubtful=doubtful,
        waiting=_count(entries),
        left_out=settings["left_out"],
        best=tuple((entry.image_id, entry.score) for entry in entries[:10]),
    )


def with_learned_seconds(config: RankConfig, session: Session) -> RankConfig:
    """The same, with what a field, each of its cells and a crop take by the experts' own lead times.

    The configured seconds are what is believed as long as there are few.
    """
    believed = config.acquisition
    prior = SecondsModel(believed.seconds_per_image, believed.seconds_per_cell, believed.seconds_per_crop)
    learned = learn_seconds(*recent_looks(session), prior)
    acquisition = replace(
        believed,
        seconds_per_image=learned.field_base,
        seconds_per_cell=learned.field_per_cell,
        seconds_per_crop=learned.cell,
    )
    return replace(config, acquisition=acquisition)


def make_offer(
    waiting: WaitingImages,
    known: Known,
    weights: NDArray[np.float64],
    config: RankConfig,
    reviewed_in: frozenset[Way],
    items: Sequence[ReviewItem],
) -> tuple[Offer, NDArray[np.int64]]:
    """Every cell and every image with its score, and what the present queue asks to be left as it is."""
    cells, rows = columns(waiting.cells, known)
    scores = score_cells(cells, weights, config.acquisition)
    fields = rank_images(waiting.ids.tolist(), cells, scores, config.acquisition)
    slides = waiting.slides[np.searchsorted(waiting.ids, cells.image)] if len(cells) else np.zeros(0, dtype=np.int64)
    drawn_cells = [i.cell_id for i in items if i.slot == Slot.random and i.way == Way.cell and i.cell_id is not None]
    drawn_rows = np.flatnonzero(np.isin(waiting.cells.cells["cell_id"][rows], np.array(drawn_cells, dtype=np.int64)))
    drawn_images = [item.image_id for item in items if item.slot == Slot.random and item.way == Way.field]
    offer = Offer(
        cells=cells,
        scores=scores,
        slides=slides,
        fields=fields,
        seconds=config.acquisition.seconds_per_crop,
        ways=reviewed_in,
        pinned=assignments.pinned(items),
        drawn=(tuple(drawn_rows.tolist()), tuple(drawn_images)),
    )
    return offer, rows


def _embeddings(
    session: Session, waiting: WaitingImages, cells: PoolCells, rows: NDArray[np.int64], among: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(K, D) float32 of the rows `among`; D is 0 when any of them was predicted before embeddings were kept."""
    images = np.searchsorted(waiting.ids, cells.image[among])
    stored = embeddings(session, waiting.predictions[images].tolist())
    first = np.searchsorted(waiting.cells.image, waiting.ids)
    found = []
    for image, row in zip(images.tolist(), rows[among].tolist(), strict=True):
        vectors = stored.get(int(waiting.predictions[image]))
        if vectors is None:
            return np.zeros((len(among), 0), dtype=np.float32)
        found.append(vectors[row - first[image]])
    return np.stack(found) if found else np.zeros((0, 0), dtype=np.float32)


def _entries(
    places: Sequence[Place],
    offer: Offer,
    waiting: WaitingImages,
    rows: NDArray[np.int64],
    again: dict[int, QueueEntry],
) -> tuple[list[QueueEntry], list[CellRank]]:
    """The batch as it waits, with reasons, and the cells in question of its fields and by themselves."""
    stored = waiting.cells.cells
    marks = marked_cells(offer.cells, offer.scores, {place.image for place in places if place.way == Way.field})
    entries, ranks = [], {}
    for place in places:
        if place.slot == Slot.second_reading:
            terms = {**place.terms, "value": place.value, "seconds": place.seconds}
            entries.append(replace(again[place.cells[0]], score=place.score, terms=terms))
            continue
        named = marks.get(place.image, list(place.cells)) if place.way == Way.field else list(place.cells)
        for row in named:
            if offer.scores.score[row] > 0:
                terms = cell_terms(offer.cells, offer.scores, row)
                why = reason(offer.cells, offer.scores, row)
                predicted = int(stored["predicted_cell_id"][rows[row]])
                ranks[row] = CellRank(predicted, float(offer.scores.score[row]), terms, why)
        best = [row for row in place.cells if row in ranks]
        terms = {"value": place.value, "seconds": place.seconds, **place.terms}
        entry = QueueEntry(place.image, place.score, terms, place.way, place.slot)
        if place.way == Way.field:
            terms |= {
                "best_cells": [ranks[row].predicted_cell_id for row in best],
                "reasons": [ranks[row].reason for row in best],
                "second_reading": bool((offer.cells.difficult[named] >= 1).any()) if named else False,
            }
            entries.append(entry)
            continue
        row = place.cells[0]
        terms |= {"cell": ranks[row].terms} if row in ranks else {}
        entries.append(
            QueueEntry(
                *(place.image, place.score, terms, place.way, place.slot),
                cell_id=int(stored["cell_id"][rows[row]]),
                predicted_cell_id=int(stored["predicted_cell_id"][rows[row]]),
                reason=RANDOM_REASON if place.slot == Slot.random else ranks[row].reason,
            )
        )
    return entries, list(ranks.values())


def marked_cells(cells: PoolCells, scores: CellScores, images: set[int]) -> dict[int, list[int]]:
    """Rows with a score above 0 of each of these images, the best first, at most MARKED of one image."""
    rows = np.flatnonzero((scores.score > 0) & np.isin(cells.image, list(images)))
    found: dict[int, list[int]] = {}
    for row in rows[np.argsort(-scores.score[rows], kind="stable")].tolist():
        marked = found.setdefault(int(cells.image[row]), [])
        if len(marked) < MARKED:
            marked.append(row)
    return found


def _count(entries: Sequence[QueueEntry]) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in entries:
        name = f"{entry.way} {entry.slot}".replace("_", " ")
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def known_ap(session: Session, pair_id: int) -> dict[str, float]:
    """AP50 per class in this pair's newest evaluation; empty before any."""
    evaluation = newest_evaluation(session, pair_id)
    if evaluation is None:
        return {}
    found = metrics_of(session, evaluation.id)
    return {
        class_name: row.value for (name, class_name), row in found.items() if name == "ap50" and row.value is not None
    }
