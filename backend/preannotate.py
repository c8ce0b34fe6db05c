"""What the expert is shown first: both detectors look at the image, and their answers are fused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.detect import Detector
from backend.fuse import FusionConfig, fuse
from backend.instances import FusedInstances, Instances, Rle
from backend.look import Sight


@dataclass(frozen=True)
class Pair:
    """Two detectors that serve together, and how to fuse them. name: the model_version shown in Label Studio."""

    name: str
    all_cells: Detector
    infected: Detector
    fusion: FusionConfig


@dataclass(frozen=True)
class PreAnnotation:
    """The cells proposed for one image, what each looks like, and the seconds it took to find them.

    embeddings: (N, EMBEDDING_SIZE) float32 of unit length, as `all_cells` sees the fused boxes (`backend/embed.py`).
    """

    fused: FusedInstances
    embeddings: NDArray[np.float32]
    seconds: float


def preannotate(image: NDArray[np.uint8], pair: Pair, masks: bool = False) -> PreAnnotation:
    """Propose the cells of image (h, w, 3) uint8 RGB: detect twice, fuse once, leave out what is hardly a cell.

    Masks cost extra: only on request, and only of the cells that are proposed.
    """
    started = time.perf_counter()
    sights = look_twice(image, pair)
    fused = fuse(signed(sights[0].cells, 0), signed(sights[1].cells, 1), pair.fusion)
    likely = fused.cells.probabilities.sum(axis=1) >= pair.fusion.show_threshold
    proposed = with_masks(fused.select(likely), sights if masks else None)
    embeddings = sights[0].embeddings(proposed.cells.boxes)
    return PreAnnotation(proposed, embeddings, time.perf_counter() - started)


def look_twice(image: NDArray[np.uint8], pair: Pair) -> tuple[Sight, Sight]:
    """What `all_cells` and what `infected` see in image (h, w, 3) uint8 RGB; a trunk they share runs once."""
    all_cells = pair.all_cells.look(image)
    return all_cells, pair.infected.look(image, beside=all_cells)


def signed(cells: Instances, model: int) -> Instances:
    """The cells with the number of the model that saw them where their masks belong.

    Fusion keeps the surer model's mask of each cell without looking into it, and so tells us whom to ask for it.
    """
    return replace(cells, masks=[{"size": cells.image_size, "model": model}] * len(cells))


def with_masks(fused: FusedInstances, sights: Sequence[Sight] | None) -> FusedInstances:
    """Fused `signed` cells with the masks of their boxes, each from the sight of the surer model; None: without."""
    if sights is None:
        return replace(fused, cells=replace(fused.cells, masks=()))
    surer = np.array([mask["model"] for mask in fused.cells.masks], dtype=np.int64)
    masks: list[Rle] = [{}] * len(fused)
    for model, sight in enumerate(sights):
        rows = np.flatnonzero(surer == model)
        for row, mask in zip(rows, sight.masks(fused.cells.boxes[rows]), strict=True):
            masks[row] = mask
    return replace(fused, cells=replace(fused.cells, masks=masks))
