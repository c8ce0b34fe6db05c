"""The training recipe of each role: what retraining, cross-validation and starter weights have in common."""

from __future__ import annotations

from typing import Any

from al_loop.train_config import TrainingConfig
from backend.detect import DetectorConfig

# `infected` looks for single cells: four small crops around four of them teach it more than two large ones, at the
# same cost. Most are centred on a parasite; the others keep it from seeing parasites everywhere.
RECIPES: dict[str, dict[str, Any]] = {
    "all_cells": {"crop": 384, "batch_size": 2, "rare_share": 0.5},
    "infected": {"crop": 256, "batch_size": 4, "rare_share": 0.65},
}


def recipe(detector: DetectorConfig, steps: int) -> TrainingConfig:
    """How a detector of this role is trained for so many steps."""
    return TrainingConfig(detector=detector, steps=steps, **RECIPES[detector.role])
