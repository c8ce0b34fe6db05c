"""Which true cell each detection of an image is, and what follows from deciding: confusion, precision, recall, F1.

One matching whatever the class, greedy by falling P(there is a cell), IoU >= 0.5. Leaving out the least sure detections
never changes what the others were matched to, so one matching serves every threshold and the calibration as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.metrics import MATCH_IOU
from backend.instances import CLASSES, INFECTED_INDEX, Instances
from backend.overlap import intersection_over_area, iou_matrix

Floats = NDArray[np.float64]

NOTHING = len(CLASSES)  # row: a detection where there is no cell (spurious); column: a cell nobody saw (missed)
GRID = np.round(np.arange(0.05, 0.96, 0.05), 2)


@dataclass(frozen=True)
class Assigned:
    """The D detections of one image, and which of its T true cells each of them is.

    truth: (D,) int64, index of a true cell or -1. counted: (D,) bool, False on a region to ignore (neither right nor
    wrong). presence: (D,) float64, P(there is a cell). infected: (D,) float64, P(an infected cell). red: (D,) float64.
    labels: (D,) int64. called: (D,) float64, P(a cell of that label). true_labels: (T,) int64.
    """

    truth: NDArray[np.int64]
    counted: NDArray[np.bool_]
    presence: Floats
    infected: Floats
    red: Floats
    labels: NDArray[np.int64]
    called: Floats
    true_labels: NDArray[np.int64]

    def decided(self, threshold: float) -> NDArray[np.bool_]:
        """(D,) bool: the detections that count and are cells at this P(there is a cell)."""
        return self.counted & (self.presence >= threshold)

    def is_infected(self) -> NDArray[np.bool_]:
        """(D,) bool: the detection is a true infected cell."""
        return (self.truth >= 0) & np.isin(self.true_class(), INFECTED_INDEX)

    def true_class(self) -> NDArray[np.int64]:
        """(D,) int64: class of the true cell each detection is, NOTHING where there is none."""
        return np.append(self.true_labels, NOTHING)[self.truth]

    def confusion(self, threshold: float) -> NDArray[np.int64]:
        """(7, 7) int64 counts: true class (last row: nothing there) by decided class (last column: missed)."""
        kept = self.decided(threshold)
        table = np.zeros((NOTHING + 1, NOTHING + 1), dtype=np.int64)
        np.add.at(table, (self.true_class()[kept], self.labels[kept]), 1)
        missed = np.setdiff1d(np.arange(len(self.true_labels)), self.truth[kept])
        np.add.at(table, (self.true_labels[missed], np.full(len(missed), NOTHING)), 1)
        return table


def assign(truth: Instances, regions: NDArray[Any], seen: Instances) -> Assigned:
    """Match the detections of one image with its true cells. regions: (K, 4) boxes xyxy px to ignore."""
    iou = iou_matrix(seen.boxes, truth.boxes)
    presence = seen.probabilities.sum(axis=1, dtype=np.float64)
    partner = np.full(len(seen), -1, dtype=np.int64)
    free = np.where(iou >= MATCH_IOU, iou, 0.0)
    for row in np.argsort(-presence, kind="stable") if free.size else ():
        best = int(free[row].argmax())
        if free[row, best] > 0:
            partner[row] = best
            free[:, best] = 0.0
    inside = intersection_over_area(seen.boxes, np.asarray(regions, dtype=np.float32).reshape(-1, 4)) >= MATCH_IOU
    return Assigned(
        truth=partner,
        counted=(partner >= 0) | ~inside.any(axis=1),
        presence=presence,
        infected=seen.probabilities[:, INFECTED_INDEX].sum(axis=1, dtype=np.float64),
        red=seen.probabilities[:, 0].astype(np.float64),
        labels=seen.labels,
        called=seen.probabilities[np.arange(len(seen)), seen.labels].astype(np.float64),
        true_labels=truth.labels,
    )


@dataclass(frozen=True)
class Decisions:
    """Confusion tables of I images at one threshold. tables: (I, 7, 7) int64, see `Assigned.confusion`."""

    threshold: float
    tables: NDArray[np.int64]

    @classmethod
    def of(cls, images: Sequence[Assigned], threshold: float) -> Decisions:
        return cls(threshold, np.stack([image.confusion(threshold) for image in images]))

    def confusion(self) -> NDArray[np.int64]:
        """(7, 7) int64: all images together."""
        return np.asarray(self.tables.sum(axis=0))

    def score(self, name: str, classes: Sequence[int], weights: NDArray[np.int64]) -> Floats:
        """(R,) precision, recall or f1 of these classes taken as one, NaN where undefined. weights: (R, I)."""
        chosen = np.asarray(classes)
        hits = self.tables[:, chosen[:, None], chosen].sum(axis=(1, 2))
        true = self.tables[:, chosen].sum(axis=(1, 2))
        called = self.tables[:, :, chosen].sum(axis=(1, 2))
        hits, true, called = (weights @ counts for counts in (hits, true, called))
        with np.errstate(invalid="ignore", divide="ignore"):
            if name == "f1":
                return np.where(true > 0, 2 * hits / (true + called), np.nan)
            return np.asarray(hits / {"precision": called, "recall": true}[name])

    def macro_f1(self, classes: Sequence[int], weights: NDArray[np.int64]) -> Floats:
        """(R,) float64: mean F1 over those classes that occur; NaN where none does."""
        each = np.stack([self.score("f1", [index], weights) for index in classes])
        known = np.isfinite(each)
        with np.errstate(invalid="ignore"):
            return np.asarray(
                np.where(known, each, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
            )


def best_decisions(images: Sequence[Assigned], classes: Sequence[int]) -> Decisions:
    """The decisions at the threshold of GRID under which the macro F1 of these classes is highest."""
    once = np.ones((1, len(images)), dtype=np.int64)
    candidates = [Decisions.of(images, float(threshold)) for threshold in GRID]
    values = [float(np.nan_to_num(decisions.macro_f1(classes, once)[0])) for decisions in candidates]
    return candidates[int(np.argmax(values))]
