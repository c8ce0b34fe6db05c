"""What the curves of a simulation come to: reviews needed, and their ratios over seeds with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

TARGET_SHARE = 0.95  # of what all labels give
SMOOTH = 3  # stops that are averaged: one exam holds some hundred infected cells, and one cell is .01 of AP
EARLY = 0.1  # share of the pool's cells after which rare cells are counted


@dataclass(frozen=True)
class Needed:
    """The reviews after which a curve reaches its target; censored: it never did, and `reviews` is all of them."""

    reviews: float
    censored: bool


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval (Student's t); of ratios, the geometric mean and t of their logarithms.

    low, high: None from a single seed.
    """

    value: float
    low: float | None
    high: float | None

    def interval(self) -> list[float | None]:
        """[low, high], as JSON has it."""
        return [self.low, self.high]


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S,) the mean of each value and its neighbours, SMOOTH in all; fewer at both ends."""
    half = SMOOTH // 2
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def needed(at: NDArray[Any], values: NDArray[np.float64], target: float) -> Needed:
    """Where the smoothed curve first reaches `target`. at: (S,) reviews (or seconds), rising; between two of them the
    curve is a line over the logarithm of 1 + `at`.
    """
    curve = smoothed(values)
    reached = np.flatnonzero(curve >= target)
    if not len(reached):
        return Needed(float(at[-1]), True)
    first = int(reached[0])
    if first == 0:
        return Needed(float(at[0]), False)
    share = (target - curve[first - 1]) / (curve[first] - curve[first - 1])
    low, high = np.log1p(float(at[first - 1])), np.log1p(float(at[first]))
    return Needed(float(np.expm1(low + share * (high - low))), False)


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean over seeds."""
    data = np.asarray(values, dtype=np.float64)
    middle = float(data.mean())
    if len(data) < 2:
        return Estimate(middle, None, None)
    reach = float(stats.t.ppf(0.975, len(data) - 1) * data.std(ddof=1) / np.sqrt(len(data)))
    return Estimate(middle, middle - reach, middle + reach)


def ratio_of(theirs: Sequence[float], ours: Sequence[float]) -> Estimate:
    """The geometric mean over seeds of theirs / ours, paired by seed; what was needed counts as one review at least."""
    logs = np.log(np.maximum(theirs, 1.0)) - np.log(np.maximum(ours, 1.0))
    found = mean_of(logs.tolist())
    low, high = (None if end is None else float(np.exp(end)) for end in found.interval())
    return Estimate(float(np.exp(found.value)), low, high)


def at_share(reviews: NDArray[np.int64], values: NDArray[Any], cells: int, share: float = EARLY) -> float:
    """A column's value after `share` of the pool's cells were reviewed, linear between stops."""
    return float(np.interp(share * cells, reviews, values.astype(np.float64)))


def by_seed(seeds: Sequence[int], needs: Sequence[Needed]) -> list[Needed]:
    """One for each seed: the geometric mean over its deals, censored where one of them is."""
    found = []
    for seed in sorted(set(seeds)):
        own = [need for each, need in zip(seeds, needs, strict=True) if each == seed]
        middle = np.exp(np.mean([np.log(max(need.reviews, 1.0)) for need in own]))
        found.append(Needed(float(middle), any(need.censored for need in own)))
    return found


def summarise(needs: Mapping[str, Sequence[Needed]]) -> dict[str, Any]:
    """Per strategy: reviews needed by seed, mean with interval, how often it never got there, and the ratio to ours."""
    found: dict[str, Any] = {}
    for name, each in needs.items():
        mean = mean_of([need.reviews for need in each])
        found[name] = {
            "reviews_needed": [need.reviews for need in each],
            "censored": sum(need.censored for need in each),
            "mean": mean.value,
            "interval": mean.interval(),
        }
        if "ours" in needs:
            ratio = ratio_of([need.reviews for need in each], [need.reviews for need in needs["ours"]])
            found[name] |= {"over_ours": ratio.value, "over_ours_interval": ratio.interval()}
    return found
