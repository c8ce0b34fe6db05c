"""What an expert has to change in what a pair shows: cells to add, to delete, to call otherwise. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.metrics import MATCH_IOU
from backend.overlap import intersection_over_area, iou_matrix, match_one_to_one


@dataclass(frozen=True)
class Cells:
    """Cells of one image. boxes: (N, 4) float32 xyxy px. labels: N class names."""

    boxes: NDArray[np.float32]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Corrections:
    """Of one image. A box that only fits a little better is none: the expert saw another pair's boxes."""

    added: int
    deleted: int
    relabelled: int

    @property
    def total(self) -> int:
        return self.added + self.deleted + self.relabelled


def corrections(shown: Cells, answer: Cells, undecided: NDArray[np.float32]) -> Corrections:
    """What turns the shown cells into the answer. undecided: (K, 4) boxes that the expert called difficult.

    Cells are the same at IoU >= 0.5, one to one. A shown cell where the expert could not decide counts neither way.
    """
    pairs = match_one_to_one(iou_matrix(shown.boxes, answer.boxes), MATCH_IOU)
    alone = np.setdiff1d(np.arange(len(shown.labels)), [i for i, _ in pairs]).astype(np.int64)
    wrong = ~(intersection_over_area(shown.boxes[alone], undecided) >= MATCH_IOU).any(axis=1)
    return Corrections(
        added=len(answer.labels) - len(pairs),
        deleted=int(wrong.sum()),
        relabelled=sum(shown.labels[i] != answer.labels[j] for i, j in pairs),
    )
