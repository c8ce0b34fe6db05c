"""How often 95 % intervals of parasitaemia hold the truth, in slides made up of fields whose cells are alike.

The parasitaemia of a field is drawn from a beta distribution around the slide's, its infected cells from a binomial
one; the intra-field correlation is the variance of the fields' parasitaemias over p (1 - p). The interval that is
used (`backend/history/intervals.py`) stands beside those that a reader may expect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from backend.history.intervals import TAIL, Floats, Z, clustered, independent, wilson

Ints = NDArray[np.int64]
Limits = tuple[Floats, Floats]

USED = "shrunken design effect"
FIELDS = (1, 2, 3, 5, 10, 20)
CELLS = (50, 300)  # of a field: least and most
PARASITAEMIA = (0.001, 0.003, 0.01, 0.03, 0.1)
CORRELATIONS = (0.0, 0.01, 0.02, 0.05)
SLIDES = (2, 3, 5, 10)  # of one period, FIELDS_OF_SLIDE of each
FIELDS_OF_SLIDE = 5


def _independent(infected: Ints, cells: Ints) -> Limits:
    shares = independent(infected.sum(axis=1), cells.sum(axis=1))
    return shares.low, shares.high


def _shrunken(infected: Ints, cells: Ints) -> Limits:
    slides, fields = infected.shape
    shares = clustered(infected.ravel(), cells.ravel(), np.repeat(np.arange(slides), fields), slides)
    return shares.low, shares.high


def _design_effect(infected: Ints, cells: Ints) -> tuple[Floats, Floats, Floats]:
    """Share, cells and design effect of each slide, (R,); the effect is 1 where one field or no hit tells nothing."""
    n, fields = cells.sum(axis=1).astype(np.float64), cells.shape[1]
    share = infected.sum(axis=1) / n
    spread = ((infected - share[:, None] * cells) ** 2).sum(axis=1) * fields / max(fields - 1, 1)
    chance = n * share * (1 - share)
    return share, n, np.divide(spread, chance, out=np.ones_like(n), where=(chance > 0) & (fields > 1))


def _kish(infected: Ints, cells: Ints) -> Limits:
    share, n, effect = _design_effect(infected, cells)
    return wilson(share, n / np.maximum(effect, 1))


def _korn_graubard(infected: Ints, cells: Ints) -> Limits:
    share, n, effect = _design_effect(infected, cells)
    if cells.shape[1] > 1:
        few = (Z / stats.t.ppf(1 - TAIL, cells.shape[1] - 1)) ** 2
        n = np.minimum(n, n / np.maximum(effect, 1e-9) * few)
    found = share * n
    with np.errstate(invalid="ignore"):
        low = np.where(found > 0, stats.beta.ppf(TAIL, found, n - found + 1), 0.0)
    return low, stats.beta.ppf(1 - TAIL, found + 1, n - found)


INTERVALS: Mapping[str, Callable[[Ints, Ints], Limits]] = {
    "Wilson, cells independent": _independent,
    "Wilson, Kish": _kish,
    "Korn and Graubard": _korn_graubard,
    USED: _shrunken,
}


def _beta(rng: np.random.Generator, mean: Floats, correlation: float) -> Floats:
    """Proportions around `mean` whose variance is correlation * mean * (1 - mean)."""
    if correlation == 0:
        return mean
    size = 1 / correlation - 1
    return rng.beta(np.maximum(mean * size, 1e-12), np.maximum((1 - mean) * size, 1e-12))


def _draw(rng: np.random.Generator, of_fields: Floats) -> tuple[Ints, Ints]:
    cells = rng.integers(CELLS[0], CELLS[1] + 1, of_fields.shape)
    return rng.binomial(cells, of_fields), cells


def benchmark_intervals(repeats: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Coverage and width of each interval over all combinations, `repeats` slides of each.

    {"repeats", "slides": {interval: {"coverage", "lowest", "lowest_at", "by_fields", "by_correlation", "width"}},
    "periods": {"fields", "slides"}}: shares of intervals that hold the truth, by number of fields and by correlation;
    "width": high - low over the true parasitaemia, median over combinations, by number of fields; "periods": coverage
    by number of slides that differ as fields do, where USED rests on the fields, or on the slides.
    """
    rng = np.random.default_rng(seed)
    keys = list(product(FIELDS, PARASITAEMIA, CORRELATIONS))
    held: dict[str, list[float]] = {name: [] for name in INTERVALS}
    wide: dict[str, list[float]] = {name: [] for name in INTERVALS}
    for fields, truth, correlation in keys:
        drawn = _draw(rng, _beta(rng, np.full((repeats, fields), truth), correlation))
        for name, interval in INTERVALS.items():
            low, high = interval(*drawn)
            held[name].append(float(np.mean((low <= truth) & (truth <= high))))
            wide[name].append(float(np.mean(high - low)) / truth)
    of = np.array(keys)
    slides = {}
    for name, values in held.items():
        coverage, width = np.array(values), np.array(wide[name])
        worst = int(coverage.argmin())
        slides[name] = {
            "coverage": round(float(coverage.mean()), 3),
            "lowest": round(float(coverage[worst]), 3),
            "lowest_at": dict(zip(("fields", "parasitaemia", "correlation"), keys[worst], strict=True)),
            "by_fields": {k: round(float(coverage[of[:, 0] == k].mean()), 3) for k in FIELDS},
            "by_correlation": {r: round(float(coverage[of[:, 2] == r].mean()), 3) for r in CORRELATIONS},
            "width": {k: round(float(np.median(width[of[:, 0] == k])), 2) for k in FIELDS},
        }
    return {"repeats": repeats, "slides": slides, "periods": _periods(rng, repeats)}


def _periods(rng: np.random.Generator, repeats: int) -> dict[str, dict[int, float]]:
    """Slides that differ by .02, and their fields by .01: coverage where fields, or slides, are the clusters."""
    found: dict[str, dict[int, float]] = {"fields": {}, "slides": {}}
    for slides in SLIDES:
        held: dict[str, list[float]] = {name: [] for name in found}
        for truth in PARASITAEMIA:
            of_slides = _beta(rng, np.full((repeats, slides, 1), truth), 0.02)
            infected, cells = _draw(
                rng, _beta(rng, np.broadcast_to(of_slides, (repeats, slides, FIELDS_OF_SLIDE)), 0.01)
            )
            for name, shape in (("fields", (repeats, -1)), ("slides", (repeats, slides, FIELDS_OF_SLIDE))):
                counts = [table.reshape(shape) for table in (infected, cells)]
                low, high = _shrunken(*(table.sum(axis=2) if table.ndim == 3 else table for table in counts))
                held[name].append(float(np.mean((low <= truth) & (truth <= high))))
        for name, values in held.items():
            found[name][slides] = round(float(np.mean(values)), 3)
    return found
