"""Everything that decides what a training gives, beside its samples; and how often each class is to count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from al_loop.crops import Augmentation
from al_loop.dataset import TrainingSample
from backend.detect import DetectorConfig
from backend.instances import role_classes

CLASS_WEIGHTS = (0.5, 3.0)  # of the mean: beyond, a handful of rare cells would decide what is learned


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what comes out, beside the samples and the pretrained trunk.

    A step learns from batch_size * accumulate crops, batch_size of them in memory at a time.
    """

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    steps: int = 300
    batch_size: int = 2
    accumulate: int = 1
    crop: int = 384  # px at training size; 0: whole images. 384 holds about 15 cells and costs a third of a field
    rare_share: float = 0.5  # of the crops are centred on a rare class; 0.75 suits `infected`
    class_balance: float = 0.0  # the classifier's loss weighs a class by its frequency to minus this; 0: all alike
    learning_rate: float = 1e-3  # AdamW, for pyramid and heads
    trunk_rate: float = 0.3  # the pretrained trunk learns at this share of it
    base: str | None = None  # sha256 of the detector that training begins with; None: pretrained trunk, new heads
    trunk: str | None = None  # sha256 of the weight file whose trunk is taken as it is; None: an own one learns
    views: int = 4  # with a frozen trunk: how many crops there are around each rare cell
    weight_decay: float = 1e-2
    warmup_steps: int = 40
    clip_norm: float = 5.0
    ema_decay: float = 0.995  # reached slowly, so that short trainings are not held back by their start
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    checkpoint_steps: int = 50
    bf16: bool | None = None  # None: on CUDA only

    @property
    def crops_per_step(self) -> int:
        """What one step of the optimizer learns from, whatever the memory and the number of processes."""
        return self.batch_size * self.accumulate

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def data_hash(samples: Sequence[TrainingSample]) -> str:
    """sha256 (hex) over all that is taught: images, boxes, labels, masks, ignored and reviewed regions, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.sha256.encode())
        digest.update(sample.boxes.tobytes())
        digest.update("|".join(sample.labels).encode())
        digest.update("|".join(sample.mask_sources).encode())
        for mask in sample.masks:
            digest.update(b"-" if mask is None else mask["counts"])
        digest.update(sample.ignore_boxes.tobytes())
        if sample.reviewed is not None:
            digest.update(b"partial" + sample.reviewed.tobytes())
    return digest.hexdigest()


def training_identity(config: TrainingConfig, samples: Sequence[TrainingSample]) -> str:
    """sha256 over everything that decides the result; a checkpoint of another training is not resumed."""
    return hashlib.sha256((json.dumps(config.to_json(), sort_keys=True) + data_hash(samples)).encode()).hexdigest()


def class_weights(config: TrainingConfig, samples: Sequence[TrainingSample]) -> Tensor | None:
    """Factors (1 + K,) float32 of the classifier's loss, background first (1); None when all are alike.

    A class counts by its frequency to the power of -class_balance, within CLASS_WEIGHTS of the mean; scaled so that
    the mean over all training cells is 1. A class without a cell counts 1.
    """
    if not config.class_balance:
        return None
    classes = role_classes(config.detector.role)
    counts = np.array([sum(sample.labels.count(name) for sample in samples) for name in classes], dtype=np.float64)
    seen = counts > 0
    weights = np.ones(len(classes))
    if seen.any():
        weights[seen] = counts[seen] ** -config.class_balance
        for _ in range(2):  # scaled, clipped, and scaled again for what was clipped
            weights[seen] /= (weights * counts)[seen].sum() / counts.sum()
            weights[seen] = np.clip(weights[seen], *CLASS_WEIGHTS)
        weights[seen] /= (weights * counts)[seen].sum() / counts.sum()
    return torch.tensor([1.0, *weights], dtype=torch.float32)
