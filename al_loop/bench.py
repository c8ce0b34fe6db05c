"""Detectors by their weights, and what each saw in stored images, so that nothing is loaded or detected twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from al_loop.dataset import LabelledImage
from backend.detect import Detector, load_detector, pick_device
from backend.images import read_image
from backend.instances import ROLES, Instances
from backend.store import FileStore, weights_file
from db.models import ModelVersion


@dataclass(frozen=True)
class Contestant:
    """Two versions that serve together, or would. Plain values: safe outside of a session."""

    all_cells_id: int
    infected_id: int
    weights: tuple[str, str]  # sha256 of all_cells, of infected

    @classmethod
    def of(cls, first: ModelVersion, second: ModelVersion) -> Contestant:
        """The pair of these two versions, given in any order."""
        by_role = {version.role: version for version in (first, second)}
        all_cells, infected = (by_role[role] for role in ROLES)
        return cls(all_cells.id, infected.id, (all_cells.weights_sha256, infected.weights_sha256))

    def differs_from(self, other: Contestant) -> tuple[int, int]:
        """The ids of the one version in which two pairs differ: ours and theirs."""
        if self.all_cells_id != other.all_cells_id:
            return self.all_cells_id, other.all_cells_id
        return self.infected_id, other.infected_id


@dataclass
class Bench:
    """Where stored versions look at stored images. device: as in the settings. For one comparison, then dropped."""

    store: FileStore
    device: str
    _detectors: dict[str, Detector] = field(default_factory=dict)
    _seen: dict[tuple[str, str], Instances] = field(default_factory=dict)

    def see(self, weights_sha256: str, images: Iterable[LabelledImage]) -> list[Instances]:
        """What the detector with these weights sees in each image. Raises WeightsCorrupt, StoredFileCorrupt."""
        found = []
        for image in images:
            key = (weights_sha256, image.sha256)
            if key not in self._seen:
                self._seen[key] = self.detector(weights_sha256).detect(self.read(image))
            found.append(self._seen[key])
        return found

    def detector(self, weights_sha256: str) -> Detector:
        """The detector with these weights, from the store. Raises WeightsCorrupt, StoredFileCorrupt."""
        if weights_sha256 not in self._detectors:
            path = self.store.verify(weights_file(weights_sha256), weights_sha256)
            self._detectors[weights_sha256] = load_detector(path, weights_sha256, pick_device(self.device))
        return self._detectors[weights_sha256]

    def read(self, image: LabelledImage) -> NDArray[np.uint8]:
        """Pixels (h, w, 3) uint8 RGB of a stored image. Raises StoredFileCorrupt."""
        return read_image(self.store.read(image.file, image.sha256))
