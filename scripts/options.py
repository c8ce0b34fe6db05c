"""Option values that several commands offer, spelled out here so that `--help` needs no model and no database."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The two detectors; a test compares them with `backend.instances.ROLES`."""

    all_cells = "all_cells"
    infected = "infected"


class Preset(StrEnum):
    """Backbones: `lite` for machines without a GPU, `resnet50` for those with one."""

    lite = "lite"
    resnet50 = "resnet50"
