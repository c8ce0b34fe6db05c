"""Trainings small enough for tests: two rendered fields, a few steps, one thread."""

from __future__ import annotations

from pathlib import Path

import cv2

from al_loop.dataset import TrainingSample
from al_loop.render import Smear, render_smear
from al_loop.train_config import TrainingConfig
from backend.detect import DetectorConfig

TINY = TrainingConfig(
    detector=DetectorConfig(short_side=128, max_side=256),
    steps=6,
    batch_size=1,
    crop=96,
    warmup_steps=2,
    checkpoint_steps=4,
)


def sample_of(smear: Smear, folder: Path, name: str) -> TrainingSample:
    """A rendered field as a training sample, masks included."""
    path = folder / f"{name}.png"
    cv2.imwrite(str(path), smear.image[..., ::-1])
    return TrainingSample(
        sha256=name.ljust(64, "0"),
        path=path,
        boxes=smear.cells.boxes,
        labels=tuple(smear.cells.class_names()),
        masks=tuple(smear.cells.masks),
        mask_sources=("expert",) * len(smear.cells),
        ignore_boxes=smear.difficult,
    )


def two_fields(folder: Path) -> list[TrainingSample]:
    """Two small fields with red and infected cells."""
    return [sample_of(render_smear(seed, (128, 160), cells=12, infected=0.3), folder, str(seed)) for seed in (1, 2)]
