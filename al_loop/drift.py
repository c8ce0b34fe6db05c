"""Are recent fields still like those the serving pair was accepted on? Four looks, each a permutation test.

Cells of one field are alike, and so are fields of one slide: what is exchanged is whole slides (or blocks, or images
where a slide is unknown), each described by the mean of its fields. The statistic is the largest standardised
difference of means (Cohen's d) among a look's numbers, so that several numbers cost no correction of their own. A look
speaks when its p is small after Holm's correction for four looks (Holm 1979) and its d reaches a floor: with many
fields any trifle becomes significant. ALPHA is for one check with all its looks. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from al_loop.permutation import Statistic, two_samples

Floats = NDArray[np.float64]

ALPHA = 0.01  # one check in a hundred calls out for nothing, at most: checks are made daily
FLOOR = 0.8  # of d: what Cohen calls a large effect
LEAST = 8  # slides on either side, without which a look says nothing
LOOKS = {
    "scores": "how sure the pair is of its cells",
    "stain": "the stain (optical density)",
    "disputes": "cells on which the two detectors disagree",
    "corrections": "what experts correct in random fields",
}


@dataclass(frozen=True)
class Sample:
    """Fields by look. values: (N, D) numbers of N fields; units: what each belongs to (slide, block, image)."""

    values: Floats
    units: Sequence[str]

    def by_unit(self) -> Floats:
        """(U, D): the mean of each unit's fields."""
        _, unit = np.unique(np.asarray(self.units, dtype=str), return_inverse=True)
        sums = np.zeros((int(unit.max()) + 1 if len(unit) else 0, self.values.shape[1]))
        np.add.at(sums, unit, self.values)
        return sums / np.bincount(unit, minlength=len(sums))[:, None] if len(sums) else sums


@dataclass(frozen=True)
class Look:
    """One comparison. before, recent: units on either side; d: the largest standardised difference; None: too few."""

    name: str
    before: int
    recent: int
    d: float | None
    p: float | None

    def in_words(self) -> str:
        """What was found."""
        about = LOOKS[self.name]
        if self.d is None or self.p is None:
            return f"{about}: {self.recent} recent and {self.before} earlier slides, fewer than {LEAST}"
        return f"{about}: {self.d:.1f} standard deviations off (p = {self.p:.4f})"


def look(name: str, before: Sample, recent: Sample) -> Look:
    """Compare one kind of number."""
    old, new = before.by_unit(), recent.by_unit()
    if min(len(old), len(new)) < LEAST:
        return Look(name, len(old), len(new), None, None)
    statistic = largest_d(np.concatenate([old, new]))
    kinds = np.arange(len(old) + len(new)) >= len(old)
    d = float(statistic(kinds[None])[0])
    return Look(name, len(old), len(new), d, two_samples(len(old), len(new), statistic))


def largest_d(values: Floats) -> Statistic:
    """The largest difference of means among the columns of values (N, D), in pooled standard deviations."""

    def statistic(kinds: NDArray[np.bool_]) -> Floats:
        second = kinds.astype(np.float64)
        counts = [(1 - second).sum(axis=1)[:, None], second.sum(axis=1)[:, None]]
        means = [(1 - second) @ values / counts[0], second @ values / counts[1]]
        squares = [(1 - second) @ values**2, second @ values**2]
        spread = sum(
            np.maximum(square - count * mean**2, 0) for square, count, mean in zip(squares, counts, means, strict=True)
        )
        deviation = np.sqrt(spread / (len(values) - 2))
        return np.asarray((np.abs(means[1] - means[0]) / (deviation + 1e-9)).max(axis=1))

    return statistic


def compare(before: Mapping[str, Sample], recent: Mapping[str, Sample]) -> tuple[list[Look], list[Look]]:
    """All looks, and those that speak of drift."""
    looks = [look(name, before[name], recent[name]) for name in LOOKS]
    told = sorted((each for each in looks if each.p is not None), key=lambda each: each.p or 0.0)
    speaking = []
    for rank, each in enumerate(told):
        if each.p is None or each.p > ALPHA / (len(LOOKS) - rank):
            break  # Holm: whatever is larger does not speak either
        if each.d is not None and each.d >= FLOOR:
            speaking.append(each)
    return looks, speaking
