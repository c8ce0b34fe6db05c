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

from backend.fuse import (
    STAGE_SHARE,
    WEIGHTS,
    Floats,
    FusionConfig,
    Platt,
    at_edge,
    healthy_score,
    infected_score,
    logit,
    mix_stages,
    odds,
    pair_up,
)
from backend.instances import INFECTED_INDEX, Instances
from backend.overlap import iou_matrix, match_one_to_one

View = tuple[Instances, Instances, Instances]  # all_cells, infected, truth: of one image

# With fewer examples than this on either side a fit says more about chance than about the model: fitted on the some
# 20 infected cells of 10 fields, pooled infected AP50 on 20 other fields fell from .85 to .79.
MIN_EXAMPLES = 30
_PRIOR = 2.0  # strength of "the scores are right as they are", in examples
_FLOOR = 1e-3  # no stage is ever impossible: one confident mistake must not decide a fit
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


def _fit_odds(mine: Floats, theirs: Floats, hits: Floats) -> tuple[float, float, float]:
    """Non-negative weights of two log-odds (N,) and a bias that predict `hits` best, drawn towards the default."""

    def cost(x: Floats) -> float:
        drawn = _PRIOR * float(((x[:2] - WEIGHTS) ** 2).sum()) / 2 + float(x[2] ** 2) / (2 * _OFFSET_SD**2)
        return _log_loss(x[0] * mine + x[1] * theirs + x[2], hits) + drawn

    start = np.array([*WEIGHTS, 0.0])
    found = minimize(cost, start, method="L-BFGS-B", bounds=[(0.02, 3.0), (0.02, 3.0), (-10.0, 10.0)])
    return float(found.x[0]), float(found.x[1]), float(found.x[2])


def _matched(boxes: Instances, truth: Instances, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    matched = match_one_to_one(iou_matrix(boxes.boxes, truth.boxes), threshold, (boxes.scores, truth.scores))
    pairs = np.array(matched, dtype=np.int64).reshape(-1, 2)
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


def _platt(examples: _Examples) -> Platt | None:
    """The calibration of these examples; None when they are too few."""
    scores, hits = examples.all()
    return fit_platt(scores, hits) if _enough(hits) else None


def fit_fusion(views: Sequence[View], start: FusionConfig | None = None) -> FusionConfig:
    """The fusion that fits validation best; what has too few examples to be fitted stays as in `start`.

    views: per image the cells of `all_cells`, of `infected`, and the truth (with score 1).
    """
    config = start or FusionConfig()
    infected_only, whole, cut = _Examples(), _Examples(), _Examples()
    for all_cells, infected, truth in views:
        sick = np.isin(truth.labels, INFECTED_INDEX)
        caught, _ = _matched(infected, truth.select(sick), config.match_iou)
        infected_only.add(infected_score(infected), _indicator(len(infected), caught))
        seen, known = _matched(all_cells, truth, config.match_iou)
        well = np.ones(len(all_cells), dtype=bool)
        well[seen[sick[known]]] = False  # of an infected cell nothing is learned about healthy ones
        edge = at_edge(all_cells.boxes, all_cells.image_size, config.edge_px)
        found = _indicator(len(all_cells), seen)
        for examples, part in ((whole, well & ~edge), (cut, well & edge)):
            examples.add(healthy_score(all_cells)[part], found[part])
    config = replace(
        config,
        infected=_platt(infected_only) or config.infected,
        healthy=_platt(whole) or config.healthy,
    )
    scores, hits = cut.all()
    if len(hits) >= MIN_EXAMPLES:  # one-sided is fine: a laboratory that never labels them is a clear answer
        config = replace(config, edge_offset=fit_offset(config.healthy(scores), hits))
    return _fit_threshold(views, _fit_stages(views, _fit_pairing(views, config)))


def _fit_pairing(views: Sequence[View], config: FusionConfig) -> FusionConfig:
    """The logistic regression that says infected or not, from every box of either detector."""
    mine, theirs = _Examples(), _Examples()
    for all_cells, infected, truth in views:
        pairing = pair_up(all_cells, infected, config.match_iou)
        ours, other = odds(all_cells, infected, pairing, config)
        sick = truth.select(np.isin(truth.labels, INFECTED_INDEX))
        caught = [
            np.append(_indicator(len(cells), _matched(cells, sick, config.match_iou)[0]), 0.0)[index]  # -1: nothing
            for cells, index in ((all_cells, pairing.i), (infected, pairing.j))
        ]
        hits = np.maximum(*caught)
        mine.add(ours, hits)
        theirs.add(other, hits)
    hits = mine.all()[1]
    if not _enough(hits):
        return config
    weights = _fit_odds(mine.all()[0], theirs.all()[0], hits)
    return replace(config, weight_all_cells=weights[0], weight_infected=weights[1], bias=weights[2])


def _fit_stages(views: Sequence[View], config: FusionConfig) -> FusionConfig:
    """How much of the word on the stage `all_cells` has: by the likelihood of the true stages of cells both saw."""
    shares = np.linspace(0.0, 1.0, 21)
    losses, cells = _PRIOR * (shares - STAGE_SHARE) ** 2, 0
    for all_cells, infected, truth in views:
        known = truth.select(np.isin(truth.labels, INFECTED_INDEX))
        ours = dict(zip(*(side.tolist() for side in _matched(known, all_cells, config.match_iou)), strict=True))
        theirs = dict(zip(*(side.tolist() for side in _matched(known, infected, config.match_iou)), strict=True))
        for index in ours.keys() & theirs.keys():
            stages = [
                part.probabilities[[row]][:, INFECTED_INDEX].astype(np.float64) + _FLOOR
                for part, row in ((all_cells, ours[index]), (infected, theirs[index]))
            ]
            a, b = (stage / stage.sum() for stage in stages)
            true = int(np.flatnonzero(known.labels[index] == INFECTED_INDEX)[0])
            losses = losses - np.log([mix_stages(a, b, share)[0, true] for share in shares])
            cells += 1
    if cells < MIN_EXAMPLES:
        return config
    return replace(config, stage_share=float(shares[losses.argmin()]))


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
