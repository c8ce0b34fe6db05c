"""Fit the fusion of two detectors on images with known truth: what their scores mean, and whom to believe when.

Use validation images chosen at random. Images chosen because the models doubt them would teach that all are doubtful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from backend.fuse import Floats, FusionConfig, Platt, at_edge, infected_score, infected_share, logit
from backend.instances import INFECTED_INDEX, Instances
from backend.overlap import iou_matrix, match_one_to_one

View = tuple[Instances, Instances, Instances]  # all_cells, infected, truth: of one image

# With fewer examples than this on either side a fit says more about chance than about the model: fitted on the some
# 20 infected cells of 10 fields, pooled infected AP50 on 20 other fields fell from .85 to .79.
MIN_EXAMPLES = 30
_PRIOR = 2.0  # strength of "the scores are right as they are", in examples
_OFFSET_SD = 3.0  # log-odds: laboratories that label hardly any cut cell, or nearly all, are both common


def _log_loss(z: Floats, hits: Floats) -> float:
    return float(np.logaddexp(0.0, z).sum() - (hits * z).sum())


def fit_platt(scores: NDArray[Any], hits: NDArray[Any]) -> Platt:
    """The calibration under which `hits` (N,) 0 or 1 are most likely given raw `scores` (N,) in [0, 1].

    Drawn towards "no change", so that few or one-sided examples move it little; always increasing.
    """
    z, y = logit(np.asarray(scores).reshape(-1)), np.asarray(hits, dtype=np.float64).reshape(-1)
    if z.shape != y.shape:
        raise ValueError(f"calibrating: expected as many hits as scores, got {len(y)} and {len(z)}")
    if not len(z):
        return Platt()

    def cost(x: Floats) -> float:
        return _log_loss(np.exp(x[0]) * z + x[1], y) + _PRIOR * float(x @ x) / 2

    found = minimize(cost, np.zeros(2), method="L-BFGS-B", bounds=[(-3.0, 3.0), (-10.0, 10.0)])
    return Platt(a=float(np.exp(found.x[0])), b=float(found.x[1]))


def fit_offset(scores: NDArray[Any], hits: NDArray[Any]) -> float:
    """The number which, added to the log-odds of calibrated `scores` (N,), makes `hits` (N,) 0 or 1 most likely."""
    z, y = logit(np.asarray(scores).reshape(-1)), np.asarray(hits, dtype=np.float64).reshape(-1)

    def cost(x: Floats) -> float:
        return _log_loss(z + x[0], y) + float(x @ x) / (2 * _OFFSET_SD**2)

    return float(minimize(cost, np.zeros(1), method="L-BFGS-B", bounds=[(-10.0, 10.0)]).x[0])


def _fit_weights(mine: Floats, other: Floats, hits: Floats) -> tuple[float, float]:
    """Non-negative weights of two calibrated log-odds (N,) that predict `hits` best, drawn towards one half each."""

    def cost(w: Floats) -> float:
        return _log_loss(w[0] * mine + w[1] * other, hits) + _PRIOR * float(((w - 0.5) ** 2).sum()) / 2

    found = minimize(cost, np.full(2, 0.5), method="L-BFGS-B", bounds=[(0.05, 2.0)] * 2)
    return float(found.x[0]), float(found.x[1])


def _matched(boxes: Instances, truth: Instances, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pairs = np.array(match_one_to_one(iou_matrix(boxes.boxes, truth.boxes), threshold), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _indicator(length: int, index: NDArray[np.int64]) -> Floats:
    hits = np.zeros(length)
    hits[index] = 1.0
    return hits


def _enough(hits: Floats) -> bool:
    return bool(min(hits.sum(), len(hits) - hits.sum()) >= MIN_EXAMPLES)


@dataclass
class _Examples:
    """Raw scores and whether they were right, gathered image by image."""

    scores: list[Floats] = field(default_factory=list)
    hits: list[Floats] = field(default_factory=list)

    def add(self, scores: NDArray[Any], hits: NDArray[Any]) -> None:
        self.scores.append(np.asarray(scores, dtype=np.float64))
        self.hits.append(np.asarray(hits, dtype=np.float64))

    def all(self) -> tuple[Floats, Floats]:
        return np.concatenate([np.zeros(0), *self.scores]), np.concatenate([np.zeros(0), *self.hits])


def fit_fusion(views: Sequence[View], start: FusionConfig | None = None) -> FusionConfig:
    """The fusion that fits validation best; what has too few examples to be fitted stays as in `start`.

    views: per image the cells of `all_cells`, of `infected`, and the truth (with score 1).
    """
    config = start or FusionConfig()
    examples = {"cell": _Examples(), "stage": _Examples(), "infected": _Examples()}
    cut = _Examples()
    for all_cells, infected, truth in views:
        sick = np.isin(truth.labels, INFECTED_INDEX)
        seen, known = _matched(all_cells, truth, config.match_iou)
        edge = at_edge(all_cells.boxes, all_cells.image_size, config.edge_px)
        found = _indicator(len(all_cells), seen)
        examples["cell"].add(all_cells.scores[~edge], found[~edge])
        cut.add(all_cells.scores[edge], found[edge])
        examples["stage"].add(infected_share(all_cells)[seen], sick[known])
        caught, _ = _matched(infected, truth.select(sick), config.match_iou)
        examples["infected"].add(infected_score(infected), _indicator(len(infected), caught))
    fitted: dict[str, Any] = {}
    for name, gathered in examples.items():
        scores, hits = gathered.all()
        if _enough(hits):
            fitted[name] = fit_platt(scores, hits)
    config = replace(config, **fitted)
    scores, hits = cut.all()
    if len(hits) >= MIN_EXAMPLES:  # one-sided is fine: a laboratory that never labels them is a clear answer
        config = replace(config, edge_offset=fit_offset(config.cell(scores), hits))
    return _fit_threshold(views, _fit_pairing(views, config))


def _fit_pairing(views: Sequence[View], config: FusionConfig) -> FusionConfig:
    """Weights of the two models, from the true cells that both saw."""
    mine, other = _Examples(), _Examples()
    for all_cells, infected, truth in views:
        ours, theirs = _matched(all_cells, infected, config.match_iou)
        truth_of = dict(zip(*(side.tolist() for side in _matched(all_cells, truth, config.match_iou)), strict=True))
        known = np.array([index in truth_of for index in ours.tolist()], dtype=bool)
        labels = truth.labels[[truth_of[index] for index in ours[known].tolist()]]
        sick = np.isin(labels, INFECTED_INDEX)
        mine.add(logit(config.stage(infected_share(all_cells)[ours[known]])), sick)
        other.add(logit(config.infected(infected_score(infected)[theirs[known]])), sick)
    hits = mine.all()[1]
    if not _enough(hits):
        return config
    weights = _fit_weights(mine.all()[0], other.all()[0], hits)
    return replace(config, weight_all_cells=weights[0], weight_infected=weights[1])


def _fit_threshold(views: Sequence[View], config: FusionConfig) -> FusionConfig:
    """Lowest calibrated score from which a third of the boxes that only `infected` saw are true parasites."""
    lone = _Examples()
    for all_cells, infected, truth in views:
        alone = np.setdiff1d(np.arange(len(infected)), _matched(all_cells, infected, config.match_iou)[1])
        caught, _ = _matched(infected, truth.select(np.isin(truth.labels, INFECTED_INDEX)), config.match_iou)
        lone.add(config.infected(infected_score(infected))[alone], _indicator(len(infected), caught)[alone])
    scores, hits = lone.all()
    if not _enough(hits):
        return config
    order = np.argsort(-scores, kind="stable")
    precision = np.cumsum(hits[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(precision >= 1 / 3)
    threshold = float(np.clip(scores[order][good[-1]], 0.05, 0.5)) if len(good) else 0.5
    return replace(config, keep_threshold=threshold)
