"""What a clinician reads off: counts and parasitaemia per image; and whether a probability means what it says.

Parasitaemia is the share of infected red cells, infected / (infected + uninfected), in percent. Agreement with the
truth is described as Bland and Altman do: mean difference (bias) and limits within which 95 % of differences lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.judge_cells import Assigned, Floats
from backend.instances import CLASS_INDEX, INFECTED_INDEX

RED = CLASS_INDEX["red blood cell"]
BINS = 15


def parasitaemia(infected: NDArray[np.floating], red: NDArray[np.floating]) -> Floats:
    """Percent of infected cells per image; 0 where no cell was counted."""
    whole = np.asarray(infected, dtype=np.float64) + red
    return np.divide(100.0 * infected, whole, out=np.zeros_like(whole), where=whole > 0)


@dataclass(frozen=True)
class Counts:
    """Cells per image, (I,) float64 each. expected_*: sums of probabilities; they need no threshold."""

    true_infected: Floats
    true_red: Floats
    infected: Floats
    red: Floats
    expected_infected: Floats
    expected_red: Floats

    @classmethod
    def of(cls, images: Sequence[Assigned], threshold: float) -> Counts:
        rows = []
        for image in images:
            called = image.labels[image.decided(threshold)]
            rows.append(
                (
                    np.isin(image.true_labels, INFECTED_INDEX).sum(),
                    (image.true_labels == RED).sum(),
                    np.isin(called, INFECTED_INDEX).sum(),
                    (called == RED).sum(),
                    image.infected[image.counted].sum(),
                    image.red[image.counted].sum(),
                )
            )
        return cls(*np.asarray(rows, dtype=np.float64).T)

    def true_percent(self) -> Floats:
        """(I,) true parasitaemia."""
        return parasitaemia(self.true_infected, self.true_red)

    def percent(self) -> Floats:
        """(I,) parasitaemia by counting decided cells."""
        return parasitaemia(self.infected, self.red)

    def expected_percent(self) -> Floats:
        """(I,) parasitaemia by summing probabilities."""
        return parasitaemia(self.expected_infected, self.expected_red)

    def countable(self) -> NDArray[np.bool_]:
        """(I,) bool: images with a true red or infected cell; without one there is no parasitaemia."""
        return self.true_infected + self.true_red > 0


Statistic = Callable[[NDArray[np.int64]], Floats]  # weights (R, I) -> (R,), NaN where undefined


def agreement(truth: Floats, estimate: Floats, among: NDArray[np.bool_]) -> dict[str, Statistic]:
    """Mean absolute error, bias and 95 % limits of agreement of an estimate per image; weighted by image.

    among: (I,) bool, the images that are compared.
    """
    difference = np.where(among, estimate - truth, 0.0)

    def mean(values: Floats, weights: NDArray[np.int64]) -> Floats:
        counted = weights @ among.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ np.where(among, values, 0.0)) / counted)

    def spread(weights: NDArray[np.int64]) -> Floats:
        variance = mean(difference**2, weights) - mean(difference, weights) ** 2
        return 1.96 * np.sqrt(np.maximum(variance, 0.0))

    return {
        "mae": lambda weights: mean(np.abs(difference), weights),
        "bias": lambda weights: mean(difference, weights),
        "limit_low": lambda weights: mean(difference, weights) - spread(weights),
        "limit_high": lambda weights: mean(difference, weights) + spread(weights),
    }


@dataclass(frozen=True)
class Reliability:
    """Claimed and observed frequency in bins of equal mass: (I, B) sums per image and bin. B may be less than BINS."""

    claimed: Floats
    observed: Floats
    count: Floats

    @classmethod
    def of(cls, claims: Sequence[Floats], truths: Sequence[NDArray[np.bool_]]) -> Reliability:
        """claims: per image (D,) probabilities; truths: per image (D,), whether it was so. Equal claims share a bin."""
        p, y = np.concatenate([np.zeros(0), *claims]), np.concatenate([np.zeros(0, dtype=bool), *truths])
        image = np.repeat(np.arange(len(claims)), [len(claim) for claim in claims])
        edges = np.unique(np.quantile(p, np.linspace(0, 1, BINS + 1)[1:-1])) if len(p) else np.zeros(0)
        bins = len(edges) + 1
        place = image * bins + np.searchsorted(edges, p, side="right")

        def sums(values: Floats) -> Floats:
            return np.asarray(np.bincount(place, values, len(claims) * bins), dtype=np.float64).reshape(-1, bins)

        return cls(sums(p), sums(y.astype(np.float64)), sums(np.ones_like(p)))

    def error(self, weights: NDArray[np.int64]) -> Floats:
        """(R,) expected calibration error: mean |claimed - observed| over the bins, by their mass. NaN if empty."""
        gaps = np.abs(weights @ (self.claimed - self.observed)).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(gaps / (weights @ self.count.sum(axis=1)))

    def curve(self) -> tuple[Floats, Floats, Floats]:
        """Mean claim, observed frequency and number of detections, per bin that holds any."""
        n = self.count.sum(axis=0)
        held = n > 0
        return self.claimed.sum(axis=0)[held] / n[held], self.observed.sum(axis=0)[held] / n[held], n[held]

    def bins_to_json(self) -> dict[str, list[float]]:
        """The curve, by column."""
        claimed, observed, n = self.curve()
        return {"claimed": claimed.round(6).tolist(), "observed": observed.round(6).tolist(), "n": n.tolist()}

    def images_to_json(self) -> dict[str, list[list[float]]]:
        """The sums per image and bin: what a paired comparison of two evaluations resamples."""
        return {"claimed": self.claimed.round(6).tolist(), "observed": self.observed.tolist(), "n": self.count.tolist()}

    @classmethod
    def from_json(cls, rows: Mapping[str, Sequence[Sequence[float]]]) -> Reliability:
        """The inverse of `images_to_json`."""
        return cls(*(np.asarray(rows[name], dtype=np.float64) for name in ("claimed", "observed", "n")))
