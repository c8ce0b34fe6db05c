"""Permutation tests: how often chance alone would give a difference as large as the one observed.

Exact in that no distribution is assumed; with the observed arrangement counted among the drawn ones, so that p is never
0 (Phipson and Smyth 2010, doi 10.2202/1544-6115.1585). What is permuted must be exchangeable: whole images, never cells
of one image. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[np.bool_]], Floats]

DRAWS = 4000


def sign_flip(differences: Floats, *, draws: int = DRAWS, seed: int = 0) -> float:
    """One-sided p of the sum of paired differences (N,) being so large, when each might as well have the other sign."""
    observed = float(differences.sum())
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(differences)))
    return _p(signs @ differences, observed)


def two_samples(first: int, second: int, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0) -> float:
    """p of the statistic being so large, when any of the first + second images might have been of the second kind.

    statistic: of (R, N) bool, which images are of the second kind, gives (R,) numbers; large speaks against chance.
    """
    kinds = np.zeros((draws + 1, first + second), dtype=bool)
    kinds[:, first:] = True
    kinds[1:] = np.random.default_rng(seed).permuted(kinds[1:], axis=1)
    values = statistic(kinds)
    return _p(values[1:], float(values[0]))


def _p(drawn: Floats, observed: float) -> float:
    tolerance = 1e-9 * max(1.0, abs(observed))  # equal sums may differ in the last bit
    return float((1 + (drawn >= observed - tolerance).sum()) / (1 + len(drawn)))


def mean_excess(values: Floats) -> Statistic:
    """How much higher the second kind's mean of these values (N,) is."""

    def statistic(kinds: NDArray[np.bool_]) -> Floats:
        second = kinds.astype(np.float64)
        return np.asarray(second @ values / second.sum(axis=1) - (1 - second) @ values / (1 - second).sum(axis=1))

    return statistic
