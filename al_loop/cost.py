"""How many seconds of an expert's time a look costs, learned from the lead times that Label Studio reports.

A field takes t0 + t1 * cells, the crop of one cell takes t. Readers differ by factors and answer the telephone, so
ratios are fitted, not differences, and far ones count less (soft L1 loss; scipy's `least_squares`). Logarithms of the
times are the unknowns: no time can become zero or negative. What is believed before anything was measured enters as
one more observation of each, so few lead times move the model a little and many move it wherever they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

LONGEST_S = 1800.0  # a lead time above half an hour was a pause
SPREAD = 0.6  # standard deviation of log(seconds) between looks at the same thing
DOUBT = 0.4  # standard deviation of log(prior): a factor of 1.5


@dataclass(frozen=True)
class SecondsModel:
    """Typical seconds of a look: field_base + field_per_cell * cells for a field, `cell` for a crop; all above 0.

    fields, cells: how many lead times of either it was learned from. left_out: how many were no durations of a look.
    The numbers of a new model are what is believed before anything was measured.
    """

    field_base: float = 10.0
    field_per_cell: float = 0.5
    cell: float = 4.0
    fields: int = 0
    cells: int = 0
    left_out: int = 0

    def __post_init__(self) -> None:
        seconds = (self.field_base, self.field_per_cell, self.cell)
        if not all(np.isfinite(value) and value > 0 for value in seconds):
            raise ValueError(f"expected seconds above 0 for a field, each of its cells, and a crop; got {seconds}")

    def of_fields(self, cells: NDArray[np.integer] | Sequence[int]) -> NDArray[np.float64]:
        """(N,) float64: seconds for fields with so many cells to review; more cells never take less."""
        return self.field_base + self.field_per_cell * np.asarray(cells, dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SecondsModel:
        """The model that `to_json` gave. Raises TypeError or ValueError for anything else."""
        return cls(**values)


PRIOR = SecondsModel()


def learn_seconds(
    fields: Sequence[tuple[int, float]], cells: Sequence[float], prior: SecondsModel = PRIOR
) -> SecondsModel:
    """The model that the lead times speak for.

    fields: (cells to review, seconds) per reviewed field. cells: seconds per reviewed crop. Lead times that are not
    finite, not above 0 or above half an hour are left out. Raises ValueError for a negative number of cells.
    """
    counts = np.array([count for count, _ in fields], dtype=np.float64)
    if (counts < 0).any():
        raise ValueError(f"expected numbers of cells of at least 0, got {int(counts.min())}")
    field_seconds = np.array([seconds for _, seconds in fields], dtype=np.float64)
    crop_seconds = np.asarray(cells, dtype=np.float64)
    looks, crops = _is_look(field_seconds), _is_look(crop_seconds)
    design = np.stack([np.ones(looks.sum()), counts[looks]], axis=1)
    base, per_cell = _fit(design, field_seconds[looks], np.array([prior.field_base, prior.field_per_cell]))
    (cell,) = _fit(np.ones((crops.sum(), 1)), crop_seconds[crops], np.array([prior.cell]))
    left_out = int((~looks).sum() + (~crops).sum())
    return SecondsModel(base, per_cell, cell, int(looks.sum()), int(crops.sum()), left_out)


def _is_look(seconds: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(seconds) & (seconds > 0) & (seconds <= LONGEST_S)


def _fit(design: NDArray[np.float64], seconds: NDArray[np.float64], prior: NDArray[np.float64]) -> list[float]:
    """Positive factors of design (N, P) that give seconds (N,) > 0; prior: (P,)."""
    if not len(seconds):
        return [float(value) for value in prior]

    def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        looks = (np.log(seconds) - np.log(design @ np.exp(logs))) / SPREAD
        return np.concatenate([looks, (logs - np.log(prior)) / DOUBT])

    def jacobian(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = design * np.exp(logs)
        return np.concatenate([-parts / parts.sum(axis=1, keepdims=True) / SPREAD, np.eye(len(logs)) / DOUBT])

    found = least_squares(residuals, np.log(prior), jac=jacobian, loss="soft_l1")
    return [float(value) for value in np.exp(found.x)]
