"""Do new labels look right? By what the incumbent, which never saw them, claims of the cells it calls infected.

Its probabilities are calibrated: of cells it calls a ring at 0.8, two in ten are something else. Where the labels
contradict it more often than it claims itself, by more than they do in the test split, either many labels are wrong or
the new fields are unlike any the gate can judge by. Hard cells, which reviewing prefers, are no excess: there it claims
less. All cells it calls infected are looked at together, and those it calls each stage: labels that are wrong all in
the same way then stand out among the cells it calls so. That a candidate does well in the test split is no excuse: with
a third of the new labels flipped it may still be better than a weak incumbent (docs/results/gate.md). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.metrics import MATCH_IOU, resampled_weights
from backend.instances import CLASSES, INFECTED_INDEX, Instances
from backend.overlap import intersection_over_area, iou_matrix, match_one_to_one

Floats = NDArray[np.float64]
CALLED = 0.3  # P(infected) from which a cell is asked about
LEAST = 10  # cells of a kind without which nothing is said of it
HOLDS = 0.15  # how far the claims may be off in the test split; a pair that does not know itself is no witness
GROUPS = ("infected", *(CLASSES[index] for index in INFECTED_INDEX))
TAILS = np.array([0.05, *[0.01] * (len(GROUPS) - 1)])  # how often right labels of each kind are called wrong, at most


@dataclass(frozen=True)
class Contradictions:
    """Of I images and the kinds in GROUPS, (I, G) float64 each: cells that the incumbent calls so, those whose label is
    another than it names, and as many as its claims let expect.
    """

    asked: Floats
    contradicted: Floats
    expected: Floats

    def excess(self, weights: NDArray[np.int64]) -> Floats:
        """(R, G) share contradicted less share expected, by sample of images; NaN without a cell. weights: (R, I)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ (self.contradicted - self.expected)) / (weights @ self.asked))


@dataclass(frozen=True)
class LabelAudit:
    """The kind of cells whose labels look worst. asked, contradicted, expected: in the new fields; test_*: in the test
    split. low: lower bound (at TAILS) of how much greater the new fields' excess is, by resampling images of both; None
    where too little was asked, or the claims do not hold in the test split either.
    """

    kind: str
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
            return (
                "new labels: not looked at: too few cells, or the serving pair's claims do not hold in the test split",
                False,
            )
        said = (
            f"new labels: of {self.asked} cells that the serving pair calls {self.kind} they contradict "
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
    counts = np.array(rows, dtype=np.float64).reshape(-1, 3, len(GROUPS))
    return Contradictions(counts[:, 0], counts[:, 1], counts[:, 2])


def _of_image(truth: Instances, ignored: NDArray[np.float32], seen: Instances) -> Floats:
    """(3, G) asked, contradicted and expected."""
    called = seen.select(np.asarray(seen.probabilities[:, INFECTED_INDEX].sum(axis=1) >= CALLED))
    labels = np.full(len(called), -1, dtype=np.int64)  # nothing there
    for row, column in match_one_to_one(iou_matrix(called.boxes, truth.boxes), MATCH_IOU):
        labels[row] = truth.labels[column]
    left_open = (labels < 0) & (intersection_over_area(called.boxes, ignored) >= MATCH_IOU).any(axis=1)
    stages = called.probabilities[:, INFECTED_INDEX]
    named = INFECTED_INDEX[stages.argmax(axis=1)] if len(called) else labels
    rows = np.stack([np.ones(len(called)), labels != named, 1 - stages.max(axis=1, initial=0.0)])[:, ~left_open]
    kinds = np.concatenate([np.ones((1, len(called)), dtype=bool), INFECTED_INDEX[:, None] == named])[:, ~left_open]
    return np.asarray(rows.astype(np.float64) @ kinds.T.astype(np.float64))


def audit(new: Contradictions, test: Contradictions, *, resamples: int = 1000, seed: int = 0) -> LabelAudit:
    """Compare the new labels with the test split's. Images are resampled: cells of one field are not independent."""
    lows = np.full(len(GROUPS), -np.inf)
    enough = (new.asked.sum(axis=0) >= LEAST) & (test.asked.sum(axis=0) >= LEAST)
    enough &= np.nan_to_num(np.abs(test.excess(np.ones((1, len(test.asked)), dtype=np.int64))[0]), nan=1.0) <= HOLDS
    if enough.any():
        samples = [
            counts.excess(resampled_weights(len(counts.asked), resamples, seed + number))
            for number, counts in enumerate((new, test))
        ]
        differences = (samples[0] - samples[1])[:, enough]
        lows[enough] = [np.nanquantile(column, tail) for column, tail in zip(differences.T, TAILS[enough], strict=True)]
    worst = int(lows.argmax())
    counts = [
        float(part[:, worst].sum()) for each in (new, test) for part in (each.asked, each.contradicted, each.expected)
    ]
    return LabelAudit(
        kind=GROUPS[worst],
        asked=int(counts[0]),
        contradicted=int(counts[1]),
        expected=counts[2],
        test_asked=int(counts[3]),
        test_contradicted=int(counts[4]),
        test_expected=counts[5],
        low=float(lows[worst]) if enough.any() else None,
    )
