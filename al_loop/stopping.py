"""When to stop: how many infected cells are still unseen, what the next reviews would bring, and a sentence on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.unseen import Unseen, unseen_infected

NORMAL = 1.959964  # half a 95 % interval in standard deviations


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation: what a model that learned from so many reviewed cells scored, with its 95 % interval."""

    labels: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class StoppingFacts:
    """What is known. infected, probability, fields, waiting: see `unseen.unseen_infected`.

    found: infected cells among all current labels. curve: evaluations on one split, in any order. labels: reviewed
    cells by now.
    """

    infected: NDArray[np.bool_]
    waiting: int | NDArray[np.floating]
    found: int
    labels: int
    probability: NDArray[np.floating] | None = None
    fields: NDArray[np.int64] | None = None
    curve: Sequence[CurvePoint] = field(default=())


@dataclass(frozen=True)
class StoppingConfig:
    """missed: share of all infected cells that may stay unseen. gain: what the next `reviews` must be able to bring."""

    missed: float = 0.05
    gain: float = 0.005
    reviews: int = 100


@dataclass(frozen=True)
class Gain:
    """What the next reviews are expected to bring, with a 95 % interval; slope: per e-fold of labels."""

    expected: float
    low: float
    high: float
    slope: float
    points: int


@dataclass(frozen=True)
class Stopping:
    """The answer. stop: None when it cannot be told yet."""

    unseen: Unseen | None
    gain: Gain | None
    stop: bool | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def when_to_stop(facts: StoppingFacts, config: StoppingConfig | None = None) -> Stopping:
    """Stop when, even at the upper ends of both intervals, too few cells are missed and too little would be gained."""
    config = config or StoppingConfig()
    unseen = unseen_infected(facts.infected, facts.waiting, facts.probability, facts.fields)
    gain = next_gain(facts.curve, facts.labels, config.reviews)
    if unseen is None or gain is None:
        missing = "no cell drawn at random was reviewed" if unseen is None else "fewer than two models were evaluated"
        said = [text for text in (_seen(unseen), _gained(gain, config)) if text]
        return Stopping(unseen, gain, None, "; ".join([f"It cannot be told yet: {missing}", *said]) + ".")
    everything = facts.found + unseen.high
    complete = unseen.high <= config.missed * everything
    flat = gain.high <= config.gain
    why = f"{_seen(unseen)}, and {_gained(gain, config)}"
    if complete and flat:
        return Stopping(unseen, gain, True, f"You may stop: {why}.")
    worth = "both are" if not complete and not flat else "the first is" if not complete else "the second is"
    return Stopping(unseen, gain, False, f"Go on: {why}; {worth} worth your time.")


def next_gain(curve: Sequence[CurvePoint], labels: int, reviews: int = 100) -> Gain | None:
    """What `reviews` more labels are expected to add to the metric; None with fewer than two numbers of labels.

    The metric is taken to grow with log(labels), which fits learning curves early and overstates them late. Points
    count by their intervals, as if independent: evaluations on one split share its images, so the slope is known
    rather better than said. Where the line fits worse than the intervals allow, the slope's is widened (Birge 1932).
    Raises ValueError for labels below 1 or intervals turned inside out.
    """
    used = [point for point in curve if np.isfinite([point.value, point.low, point.high]).all()]
    if any(point.labels < 1 or point.high < point.low for point in used) or labels < 0 or reviews < 0:
        raise ValueError("expected points with at least 1 label and low <= high, and no negative number of cells")
    x = np.log([point.labels for point in used])
    if len(set(x.tolist())) < 2:
        return None
    y = np.array([point.value for point in used])
    widths = np.array([point.high - point.low for point in used]) / (2 * NORMAL)
    errors = np.maximum(widths, 1e-4)
    line, covariance = np.polyfit(x, y, 1, w=1 / errors, cov="unscaled")
    spare = len(x) - 2
    misfit = float((((y - np.polyval(line, x)) / errors) ** 2).sum()) / spare if spare else 1.0
    slope, error = float(line[0]), float(covariance[0, 0] * max(1.0, misfit)) ** 0.5
    growth = float(np.log((max(labels, 1) + reviews) / max(labels, 1)))
    bounds = (growth * (slope - NORMAL * error), growth * (slope + NORMAL * error))
    return Gain(growth * slope, *bounds, slope=slope, points=len(x))


def _seen(unseen: Unseen | None) -> str:
    if unseen is None:
        return ""
    return (
        f"about {unseen.estimate:,.0f} infected cells [{unseen.low:,.0f}, {unseen.high:,.0f}] are unseen "
        f"among {unseen.waiting:,} that wait"
    )


def _gained(gain: Gain | None, config: StoppingConfig) -> str:
    if gain is None:
        return ""
    interval = f"[{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"the next {config.reviews} reviews are expected to bring {gain.expected:+.3f} {interval}"
