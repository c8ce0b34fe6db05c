"""The expert of a simulation: knows the truth, errs at a given rate, and takes time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.simulate_heads import NO_CELL, UNDECIDED
from backend.instances import CLASS_INDEX

RED = CLASS_INDEX["red blood cell"]


@dataclass(frozen=True)
class Expert:
    """error_rate: share of the decided answers that name something else, any other class or "no cell" alike.

    seconds_per_crop: to confirm a red cell in a crop; other_factor: how many times that for any other answer, which
    takes a second look and a click. seconds_per_image, seconds_per_cell: of reading a whole field instead, as
    `acquisition.AcquisitionConfig` has them.
    """

    error_rate: float = 0.0
    seconds_per_crop: float = 3.5
    other_factor: float = 2.0
    seconds_per_image: float = 10.0
    seconds_per_cell: float = 0.5

    def answers(self, truth: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """(N,) int64 what is answered where this is true; a cell gets the same answer whenever it is asked about."""
        wrong = (rng.random(len(truth)) < self.error_rate) & (truth != UNDECIDED)
        other = (truth + rng.integers(1, NO_CELL + 1, len(truth))) % (NO_CELL + 1)
        return np.where(wrong, other, truth)

    def seconds(self, answers: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N,) float64, for each of these answers."""
        return self.seconds_per_crop * np.where(answers == RED, 1.0, self.other_factor)

    def seconds_in_fields(self, images: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N,) float64, for cells reviewed image after image; the first of each takes the opening. images: (N,)."""
        first = np.zeros(len(images), dtype=bool)
        first[np.unique(images, return_index=True)[1]] = True
        return self.seconds_per_cell + self.seconds_per_image * first
