"""Do new labels look right? By what the incumbent, which never saw them, claims of the cells it calls infected.

Its probabilities are calibrated: of cells it calls a ring at 0.8, two in ten are something else. Where the labels
contradict it more often than it claims itself, by more than they do in the test split, either many labels are wrong or
the new fields are unlike any the gate can judge by. Hard cells, which reviewing prefers, are no excess: there it claims
less. That a candidate does well in the test split is no excuse: with a third of the new labels flipped it may still be
better than a weak incumbent (docs/results/gate.md). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.metrics import MATCH_IOU, resampled_weights
from backend.instances import INFECTED_INDEX, Instances
from backend.overlap import intersection_over_area, iou_matrix, match_one_to_one

Floats = NDArray[np.float64]
CALLED = 0.5  # P(infected) from which a cell is asked about


@dataclass(frozen=True)
class Contradictions:
    """Of I images, (I,) float64 each: cells called infected, those whose label is another, and as many as expected."""

    asked: Floats
    contradicted: Floats
    expected: Floats

    def excess(self, weights: NDArray[np.int64]) -> Floats:
        """(R,) share contradicted less share expected, by sample of images; NaN without a cell. weights: (R, I)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ (self.contradicted - self.expected)) / (weights @ self.asked))


@dataclass(frozen=True)
class LabelAudit:
    """asked, contradicted, expected: cells in the new fields; test_*: the same in the test split.

    low: lower one-sided 95 % bound of how much greater the new fields' excess is, by resampling images of both; None
    where nothing was asked.
    """

    asked: int
    contradicted: int
    expected: float
    test_asked: int
    test_contradicted: int
    test_expected: float
    low: float | None

    def sentence(self, most: float) -> tuple[str, bool]:
        """What is to be said, and whether the labels look wrong: the excess is shown to be more than `most`."""
        if self.low is None:
            return "new labels: too few infected cells to look for wrong ones", False
        said = (
            f"new labels: of {self.asked} cells that the serving pair calls infected they contradict "
            f"{self.contradicted / self.asked:.0%}, by its own claims {self.expected / self.asked:.0%} were expected "
            f"(test split: {self.test_contradicted / self.test_asked:.0%} of {self.test_asked}, expected "
            f"{self.test_expected / self.test_asked:.0%})"
        )
        if self.low <= most:
            return f"{said}: not shown to be wrong", False
        return f"{said}: many look wrong; have them read again (cellloop suspicious), or promote by hand", True


def contradictions(
    truths: Sequence[Instances], ignored: Sequence[NDArray[np.float32]], seen: Sequence[Instances]
) -> Contradictions:
    """Count per image. truths: the labels; ignored: (K, 4) boxes that say nothing; seen: what the incumbent sees."""
    rows = [_of_image(*each) for each in zip(truths, ignored, seen, strict=True)]
    counts = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Contradictions(counts[:, 0], counts[:, 1], counts[:, 2])


def _of_image(truth: Instances, ignored: NDArray[np.float32], seen: Instances) -> tuple[int, int, float]:
    called = seen.select(np.asarray(seen.probabilities[:, INFECTED_INDEX].sum(axis=1) >= CALLED))
    labels = np.full(len(called), -1, dtype=np.int64)  # nothing there
    for row, column in match_one_to_one(iou_matrix(called.boxes, truth.boxes), MATCH_IOU):
        labels[row] = truth.labels[column]
    left_open = (labels < 0) & (intersection_over_area(called.boxes, ignored) >= MATCH_IOU).any(axis=1)
    asked = ~left_open
    stages = called.probabilities[:, INFECTED_INDEX]
    named = INFECTED_INDEX[stages.argmax(axis=1)] if len(called) else labels
    claims = stages.max(axis=1, initial=0.0)
    return int(asked.sum()), int((asked & (labels != named)).sum()), float((1 - claims)[asked].sum())


def audit(new: Contradictions, test: Contradictions, *, resamples: int = 1000, seed: int = 0) -> LabelAudit:
    """Compare the new labels with the test split's. Images are resampled: cells of one field are not independent."""
    low = None
    if new.asked.any() and test.asked.any():
        samples = [
            counts.excess(resampled_weights(len(counts.asked), resamples, seed + number))
            for number, counts in enumerate((new, test))
        ]
        differences = samples[0] - samples[1]
        low = float(np.quantile(differences[np.isfinite(differences)], 0.05))
    return LabelAudit(
        asked=int(new.asked.sum()),
        contradicted=int(new.contradicted.sum()),
        expected=float(new.expected.sum()),
        test_asked=int(test.asked.sum()),
        test_contradicted=int(test.contradicted.sum()),
        test_expected=float(test.expected.sum()),
        low=low,
    )
