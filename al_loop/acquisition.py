"""What an expert's look at a cell is worth, and at an image: every score with every term it is made of.

A cell's doubt is the strongest of seven: whether it is infected is open, two classes are nearly equal, the two models
disagree, they outline it differently, its label is suspicious, an expert could not or would not decide, or nothing
like it was ever reviewed. Rare classes count more. Behind what is in doubt come parasites that nobody has confirmed,
so that rare stages the models are sure of are shown, too. An image is worth its best cells per second of the expert's
time; averaging over all of its cells would drown the rare ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from backend.instances import CLASSES, INFECTED_INDEX

DOUBTS: tuple[str, ...] = ("infected", "margin", "disagreement", "localisation", "suspicion", "difficult", "novelty")
LIKELY = 0.5  # probability of being infected from which a cell is a parasite, doubted or not


@dataclass(frozen=True)
class AcquisitionConfig:
    """What makes a cell worth an expert's time.

    doubt_floor: doubt up to here counts as none, so that a confident cell scores 0.
    infected_weight, margin_weight, localisation_weight, novelty_weight: how much doubt it is worth when infected or not
    is a toss-up, two classes are equally probable, an outline fits nothing, or a cell is like nothing reviewed; two
    models that flatly disagree are 1. Which stage it is matters less than whether it is one: replayed on real smears,
    doubting both alike needed two thirds more reviews to find infected cells as well (docs/results/labels-saved.md).
    confirm: doubt that a parasite is worth which no model doubts.
    rarity_offset, rarity_ap: `a` and `l` of w_c = clip(sqrt(median n / (n_c + a)) * (1 + l * (1 - AP_c))).
    best_cells: an image counts by its best so many cells.
    seconds_per_image, seconds_per_cell: the cost of opening an image and of looking at one of its cells.
    seconds_per_crop: the cost of one cell shown by itself.
    """

    doubt_floor: float = 0.2
    infected_weight: float = 0.9
    confirm: float = 0.05
    margin_weight: float = 0.5
    localisation_weight: float = 0.5
    novelty_weight: float = 0.5
    rarity_offset: float = 1.0
    rarity_ap: float = 0.5
    rarity_range: tuple[float, float] = (0.5, 6.0)
    best_cells: int = 5
    seconds_per_image: float = 10.0
    seconds_per_cell: float = 0.5
    seconds_per_crop: float = 4.0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AcquisitionConfig:
        """The configuration that `asdict` made plain and JSON made lists of."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)


