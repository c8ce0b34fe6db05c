"""How far experts agree on cells that several of them read: kappa by pair and together, and what they confuse.

An answer is a class, "difficult" or "no cell". Intervals are percentiles over resampled cells. What the numbers are:
`backend/history/kappa.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import combinations
from typing import Any

import numpy as np

from backend.history.kappa import Floats, cohen_kappa, fleiss_kappa, krippendorff_alpha, pair_tables, pooled_kappa
from backend.history.periods import PERIODS, period_of
from backend.instances import CLASSES, DIFFICULT

NO_CELL = "no cell"
ANSWERS: tuple[str, ...] = (*CLASSES, DIFFICULT, NO_CELL)


@dataclass(frozen=True)
class Readings:
    """R answers, one per cell and expert, as columns. labels: None is "no cell". moments: when each was given."""

    cells: Sequence[int]
    experts: Sequence[str]
    labels: Sequence[str | None]
    moments: Sequence[datetime]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where it is undefined, as kappa is when everybody says the same always."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PairAgreement:
    """Two experts on the cells both read. same: share of equal answers."""

    first: str
    second: str
    cells: int
    same: float
    kappa: Estimate


@dataclass(frozen=True)
class Agreement:
    """One period. cells: read by at least two. cohen: pooled over pairs. confusion: counts in the order of ANSWERS.

    confusion: rows, a cell's first answer; columns, every further one. specific: of the answers that named this, the
    share that the other reader named too (Cicchetti and Feinstein 1990); only answers that occur.
    """

    period: str
    cells: int
    readings: int
    experts: tuple[str, ...]
    same: float
    pairs: tuple[PairAgreement, ...]
    cohen: Estimate
    fleiss: Estimate
    alpha: Estimate
    specific: Mapping[str, float]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the answers that rows and columns of the confusion stand for are with it."""
        return asdict(self) | {"answers": list(ANSWERS)}


def agreement(readings: Readings, period: str = "all", resamples: int = 1000, seed: int = 0) -> list[Agreement]:
    """One Agreement per period (of PERIODS, in UTC) that holds any, in order of time; cells read once are left out.

    A cell belongs to the period of its second answer. Of several answers of one expert the newest counts. Raises
    ValueError for an unknown period or label, or columns that differ in length.
    """
    if period not in PERIODS:
        raise ValueError(f"expected a period of {', '.join(PERIODS)}, got {period!r}")
    by_period: dict[str, list[list[tuple[str, int]]]] = {}
    for answers in _by_cell(readings).values():
        if len(answers) > 1:
            name = period_of(answers[1][0], period)
            by_period.setdefault(name, []).append([(expert, answer) for _, expert, answer in answers])
    return [_agree(name, cells, resamples, seed) for name, cells in sorted(by_period.items())]


def _by_cell(readings: Readings) -> dict[int, list[tuple[datetime, str, int]]]:
    """(moment, expert, answer) of each cell in the order they were given, one per expert."""
    index: dict[str | None, int] = {name: number for number, name in enumerate(ANSWERS)}
    index[None] = index[NO_CELL]
    newest: dict[int, dict[str, tuple[datetime, str, int]]] = {}
    columns = (readings.cells, readings.experts, readings.labels, readings.moments)
    for cell, expert, label, moment in zip(*columns, strict=True):
        if label not in index:
            raise ValueError(f"expected an answer of {', '.join(ANSWERS)}, got {label!r}")
        known = newest.setdefault(cell, {}).get(expert)
        if known is None or known[0] <= moment:
            newest[cell][expert] = (moment, expert, index[label])
    return {cell: sorted(answers.values()) for cell, answers in sorted(newest.items())}


def _agree(period: str, cells: Sequence[list[tuple[str, int]]], resamples: int, seed: int) -> Agreement:
    experts = tuple(sorted({expert for answers in cells for expert, _ in answers}))
    column = {expert: number for number, expert in enumerate(experts)}
    table = np.full((len(cells), len(experts)), -1, dtype=np.int64)
    confusion = np.zeros((len(ANSWERS), len(ANSWERS)), dtype=np.int64)
    for row, answers in enumerate(cells):
        for expert, answer in answers:
            table[row, column[expert]] = answer
        for _, answer in answers[1:]:
            confusion[answers[0][1], answer] += 1
    # Cells with the same answers of the same experts are alike: resampling counts of each kind is the same, and fast.
    kinds, counts = np.unique(table, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(cells), counts / len(cells), size=resamples)
    weights = np.concatenate([counts[None], draws]).astype(np.float64)
    tables = {pair: pair_tables(kinds[:, pair], weights, len(ANSWERS)) for pair in combinations(range(len(experts)), 2)}
    tables = {pair: found for pair, found in tables.items() if found[0].any()}
    given = np.stack([(kinds == answer).sum(axis=1) for answer in range(len(ANSWERS))], axis=1)
    both = sum(found[0] + found[0].T for found in tables.values())
    named = both.sum(axis=0)
    return Agreement(
        period=period,
        cells=len(cells),
        readings=int((table >= 0).sum()),
        experts=experts,
        same=float(np.trace(both) / both.sum()),
        pairs=tuple(_pair(experts[a], experts[b], found) for (a, b), found in tables.items()),
        cohen=_estimate(pooled_kappa(np.stack(list(tables.values())))),
        fleiss=_estimate(fleiss_kappa(given, weights)),
        alpha=_estimate(krippendorff_alpha(given, weights)),
        specific={ANSWERS[k]: float(both[k, k] / named[k]) for k in np.flatnonzero(named)},
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _pair(first: str, second: str, tables: Floats) -> PairAgreement:
    cells = tables[0].sum()
    return PairAgreement(first, second, int(cells), float(np.trace(tables[0]) / cells), _estimate(cohen_kappa(tables)))


def _estimate(samples: Floats) -> Estimate:
    """samples: (1 + S,) float64, the value and what it is on resampled cells."""
    known = samples[1:][np.isfinite(samples[1:])]
    if not np.isfinite(samples[0]):
        return Estimate(None)
    if not len(known):
        return Estimate(float(samples[0]))
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(float(samples[0]), float(low), float(high))
