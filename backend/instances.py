"""Cells found in one image: the type that flows through detecting, fusing, ranking and evaluating.

Masks are COCO run-length encodings, not dense arrays: 300 dense masks at 1500 x 1500 px are 675 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import InvalidInstances

# Order is part of every stored probability vector and every weight file: append, never reorder.
CLASSES: tuple[str, ...] = (
    "red blood cell",
    "trophozoite",
    "ring",
    "schizont",
    "gametocyte",
    "leukocyte",
)
INFECTED: tuple[str, ...] = ("gametocyte", "ring", "schizont", "trophozoite")
DIFFICULT = "difficult"  # a label an expert may give; never a class a detector learns

ROLES: tuple[str, ...] = ("all_cells", "infected")
CLASS_INDEX: dict[str, int] = {name: index for index, name in enumerate(CLASSES)}
INFECTED_INDEX: NDArray[np.int64] = np.array(sorted(CLASS_INDEX[name] for name in INFECTED), dtype=np.int64)

Rle = dict[str, Any]  # COCO: {"size": [h, w], "counts": bytes}


def role_classes(role: str) -> tuple[str, ...]:
    """Classes the detector of this role learns, in the order of its output channels (background excluded)."""
    if role == "all_cells":
        return CLASSES
    if role == "infected":
        return tuple(name for name in CLASSES if name in INFECTED)
    raise ValueError(f"expected a role of {ROLES}, got {role!r}")


def _check_array(name: str, value: object, shape: tuple[int, ...], dtype: type) -> None:
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != dtype:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise InvalidInstances(f"{name}: expected {np.dtype(dtype)} of shape {shape}, got {got}")


@dataclass(frozen=True)
class Instances:
    """N cells of one image, as one detector (or an expert, with score 1) sees them.

    image_size: (h, w) in px. boxes: (N, 4) float32 xyxy in px, x2 > x1 and y2 > y1, inside the image.
    labels: (N,) int64, index into CLASSES. scores: (N,) float32 in [0, 1].
    probabilities: (N, len(CLASSES)) float32, one row per cell summing to at most 1 (the rest is background).
    masks: N COCO RLEs of the whole image, or empty when no mask was asked for.
    Raises InvalidInstances when these do not agree.
    """

    image_size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    masks: Sequence[Rle] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.labels)
        _check_array("boxes", self.boxes, (n, 4), np.float32)
        _check_array("labels", self.labels, (n,), np.int64)
        _check_array("scores", self.scores, (n,), np.float32)
        _check_array("probabilities", self.probabilities, (n, len(CLASSES)), np.float32)
        if len(self.masks) not in (0, n):
            raise InvalidInstances(f"masks: expected none or {n} run-length encodings, got {len(self.masks)}")
        for rle in self.masks:
            if tuple(rle["size"]) != tuple(self.image_size):
                raise InvalidInstances(f"mask size: expected {self.image_size}, got {tuple(rle['size'])}")
        if not n:
            return
        for name in ("boxes", "scores", "probabilities"):
            if not np.isfinite(getattr(self, name)).all():
                raise InvalidInstances(f"{name}: expected finite numbers, got NaN or infinity")
        height, width = self.image_size
        x1, y1, x2, y2 = self.boxes.T
        if (x2 <= x1).any() or (y2 <= y1).any():
            raise InvalidInstances("boxes: expected x2 > x1 and y2 > y1, got a degenerate box")
        if self.boxes.min() < -0.5 or x2.max() > width + 0.5 or y2.max() > height + 0.5:
            raise InvalidInstances(
                f"boxes: expected coordinates inside {width} x {height} px, got up to "
                f"({x2.max():.1f}, {y2.max():.1f}) and down to {self.boxes.min():.1f}"
            )
        if self.labels.min() < 0 or self.labels.max() >= len(CLASSES):
            raise InvalidInstances(f"labels: expected 0..{len(CLASSES) - 1}, got {self.labels.max()}")
        if self.scores.min() < 0 or self.scores.max() > 1 + 1e-6:
            raise InvalidInstances("scores: expected values in [0, 1]")
        if self.probabilities.min() < 0 or self.probabilities.sum(axis=1).max() > 1 + 1e-3:
            raise InvalidInstances("probabilities: expected non-negative rows summing to at most 1")

    def __len__(self) -> int:
        return len(self.labels)

    def class_names(self) -> list[str]:
        """Class name of each cell, in order."""
        return [CLASSES[index] for index in self.labels]

    def select(self, keep: NDArray[Any]) -> Instances:
        """The cells at `keep`: a boolean mask (N,) or integer indices (K,)."""
        indices = np.flatnonzero(keep) if keep.dtype == bool else keep
        return Instances(
            image_size=self.image_size,
            boxes=self.boxes[indices],
            labels=self.labels[indices],
            scores=self.scores[indices],
            probabilities=self.probabilities[indices],
            masks=[self.masks[i] for i in indices] if len(self.masks) else (),
        )

    @classmethod
    def empty(cls, image_size: tuple[int, int]) -> Instances:
        """No cell at all."""
        return cls.of(image_size, np.zeros((0, 4)), np.zeros(0, dtype=np.int64))

    @classmethod
    def of(
        cls,
        image_size: tuple[int, int],
        boxes: NDArray[Any],
        labels: NDArray[Any],
        scores: NDArray[Any] | None = None,
        masks: Sequence[Rle] = (),
    ) -> Instances:
        """Build from boxes (N, 4) xyxy px and labels (N,) alone; the score is the probability of the label."""
        labels = np.asarray(labels, dtype=np.int64).reshape(-1)
        scores = np.ones(len(labels), dtype=np.float32) if scores is None else scores.astype(np.float32)
        probabilities = np.zeros((len(labels), len(CLASSES)), dtype=np.float32)
        probabilities[np.arange(len(labels)), labels] = scores
        return cls(
            image_size=image_size,
            boxes=np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
            labels=labels,
            scores=scores,
            probabilities=probabilities,
            masks=masks,
        )


SOURCES: tuple[str, ...] = ("both", "all_cells", "infected")


@dataclass(frozen=True)
class FusedInstances:
    """The cells of one image after fusion: one class distribution per cell, and where it came from.

    cells: the fused Instances; `labels` is decided in two steps, infected or not and then which class; `scores` is
    its probability. score_all_cells, score_infected: (N,) float32, raw (uncalibrated) score of each model's best
    class, NaN where that model saw nothing. sources: (N,) int64, index into SOURCES.
    pair_iou: (N,) float32, IoU of the two boxes, NaN unless both saw the cell.
    disputed: (N,) bool, all_cells says not infected and infected says infected (or their stages differ).
    """

    cells: Instances
    score_all_cells: NDArray[np.float32]
    score_infected: NDArray[np.float32]
    sources: NDArray[np.int64]
    pair_iou: NDArray[np.float32]
    disputed: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.cells)
        _check_array("score_all_cells", self.score_all_cells, (n,), np.float32)
        _check_array("score_infected", self.score_infected, (n,), np.float32)
        _check_array("sources", self.sources, (n,), np.int64)
        _check_array("pair_iou", self.pair_iou, (n,), np.float32)
        _check_array("disputed", self.disputed, (n,), np.bool_)

    def __len__(self) -> int:
        return len(self.cells)

    def select(self, keep: NDArray[Any]) -> FusedInstances:
        """The cells at `keep`: a boolean mask (N,) or integer indices (K,)."""
        return FusedInstances(
            cells=self.cells.select(keep),
            score_all_cells=self.score_all_cells[keep],
            score_infected=self.score_infected[keep],
            sources=self.sources[keep],
            pair_iou=self.pair_iou[keep],
            disputed=self.disputed[keep],
        )
