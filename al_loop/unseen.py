"""How many infected cells nobody has seen yet, from cells that were shown at random, with an interval.

One draw without replacement: the interval inverts the hypergeometric distribution, with half the probability of what
was drawn in each tail (mid-P; Berry and Armitage 1995, The Statistician 44:417). Cells are stratified afterwards by
the model's P(infected): a few doubtful cells and very many clear ones tell more apart than together. Strata are added
up by the distances of their limits from their estimates (MOVER; Zou and Donner 2008, Statistics in Medicine 27:1693).
Cells of one field are alike; where fields were drawn, the sample counts for less, and its interval is Clopper and
Pearson's of so many cells (Korn and Graubard 1998, Survey Methodology 24:193).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

EDGES = (0.05, 0.5)  # of P(infected), between strata
EXPECTED = 3.0  # random cells that a stratum's share makes one expect; one with fewer joins its neighbour
TAIL = 0.025


@dataclass(frozen=True)
class Stratum:
    """Cells whose P(infected) is from `lowest` on: reviewed at random, infected among them, still waiting."""

    lowest: float
    reviewed: int
    infected: int
    waiting: int


@dataclass(frozen=True)
class Unseen:
    """Infected cells among those still waiting: the estimate and its 95 % interval. design_effect: 1 for lone cells."""

    estimate: float
    low: float
    high: float
    reviewed: int
    infected: int
    waiting: int
    design_effect: float
    strata: tuple[Stratum, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def unseen_infected(
    infected: NDArray[np.bool_],
    waiting: int | NDArray[np.floating],
    probability: NDArray[np.floating] | None = None,
    fields: NDArray[np.int64] | None = None,
) -> Unseen | None:
    """What cells reviewed at random say of those that wait; None when none was reviewed.

    infected: (n,) bool, what experts said of cells drawn at random. waiting: how many cells were not reviewed, or their
    P(infected), (N,). probability: (n,) P(infected) of the reviewed ones; without it there is one stratum. It must come
    from models that had not learned from these cells, as the prediction the expert was shown does; otherwise the
    infected ones have moved to the upper strata and the lower ones look too clean. fields: (n,) int64, names of the
    fields when whole fields were drawn. Raises ValueError when lengths do not fit.
    """
    said = np.asarray(infected, dtype=bool)
    for name, column in (("probability", probability), ("fields", fields)):
        if column is not None and np.shape(column) != said.shape:
            raise ValueError(f"expected {name} of shape {said.shape} as the cells reviewed, got {np.shape(column)}")
    if not len(said):
        return None
    if probability is None or not isinstance(waiting, np.ndarray):
        count = len(waiting) if isinstance(waiting, np.ndarray) else int(waiting)
        member: NDArray[np.int64] = np.zeros(len(said), dtype=np.int64)
        strata = [Stratum(0.0, len(said), int(said.sum()), count)]
    else:
        member, strata = _strata(said, np.nan_to_num(probability), np.nan_to_num(waiting))
    effect = 1.0 if fields is None else _design_effect(said, member, np.asarray(fields))
    estimate, below, above = 0.0, 0.0, 0.0
    for stratum in strata:
        middle = stratum.waiting * stratum.infected / stratum.reviewed
        low, high = _limits(stratum, effect)
        estimate += middle
        below += max(middle - low, 0.0) ** 2  # limits are whole numbers, and may miss a middle below 1
        above += max(high - middle, 0.0) ** 2
    return Unseen(
        estimate=estimate,
        low=max(0.0, estimate - below**0.5),
        high=min(float(sum(stratum.waiting for stratum in strata)), estimate + above**0.5),
        reviewed=len(said),
        infected=int(said.sum()),
        waiting=sum(stratum.waiting for stratum in strata),
        design_effect=effect,
        strata=tuple(strata),
    )


def _strata(
    infected: NDArray[np.bool_], probability: NDArray[np.floating], waiting: NDArray[np.floating]
) -> tuple[NDArray[np.int64], list[Stratum]]:
    """(n,) int64 stratum of each reviewed cell, and the strata, of falling P(infected)."""
    level, wait = np.digitize(probability, EDGES), np.digitize(waiting, EDGES)
    drawn = np.bincount(level, minlength=len(EDGES) + 1)
    everything = drawn + np.bincount(wait, minlength=len(EDGES) + 1)
    expected = len(infected) * everything / everything.sum()
    starts: list[int] = []  # lowest level of each stratum
    share, cells = 0.0, 0
    # By the share of all cells and not of those drawn: a draw poor in infected cells would else choose its own strata.
    for index in range(len(EDGES), -1, -1):
        share, cells = share + float(expected[index]), cells + int(drawn[index])
        if share >= EXPECTED and cells:
            starts.append(index)
            share, cells = 0.0, 0
    # What is left at the bottom is too little alone: it joins the stratum above it.
    starts = [*starts[:-1], 0] if starts else [0]
    bounds = np.array(starts[::-1])
    member = len(starts) - np.searchsorted(bounds, level, side="right")
    waits = len(starts) - np.searchsorted(bounds, wait, side="right")
    lowest = (0.0, *EDGES)
    strata = [
        Stratum(lowest[start], int((member == k).sum()), int(infected[member == k].sum()), int((waits == k).sum()))
        for k, start in enumerate(starts)
    ]
    return member, strata


def _limits(stratum: Stratum, effect: float) -> tuple[float, float]:
    if effect <= 1:
        return mid_p_limits(stratum.infected, stratum.reviewed, stratum.waiting)
    found, drawn = stratum.infected / effect, stratum.reviewed / effect
    low = stats.beta.ppf(TAIL, found, drawn - found + 1) if found > 0 else 0.0
    high = stats.beta.ppf(1 - TAIL, found + 1, drawn - found) if drawn > found else 1.0
    return stratum.waiting * float(low), stratum.waiting * float(high)


def mid_p_limits(infected: int, reviewed: int, waiting: int) -> tuple[float, float]:
    """The least and the greatest number among `waiting` that does not make the draw improbable (2.5 % a side)."""
    whole, spread = reviewed + waiting, stats.hypergeom

    def enough(left: int) -> bool:
        shape = (infected, whole, infected + left, reviewed)
        return bool(spread.sf(*shape) + spread.pmf(*shape) / 2 > TAIL)

    def too_many(left: int) -> bool:
        shape = (infected, whole, infected + left, reviewed)
        return bool(spread.cdf(*shape) - spread.pmf(*shape) / 2 <= TAIL)

    low = _first(waiting, enough) if infected else 0
    return float(low), float(min(_first(waiting, too_many) - 1, waiting)) if reviewed > infected else float(waiting)


def _first(last: int, holds: Callable[[int], bool]) -> int:
    """The first of 0..last that a condition holds for which holds for all later ones; last + 1 when for none."""
    low, high = 0, last + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _design_effect(infected: NDArray[np.bool_], member: NDArray[np.int64], fields: NDArray[np.int64]) -> float:
    """By how much less a sample of fields tells than one of as many cells; at least 1, as few fields know it badly."""
    rates = np.bincount(member, weights=infected) / np.maximum(np.bincount(member), 1)
    rest = infected - rates[member]
    _, field = np.unique(fields, return_inverse=True)
    drawn = int(field.max()) + 1
    if drawn < 2:
        return float(len(infected))
    spread = float((rest**2).sum())
    if spread == 0:
        return 1.0
    between = float((np.bincount(field, weights=rest) ** 2).sum()) * drawn / (drawn - 1)
    quantiles: Sequence[float] = stats.t.ppf(1 - TAIL, [drawn - 1, max(len(infected) - 1, 1)])
    return max(1.0, between / spread * float(quantiles[0] / quantiles[1]) ** 2)
