"""What a detector is trained on and judged by: labelled images and their current labels, read from SQL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.instances import Rle


@dataclass(frozen=True)
class TrainingSample:
    """One image as a detector's training sees it.

    sha256, path: of the image file. boxes: (N, 4) float32 xyxy px. labels: N class names of the role.
    masks: N COCO RLEs of the whole image (None: this cell has a box only). mask_sources: N of
    expert | otsu | ellipse | none. ignore_boxes: (M, 4) float32 xyxy px, neither cell nor background.
    """

    sha256: str
    path: Path
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]
    masks: tuple[Rle | None, ...]
    mask_sources: tuple[str, ...]
    ignore_boxes: NDArray[np.float32]
