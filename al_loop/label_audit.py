"""Do new labels look right? Those that two pairs contradict alike, one that never saw them and one that learned them.

The incumbent alone would not do: a new stain is exactly what it gets wrong. The candidate has learned from the new
labels; where they are right it agrees with them, and where a third of them is flipped at random it cannot. What both
contradict in the same way is compared with what they contradict in the test split, whose labels are known to be good
(hard cells are contradicted there, too). What is wrong always in the same way the candidate learns: then the test
split tells. Agreement of models as evidence against a label: Northcutt et al., Confident Learning, arXiv 1911.00068.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.metrics import MATCH_IOU, resampled_weights
from backend.instances import INFECTED_INDEX, Instances
from backend.overlap import intersection_over_area, iou_matrix, match_one_to_one

CALLED = 0.5  # P(infected) from which a pair says so
HEALTHY = -1  # says no infected cell, or nothing, there


@dataclass(frozen=True)
class Contradictions:
    """Of I images, (I,) int64 each: infected cells that the label or both pairs call so, and contradicted ones."""

    asked: NDArray[np.int64]
    contradicted: NDArray[np.int64]

    def rates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """(R,) share contradicted in each sample of images, NaN where none is asked. weights: (R, I)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ self.contradicted) / (weights @ self.asked))


@dataclass(frozen=True)
class LabelAudit:
    """Shares of infected cells that both pairs contradict alike: among new labels and in the test split.

    low: lower one-sided 95 % bound of the difference, by resampling images of both; None where there are too few.
    """

    asked: int
    contradicted: int
    share: float | None
    test_asked: int
    test_share: float | None
    low: float | None

    def sentence(self, most: float) -> tuple[str, bool]:
        """What is to be said, and whether the labels look wrong: the difference is shown to be above `most`."""
        if self.share is None or self.test_share is None or self.low is None:
            return "new labels: too few infected cells to look for wrong ones", False
        said = (
            f"new labels of infected cells: both pairs contradict {self.contradicted} of {self.asked} "
            f"({self.share:.0%}) in the same way, {self.test_share:.0%} in the test split"
        )
        if self.low <= most:
            return f"{said}: not shown to be more than {most:.0%} worse", False
        return f"{said}: many look wrong; have them read again (cellloop suspicious), or promote by hand", True


def contradictions(
    truths: Sequence[Instances],
    ignored: Sequence[NDArray[np.float32]],
    incumbent: Sequence[Instances],
    candidate: Sequence[Instances],
) -> Contradictions:
    """Count per image. truths: the labels; ignored: (K, 4) boxes that say nothing; then what each pair sees there."""
    rows = [
        _of_image(truth.select(np.isin(truth.labels, INFECTED_INDEX)), boxes, _called(first), _called(second))
        for truth, boxes, first, second in zip(truths, ignored, incumbent, candidate, strict=True)
    ]
    counts = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return Contradictions(counts[:, 0], counts[:, 1])


def _called(seen: Instances) -> Instances:
    return seen.select(seen.probabilities[:, INFECTED_INDEX].sum(axis=1) >= CALLED)


def _of_image(truth: Instances, ignored: NDArray[np.float32], first: Instances, second: Instances) -> tuple[int, int]:
    said = [_words(truth, pair) for pair in (first, second)]
    alike = (said[0] == said[1]) & (said[0] != truth.labels)
    extra = [pair.select(_unlabelled(pair, truth, ignored)) for pair in (first, second)]
    both = len(match_one_to_one(iou_matrix(extra[0].boxes, extra[1].boxes), MATCH_IOU))
    return len(truth) + both, int(alike.sum()) + both


def _unlabelled(pair: Instances, truth: Instances, ignored: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(D,) bool: where no label says infected, and none leaves it open."""
    labelled = (iou_matrix(pair.boxes, truth.boxes) >= MATCH_IOU).any(axis=1)
    open_ = (intersection_over_area(pair.boxes, ignored) >= MATCH_IOU).any(axis=1)
    return np.asarray(~labelled & ~open_)


def _words(truth: Instances, pair: Instances) -> NDArray[np.int64]:
    """(T,) what the pair calls each true cell: a stage's index, or HEALTHY."""
    words = np.full(len(truth), HEALTHY, dtype=np.int64)
    for row, column in match_one_to_one(iou_matrix(truth.boxes, pair.boxes), MATCH_IOU):
        probabilities = pair.probabilities[column, INFECTED_INDEX]
        words[row] = INFECTED_INDEX[int(probabilities.argmax())]
    return words


def audit(new: Contradictions, test: Contradictions, *, resamples: int = 1000, seed: int = 0) -> LabelAudit:
    """Compare the new labels with the test split's. Images are resampled: cells of one field are not independent."""
    shares = [_share(counts) for counts in (new, test)]
    low = None
    if None not in shares:
        samples = [
            counts.rates(resampled_weights(len(counts.asked), resamples, seed + number))
            for number, counts in enumerate((new, test))
        ]
        differences = samples[0] - samples[1]
        known = differences[np.isfinite(differences)]
        low = float(np.quantile(known, 0.05)) if len(known) else None
    return LabelAudit(
        asked=int(new.asked.sum()),
        contradicted=int(new.contradicted.sum()),
        share=shares[0],
        test_asked=int(test.asked.sum()),
        test_share=shares[1],
        low=low,
    )


def _share(counts: Contradictions) -> float | None:
    asked = int(counts.asked.sum())
    return float(counts.contradicted.sum() / asked) if asked else None
