"""How probably an expert will call a cell difficult, learned from those that experts did.

A logistic regression with an L2 penalty and no class weights: its probabilities mean what they say on cells like those
it was fitted on. Reviewed cells are not a random sample, but they were chosen by the same terms it looks at, which
leaves P(difficult | terms) as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from al_loop.acquisition import PoolCells, disagreement
from backend.instances import CLASSES

ENOUGH = 10  # difficult cells, and others, below which nothing is learned
PENALTY = 1.0  # variance of a standardised weight before anything was seen
CEILING = 0.95  # 1 is kept for cells that an expert did call difficult (`acquisition.PoolCells`)
FEATURES: tuple[str, ...] = (*CLASSES, "no cell", "margin", "disagreement", "localisation")


@dataclass(frozen=True)
class Difficulty:
    """P(difficult) = expit(features @ weights + intercept), log-odds kept within those of the fitted cells.

    weights: (F,) float32, for features as they come. means: (F,) float32, which stand for missing features.
    cells, difficult: how many it was fitted on.
    """

    weights: NDArray[np.float32]
    means: NDArray[np.float32]
    intercept: float
    log_odds: tuple[float, float]
    cells: int
    difficult: int

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N,) float32 in [0, CEILING] for features (N, F); one that is not finite counts as average."""
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise ValueError(f"expected features of shape (N, {len(self.weights)}), got {features.shape}")
        # An infinite feature makes a log-odds that is not finite: only such rows need a closer look.
        with np.errstate(invalid="ignore", over="ignore"):
            found = features @ self.weights
        odd = np.flatnonzero(~np.isfinite(found))
        if len(odd):
            found[odd] = np.where(np.isfinite(features[odd]), features[odd], self.means) @ self.weights
        found += np.float32(self.intercept)
        np.clip(found, *self.log_odds, out=found)
        expit(found, out=found)
        return np.minimum(found, np.float32(CEILING), out=found)


def fit_difficulty(features: NDArray[np.floating], difficult: NDArray[np.bool_]) -> Difficulty | None:
    """What reviewed cells teach; None with fewer than ENOUGH difficult ones or others: then nothing is known.

    features: (N, F), any order and scale, such as `difficulty_features` gives. difficult: (N,) bool, what experts said.
    """
    features, difficult = np.asarray(features, dtype=np.float64), np.asarray(difficult, dtype=bool)
    if features.ndim != 2 or difficult.shape != features.shape[:1]:
        raise ValueError(f"expected features (N, F) and N answers, got {features.shape} and {difficult.shape}")
    if min(int(difficult.sum()), int((~difficult).sum())) < ENOUGH:
        return None
    known = np.isfinite(features)
    means = np.where(known, features, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    features = np.where(known, features, means)
    scale = features.std(axis=0)
    scale[scale < 1e-9] = np.inf  # a feature that never changes says nothing
    standard = (features - means) / scale
    model = LogisticRegression(C=PENALTY, max_iter=1000).fit(standard, difficult)
    weights = model.coef_[0] / scale
    intercept = float(model.intercept_[0] - means @ weights)
    seen = features @ weights + intercept
    return Difficulty(
        weights=weights.astype(np.float32),
        means=means.astype(np.float32),
        intercept=intercept,
        log_odds=(float(seen.min()), float(seen.max())),
        cells=len(difficult),
        difficult=int(difficult.sum()),
    )


def difficulty_features(cells: PoolCells) -> NDArray[np.float32]:
    """(N, len(FEATURES)) float32: the terms of each cell by which difficult ones can be told."""
    classes = np.clip(np.nan_to_num(np.asarray(cells.probabilities, dtype=np.float32)), 0, 1)
    shares = np.concatenate([classes, np.clip(1 - classes.sum(axis=1, keepdims=True), 0, 1)], axis=1)
    top = np.partition(shares, -2, axis=1)[:, -2:]
    doubts = np.stack([1 - (top[:, 1] - top[:, 0]), disagreement(cells), 1 - cells.pair_iou], axis=1)
    return np.concatenate([shares, doubts], axis=1).astype(np.float32)