def _left_out() -> NDArray[np.floating]:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class PoolCells:
    """N predicted cells of many images, as columns; numbers are float32 or float64, NaN is no number.

    image: (N,) int64, any number that names the image. probabilities: (N, len(CLASSES)), fused.
    score_all_cells, score_infected: (N,) raw, NaN where that model saw nothing.
    pair_iou: (N,) NaN unless both saw the cell. disputed: (N,) bool, they name different classes.
    difficult: (N,) in [0, 1], how probably an expert calls it so; 1 where one did.
    suspicion: (N,) in [0, 1], how probably its label is wrong; 0 without a label.
    novelty: (N,) in [0, 1], how unlike it is to everything reviewed.
    The last three are 0 where they are left out.
    """

    image: NDArray[np.int64]
    probabilities: NDArray[np.floating]
    score_all_cells: NDArray[np.floating]
    score_infected: NDArray[np.floating]
    pair_iou: NDArray[np.floating]
    disputed: NDArray[np.bool_]
    difficult: NDArray[np.floating] = field(default_factory=_left_out)
    suspicion: NDArray[np.floating] = field(default_factory=_left_out)
    novelty: NDArray[np.floating] = field(default_factory=_left_out)

    def __post_init__(self) -> None:
        if np.isnan(self.probabilities).any():  # a class nobody spoke of has no probability
            object.__setattr__(self, "probabilities", np.nan_to_num(self.probabilities))
        for name in ("difficult", "suspicion", "novelty"):
            if len(getattr(self, name)) == 0:
                object.__setattr__(self, name, np.zeros(len(self.image), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> PoolCells:
        """These rows only."""
        return PoolCells(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class CellScores:
    """Columns for N cells: `score` = `doubt` * `weight` + `confirm`; `doubt` follows from the seven terms in `doubts`.

    It is 0, whatever `confirm` is, for a cell without doubt that is more probably healthy: nobody needs to be asked.

    doubts: (N, 7) float64 in the order of DOUBTS. strongest: (N,) int64, index into DOUBTS.
    """

    score: NDArray[np.float64]
    doubt: NDArray[np.float64]
    weight: NDArray[np.float64]
    confirm: NDArray[np.float64]
    doubts: NDArray[np.float64]
    strongest: NDArray[np.int64]


@dataclass(frozen=True)
class RankedImage:
    """One image's score = `value` / `seconds`, with every term. best: rows of its best cells, best first."""

    image: int
    score: float
    terms: dict[str, float]
    best: tuple[int, ...] = field(default=())


def rarity_weights(
    counts: Mapping[str, int], config: AcquisitionConfig, ap: Mapping[str, float | None] | None = None
) -> NDArray[np.float64]:
    """(len(CLASSES),) float64: how much a cell of each class is worth, from labelled counts and AP so far."""
    labelled = np.array([counts.get(name, 0) for name in CLASSES], dtype=np.float64)
    known = [(ap or {}).get(name) for name in CLASSES]
    missing = np.array([1.0 if value is None else 1.0 - value for value in known])
    # Median over the classes met so far: with most classes unseen, the median over all would be 0.
    median = float(np.median(labelled[labelled > 0])) if labelled.any() else 1.0
    rarity = np.sqrt(median / (labelled + config.rarity_offset))
    return np.clip(rarity * (1 + config.rarity_ap * missing), *config.rarity_range)


def disagreement(cells: PoolCells) -> NDArray[np.float64]:
    """(N,) float64 in [0, 1]: Jensen-Shannon divergence (in bits) of what the two models say about each cell.

    Each says {what all_cells names, what infected names, anything else}. Undisputed cells carry one name, so both
    lie on it; the infected model never names a red cell, so on cells that both agree not to be infected only the
    stages' share of all_cells' answer is compared with the silence of infected.
    """
    stages = cells.probabilities[:, INFECTED_INDEX].sum(axis=1)
    infected = cells.probabilities.argmax(axis=1)
    is_infected = np.isin(infected, INFECTED_INDEX)
    said_all = np.clip(np.nan_to_num(cells.score_all_cells), 0, 1)
    said_infected = np.clip(np.nan_to_num(cells.score_infected), 0, 1)
    not_infected = ~is_infected & ~cells.disputed
    said_all = np.where(not_infected, np.minimum(stages, 1.0), said_all)
    # JS = H(middle) - (H(ours) + H(theirs)) / 2, of {the name all_cells gives, the other name, anything else}.
    named = np.where(cells.disputed, said_all / 2, (said_all + said_infected) / 2)
    other = np.where(cells.disputed, said_infected / 2, 0.0)
    middle = entr(named) + entr(other) + entr(1 - (said_all + said_infected) / 2)
    apart = entr(said_all) + entr(1 - said_all) + entr(said_infected) + entr(1 - said_infected)
    return np.clip((middle - apart / 2) / np.log(2), 0.0, 1.0)


def score_cells(cells: PoolCells, weights: NDArray[np.float64], config: AcquisitionConfig | None = None) -> CellScores:
    """Score every cell. weights: (len(CLASSES),) as `rarity_weights` gives them."""
    config = config or AcquisitionConfig()
    probabilities = np.clip(cells.probabilities, 0, 1)
    infected = np.minimum(probabilities[:, INFECTED_INDEX].sum(axis=1), 1.0)
    open_ = _bits(infected)
    first, second = _best_two(probabilities)
    doubts = np.stack(
        [
            config.infected_weight * open_,
            config.margin_weight * np.clip(1 - (first - second), 0, 1),
            disagreement(cells),
            config.localisation_weight * (1 - np.nan_to_num(cells.pair_iou, nan=1.0)),
            np.clip(np.nan_to_num(cells.suspicion), 0, 1),
            np.clip(np.nan_to_num(cells.difficult), 0, 1),
            config.novelty_weight * np.clip(np.nan_to_num(cells.novelty), 0, 1),
        ],
        axis=1,
    )
    strongest = doubts.argmax(axis=1)
    doubt = np.maximum(doubts.max(axis=1, initial=0.0) - config.doubt_floor, 0) / (1 - config.doubt_floor)
    weight = _weight(probabilities, infected, open_, weights)
    confirm = config.confirm * (probabilities[:, INFECTED_INDEX] @ weights[INFECTED_INDEX])
    score = np.where((doubt > 0) | (infected >= LIKELY), doubt * weight + confirm, 0.0)
    return CellScores(score, doubt, weight, confirm, doubts, strongest)


def _best_two(values: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(N,) the largest and the second largest of each row: a sort of a million rows would take five times as long."""
    first = values[:, 0]
    second = np.zeros_like(first)
    for column in values.T[1:]:
        second = np.maximum(second, np.minimum(first, column))
        first = np.maximum(first, column)
    return first, second


def class_weight(probabilities: NDArray[np.floating], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) the weight of cells with these distributions, (N, len(CLASSES)), under `weights`, (len(CLASSES),)."""
    probabilities = np.clip(probabilities, 0, 1)
    infected = np.minimum(probabilities[:, INFECTED_INDEX].sum(axis=1), 1.0)
    return _weight(probabilities, infected, _bits(infected), weights)


def _weight(
    probabilities: NDArray[np.floating],
    infected: NDArray[np.floating],
    open_: NDArray[np.floating],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(N,) the expected class weight, where a cell counts as infected as far as that is probable or open.

    By probability alone, surer parasites would go before those in doubt, and the healthy cells that a model mistakes
    for parasites would come last: what is learned from is both sides of the border.
    """
    counts_as = np.maximum(infected, open_)
    by_class = probabilities * weights
    if_infected = by_class[:, INFECTED_INDEX].sum(axis=1) / np.maximum(infected, 1e-9)
    if_not = (by_class.sum(axis=1) - by_class[:, INFECTED_INDEX].sum(axis=1)) / np.maximum(1 - infected, 1e-9)
    return counts_as * if_infected + (1 - counts_as) * np.maximum(if_not, 0.0)


def _bits(p: NDArray[np.floating]) -> NDArray[np.floating]:
    """Entropy in bits of a question answered yes with probability p."""
    return (entr(p) + entr(1 - p)) / np.log(2)


def cell_terms(cells: PoolCells, scores: CellScores, index: int) -> dict[str, Any]:
    """Everything a score is made of: doubt * weight + confirm, the seven doubts, and the distribution they are of."""
    terms: dict[str, Any] = {name: float(scores.doubts[index, column]) for column, name in enumerate(DOUBTS)}
    shares = np.clip(cells.probabilities[index], 0, 1)
    terms["probabilities"] = [round(float(share), 6) for share in shares]
    named = {"doubt": scores.doubt, "weight": scores.weight, "confirm": scores.confirm}
    return terms | {name: float(column[index]) for name, column in named.items()}


def rank_images(
    images: Sequence[int],
    cells: PoolCells,
    scores: CellScores,
    config: AcquisitionConfig | None = None,
    to_review: Mapping[int, int] | None = None,
) -> list[RankedImage]:
    """Images by the value of their best cells per second of the expert's time, best first; ties by image number.

    images: the numbers to rank, with or without cells. to_review: how many cells an expert would look at in an
    image, where that is not all of its predicted cells.
    """
    config = config or AcquisitionConfig()
    positive = np.flatnonzero(scores.score > 0)
    order = positive[np.lexsort((positive, -scores.score[positive], cells.image[positive]))]
    first = np.searchsorted(cells.image[order], images, side="left")
    last = np.searchsorted(cells.image[order], images, side="right")
    last = np.minimum(last, first + config.best_cells)
    # Sums of the best only: each cell up to its place among those of its image, the least first, as a reader adds up.
    place = np.arange(len(order)) - np.searchsorted(cells.image[order], cells.image[order], side="left")
    kept = np.flatnonzero(place < config.best_cells)[::-1]
    known = np.unique(np.asarray(images, dtype=np.int64))
    inside = kept[np.isin(cells.image[order[kept]], known)]
    sums = np.bincount(
        np.searchsorted(known, cells.image[order[inside]]), scores.score[order[inside]], minlength=len(known)
    )
    values = sums[np.searchsorted(known, images)] if len(known) else sums
    column = cells.image if (np.diff(cells.image) >= 0).all() else np.sort(cells.image)
    counts = np.searchsorted(column, images, side="right") - np.searchsorted(column, images, side="left")
    best = order.tolist()
    ranked = []
    for image, start, end, value, count in zip(
        images, first.tolist(), last.tolist(), values.tolist(), counts.tolist(), strict=True
    ):
        shown = int(to_review.get(image, count)) if to_review else count
        seconds = config.seconds_per_image + config.seconds_per_cell * shown
        terms: dict[str, Any] = {"value": value, "seconds": seconds, "cells": shown}
        ranked.append(RankedImage(int(image), value / seconds, terms, tuple(best[start:end])))
    return sorted(ranked, key=lambda item: (-item.score, item.image))
