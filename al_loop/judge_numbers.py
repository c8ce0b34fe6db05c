"""Numbers with their spread over resampled images, and how a judgement is put together and written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.judge_cells import Assigned, Decisions, Floats
from al_loop.judge_counts import Counts, Reliability, Statistic
from al_loop.metrics import Matches
from backend.instances import CLASSES

Key = tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """One number; None where it is undefined. samples: (R,) float64 under resampled images, NaN where undefined."""

    value: float | None
    samples: Floats

    @classmethod
    def of(cls, statistic: Statistic, weights: NDArray[np.int64]) -> Number:
        """weights: (R, I)."""
        return cls.at(float(statistic(np.ones((1, weights.shape[1]), dtype=np.int64))[0]), statistic(weights))

    @classmethod
    def at(cls, value: float, samples: Floats) -> Number:
        """A value computed elsewhere, NaN for undefined."""
        return cls(value if np.isfinite(value) else None, samples)

    def interval(self) -> tuple[float, float] | None:
        """The 95 % percentile interval."""
        known = self.samples[np.isfinite(self.samples)]
        if self.value is None or not len(known):
            return None
        low, high = np.percentile(known, [2.5, 97.5])
        return float(low), float(high)

    def minus(self, other: Number) -> Number:
        """The paired difference. Both must stem from the same images, resamples and seed."""
        if self.samples.shape != other.samples.shape:
            raise ValueError(f"expected as many resamples, got {self.samples.shape} and {other.samples.shape}")
        known = self.value is not None and other.value is not None
        return Number(self.value - other.value if known else None, self.samples - other.samples)  # type: ignore[operator]


@dataclass(frozen=True)
class Verdict:
    """All about one view. numbers: by key, e.g. ("ap50", "ring"), ("pooled_infected_ap50",); see docs/evaluation.md.

    matches: per channel at IoU 0.5, for curves. assigned: per image. calibration: by class group.
    """

    numbers: Mapping[Key, Number]
    matches: Mapping[str, Matches]
    assigned: Sequence[Assigned]
    decisions: Decisions
    counts: Counts
    calibration: Mapping[str, Reliability]

    def value(self, *key: str) -> float | None:
        """The number under this key."""
        return self.numbers[key].value

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under plain keys; their intervals [low, high] under the same keys below "intervals"."""
        values: dict[str, Any] = {"threshold": self.decisions.threshold}
        intervals: dict[str, Any] = {}
        for key, number in self.numbers.items():
            for tree, leaf in ((values, number.value), (intervals, number.interval())):
                for part in key[:-1]:
                    tree = tree.setdefault(part, {})
                tree[key[-1]] = list(leaf) if isinstance(leaf, tuple) else leaf
        values["confusion"] = {
            "true": [*CLASSES, "nothing there"],
            "called": [*CLASSES, "missed"],
            "counts": self.decisions.confusion().tolist(),
        }
        return {**values, "intervals": intervals}


@dataclass(frozen=True)
class Judgement:
    """The verdicts on all views of the same images. cells: true cells per class."""

    images: int
    cells: Mapping[str, int]
    verdicts: Mapping[str, Verdict]

    def to_json(self) -> dict[str, Any]:
        views = {name: verdict.to_json() for name, verdict in self.verdicts.items()}
        return {"images": self.images, "cells": dict(self.cells), **views}


def mean(parts: Sequence[Number]) -> Number:
    """The mean over those that are defined."""
    values = [part.value for part in parts if part.value is not None]
    stacked = np.stack([part.samples for part in parts])
    there = np.isfinite(stacked)
    samples = np.where(there, stacked, 0).sum(axis=0) / np.where(there.any(axis=0), there.sum(axis=0), np.nan)
    return Number(float(np.mean(values)) if values else None, samples)
