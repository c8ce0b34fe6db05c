"""Other ways to make one set of cells out of what the two detectors saw, as competitors of our fusion. Pure.

Each takes the detections of `all_cells` and of `infected` in one image and gives Instances. The class-by-class ways
treat detections as torchvision's detectors hand them out: one box per class that reaches BOX_FLOOR, so one cell may
come out twice, "red .9" and "ring .8".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms, nms

from backend.errors import ComparisonUnavailable
from backend.fuse import FusionConfig, fuse
from backend.instances import CLASSES, Instances
from backend.overlap import iou_matrix

BOX_FLOOR = 0.05  # torchvision's default

Fusion = Callable[[Instances, Instances], Instances]

IOU = 0.5  # from which two boxes are one cell, the same for all


def union(all_cells: Instances, infected: Instances) -> Instances:
    """All boxes of both, duplicates included."""
    both = (all_cells, infected)
    return Instances(
        image_size=all_cells.image_size,
        boxes=np.concatenate([view.boxes for view in both]),
        labels=np.concatenate([view.labels for view in both]),
        scores=np.concatenate([view.scores for view in both]),
        probabilities=np.concatenate([view.probabilities for view in both]),
    )


def by_class(view: Instances) -> Instances:
    """One box per detection and class of probability >= BOX_FLOOR; that probability is its score."""
    rows, labels = np.nonzero(view.probabilities >= BOX_FLOOR)
    return Instances.of(view.image_size, view.boxes[rows], labels, view.probabilities[rows, labels])


def nms_of_both(all_cells: Instances, infected: Instances) -> Instances:
    """The surest of boxes that overlap, whatever their classes, with its whole class distribution."""
    both = union(all_cells, infected)
    kept = nms(torch.from_numpy(both.boxes), torch.from_numpy(both.scores), IOU)
    return both.select(kept.numpy())


def nms_by_class(all_cells: Instances, infected: Instances) -> Instances:
    """The surest of boxes of one class that overlap: every class comes as the detectors gave it."""
    both = union(by_class(all_cells), by_class(infected))
    kept = batched_nms(*(torch.from_numpy(a) for a in (both.boxes, both.scores, both.labels)), IOU)
    return both.select(kept.numpy())


def wbf_by_class(all_cells: Instances, infected: Instances) -> Instances:
    """Weighted Boxes Fusion (Solovyev et al., arXiv 1910.13302) with both models weighing the same."""
    views = [by_class(all_cells), by_class(infected)]
    boxes, scores, labels = _wbf(views, [view.labels for view in views])
    return Instances.of(all_cells.image_size, boxes, labels, scores)


def wbf_of_both(all_cells: Instances, infected: Instances) -> Instances:
    """Weighted Boxes Fusion whatever the class; class distributions are averaged as it averages scores."""
    views = [all_cells, infected]
    boxes, _, _ = _wbf(views, [np.zeros(len(view), dtype=np.int64) for view in views])
    if not len(boxes):
        return Instances.empty(all_cells.image_size)
    both = union(all_cells, infected)
    home = iou_matrix(both.boxes, boxes).argmax(axis=1)  # the fused box that each box went into
    members = np.bincount(home, minlength=len(boxes))
    summed = np.zeros((len(boxes), len(CLASSES)))
    np.add.at(summed, home, both.probabilities)
    probabilities = (summed / np.maximum(members, len(views))[:, None]).astype(np.float32)
    return Instances(
        image_size=all_cells.image_size,
        boxes=boxes,
        labels=probabilities.argmax(axis=1).astype(np.int64),
        scores=np.clip(probabilities.sum(axis=1), 0, 1),
        probabilities=probabilities,
    )


def _wbf(
    views: list[Instances], labels: list[NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    try:
        from ensemble_boxes import weighted_boxes_fusion
    except ImportError as error:
        raise ComparisonUnavailable(
            f"Weighted Boxes Fusion: expected the package ensemble-boxes, got: {error}; run: pip install -e '.[dev]'"
        ) from error
    height, width = views[0].image_size
    size = np.array([width, height] * 2, dtype=np.float64)
    boxes, scores, classes = weighted_boxes_fusion(
        [view.boxes / size for view in views], [view.scores for view in views], labels, iou_thr=IOU
    )
    pixels: NDArray[Any] = np.clip(boxes, 0, 1) * size
    return pixels.astype(np.float32), np.clip(scores, 0, 1).astype(np.float32), classes.astype(np.int64)


def all_cells_alone(all_cells: Instances, infected: Instances) -> Instances:
    """As if there were no second detector."""
    return all_cells


def infected_alone(all_cells: Instances, infected: Instances) -> Instances:
    """As if there were no first detector."""
    return infected


def ours(config: FusionConfig) -> Fusion:
    """Our fusion with these settings."""
    return lambda all_cells, infected: fuse(all_cells, infected, config).cells


COMPETITORS: Mapping[str, Fusion] = {
    "all_cells": all_cells_alone,
    "infected": infected_alone,
    "NMS": nms_of_both,
    "NMS by class": nms_by_class,
    "WBF": wbf_of_both,
    "WBF by class": wbf_by_class,
}
