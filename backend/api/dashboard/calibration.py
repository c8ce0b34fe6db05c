"""Whether a pair's probabilities mean what they say: of the detections called "80 %", are 80 % right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.history.intervals import independent

BINS = 10
CHANNELS = ("infected", "red blood cell")  # of an evaluation's report: the infected stages pooled, and a class


@dataclass(frozen=True)
class Bin:
    """Detections of about the same probability: how many, their mean probability, and the share that was right.

    low, high: Wilson's 95 % interval of that share.
    """

    n: int
    said: float
    right: float
    low: float
    high: float


def reliability(report: Mapping[str, Any], channel: str) -> list[Bin | None]:
    """BINS bins of equal width from 0 to 1, None where nothing falls; empty when the report lacks this channel.

    report: an evaluation's, with `matches` by channel: `scores` in [0, 1] and `hits`, 0 or 1, of every detection.
    """
    matches = report.get("matches", {}).get(channel)
    if matches is None:
        return []
    scores, hits = np.asarray(matches["scores"], dtype=np.float64), np.asarray(matches["hits"], dtype=np.float64)
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [_bin(scores[places == place], hits[places == place]) for place in range(BINS)]


def expected_error(bins: Sequence[Bin | None]) -> float | None:
    """Mean distance between what was said and what was right, over all detections; None without any."""
    known = [each for each in bins if each is not None]
    total = sum(each.n for each in known)
    return sum(each.n * abs(each.said - each.right) for each in known) / total if total else None


def _bin(scores: np.ndarray[Any, Any], hits: np.ndarray[Any, Any]) -> Bin | None:
    if not len(scores):
        return None
    found = independent(np.array([int(hits.sum())]), np.array([len(hits)]))
    return Bin(len(hits), float(scores.mean()), *(float(each[0]) for each in (found.value, found.low, found.high)))
