"""Bring the waiting batch up to date with the labels that came since it was made, without ranking the pool again.

A label changes how rare its class is, and so what every waiting item is worth; and it may itself want a second
reading. Both are worked out from what the items carry, in a time that depends on the batch and not on the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.acquisition import AcquisitionConfig, class_weight, rarity_weights
from al_loop.second_readings import second_readings
from backend.instances import CLASSES, INFECTED_INDEX
from db import queue
from db.labels import changed_counts
from db.models import ReviewItem, Slot, Split, Way
from db.projects import ways
from db.session import Database
from db.versions import active_pair

REFILL = 0.5  # of the batch: when less than this share of it is left, a new one is due


@dataclass(frozen=True)
class RerankSummary:
    """What changed. rescored: items with a new score. added: second readings that wait now."""

    ranking_id: int
    rescored: int
    added: int


def rerank(database: Database) -> RerankSummary | None:
    """Give every waiting item the score it has by today's labels; None when a new batch is due instead.

    That is so before the first ranking, under another pair, when half of the batch is gone while the pool holds
    more, and when the batch holds all of a small pool: then ranking it again is as quick.
    """
    with database.session() as session:
        pair, ranking = active_pair(session), queue.latest_ranking(session)
        if pair is None or ranking is None or ranking.pair_id != pair.id or "items" not in ranking.config:
            return None
        config = ranking.config
        items = queue.pending(session)
        if config["left_out"] <= 0 or len(items) < REFILL * config["items"]:
            return None
        touched, change = changed_counts(session, config["newest_revision_id"], Split.train)
        counts = {
            name: config["class_counts"].get(name, 0) + change.get(name, 0) for name in config["class_counts"] | change
        }
        acquisition = AcquisitionConfig.from_json(config["acquisition"])
        weights = rarity_weights(counts, acquisition, config["ap50"])
        chosen = [item for item in items if item.slot == Slot.acquisition]
        named = queue.terms_of(session, ranking.id, [c for item in chosen for c in item.terms.get("best_cells", [])])
        alone = {item.id: item.terms["cell"] for item in chosen if item.way == Way.cell}
        cells, alone = (reweighted(each, weights, acquisition.confirm) for each in (named, alone))
        scores = {item.id: rescored(item, alone.get(item.id), cells) for item in chosen}
        changed = {item.id: scores[item.id] for item in items if item.id in scores and scores[item.id][0] != item.score}
        queue.rescore(session, changed)
        added = 0
        if Way.cell in ways(session) and touched:
            again = second_readings(session, pair.id, weights, acquisition.seconds_per_crop, touched)
            added = len(queue.add_items(session, ranking.id, again.entries.values()))
        return RerankSummary(ranking.id, len(changed), added)


def rescored(
    item: ReviewItem, alone: dict[str, Any] | None, cells: Mapping[int, dict[str, Any]]
) -> tuple[float, dict[str, Any]]:
    """(score, terms) of an item by the terms its cell, or by predicted cell those of its field, have now."""
    if alone is not None:
        value = worth(alone)
        return value / item.terms["seconds"], item.terms | {"value": value, "cell": alone}
    value = float(sum(sorted(worth(cells[cell]) for cell in item.terms["best_cells"] if cell in cells)))
    return value / item.terms["seconds"], item.terms | {"value": value}


def worth(terms: Mapping[str, Any]) -> float:
    """The score that a cell's terms make."""
    return float(terms["doubt"] * terms["weight"] + terms["confirm"])


def reweighted(
    cells: Mapping[int, dict[str, Any]], weights: NDArray[np.float64], share: float
) -> dict[int, dict[str, Any]]:
    """The terms of cells with the weight their distributions have now. share: `AcquisitionConfig.confirm`."""
    shares = np.array([terms["probabilities"] for terms in cells.values()]).reshape(-1, len(CLASSES))
    heavy = class_weight(shares, weights).tolist()
    confirm = (share * (shares[:, INFECTED_INDEX] @ weights[INFECTED_INDEX])).tolist()
    columns = zip(cells.items(), heavy, confirm, strict=True)
    return {name: terms | {"weight": weight, "confirm": part} for (name, terms), weight, part in columns}
