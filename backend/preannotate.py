"""What the expert is shown first: both detectors look at the image, and their answers are fused."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.detect import Detector
from backend.fuse import FusionConfig, fuse
from backend.instances import FusedInstances


@dataclass(frozen=True)
class Pair:
    """Two detectors that serve together, and how to fuse them. name: the model_version shown in Label Studio."""

    name: str
    all_cells: Detector
    infected: Detector
    fusion: FusionConfig


@dataclass(frozen=True)
class PreAnnotation:
    """The cells proposed for one image, and the seconds it took to find them."""

    fused: FusedInstances
    seconds: float


def preannotate(image: NDArray[np.uint8], pair: Pair, masks: bool = False) -> PreAnnotation:
    """Propose the cells of image (h, w, 3) uint8 RGB: detect twice, fuse once, leave out what is hardly a cell.

    Masks cost extra: only on request.
    """
    started = time.perf_counter()
    all_cells = pair.all_cells.detect(image, masks)
    infected = pair.infected.detect(image, masks)
    fused = fuse(all_cells, infected, pair.fusion)
    likely = fused.cells.probabilities.sum(axis=1) >= pair.fusion.show_threshold
    return PreAnnotation(fused.select(likely), time.perf_counter() - started)
