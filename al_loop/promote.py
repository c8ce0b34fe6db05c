"""Which version serves: the gate's verdict on a candidate, and the row change that follows from it.

A candidate must be shown not to be worse: the lower bound of the paired bootstrap of its difference to the incumbent
has to clear -delta on both infected numbers, and no class with enough cells may fall.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from al_loop.metrics import (
    POOLED,
    EvaluationReport,
    Matches,
    average_precision,
    paired_differences,
    recall_at_false_positives,
)
from backend.instances import CLASSES


@dataclass(frozen=True)
class GateConfig:
    """delta: how much worse a candidate may be without counting as worse. confidence: of each one-sided bound.

    min_class_n: a class with fewer true cells in the split is reported, not judged.
    """

    delta: float = 0.02
    resamples: int = 1000
    min_class_n: int = 30
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Verdict:
    """The gate's answer, with reasons in words (failures first) and every number it looked at."""

    promote: bool
    reasons: list[str]
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Candidate minus incumbent: the observed difference with its one-sided bounds, on n true cells."""

    name: str
    incumbent: float
    candidate: float
    difference: float
    low: float
    high: float
    n: int

    def in_words(self) -> str:
        return (
            f"{self.name} {self.incumbent:.3f} -> {self.candidate:.3f} "
            f"(difference {self.difference:+.3f}, between {self.low:+.3f} and {self.high:+.3f}, n = {self.n})"
        )


def compare(name: str, metric: Any, incumbent: Matches, candidate: Matches, config: GateConfig) -> Comparison | None:
    """One number of both, compared by paired image bootstrap; None where there is no true cell to compare on."""
    observed, samples = paired_differences(metric, candidate, incumbent, resamples=config.resamples, seed=config.seed)
    if math.isnan(observed):
        return None
    whole = np.ones((1, len(candidate.truths)), dtype=np.int64)
    low, high = np.quantile(samples, [1 - config.confidence, config.confidence])
    return Comparison(
        name=name,
        incumbent=float(metric(incumbent, whole)[0]),
        candidate=float(metric(candidate, whole)[0]),
        difference=observed,
        low=float(low),
        high=float(high),
        n=int(candidate.truths.sum()),
    )


def gate(incumbent: EvaluationReport, candidate: EvaluationReport, config: GateConfig | None = None) -> Verdict:
    """May the candidate replace the incumbent? Both reports must stem from the same frozen images.

    Raises NotEnoughData when they do not.
    """
    config = config or GateConfig()
    failures, passes, numbers = [], [], {}
    for name, metric in (
        ("infected recall at 0.5 false positives per image", recall_at_false_positives),
        ("pooled infected AP50", average_precision),
    ):
        result = compare(name, metric, incumbent.matches[POOLED], candidate.matches[POOLED], config)
        if result is None:
            failures.append(
                f"{name}: no infected cell in the test split, so nothing can be shown; a person may promote"
            )
            continue
        numbers[name] = asdict(result)
        if result.low >= -config.delta:
            passes.append(f"{result.in_words()}: not worse by more than {config.delta}")
        else:
            failures.append(f"{result.in_words()}: it may be worse by more than {config.delta}")
    for name in CLASSES:
        result = compare(f"{name} AP50", average_precision, incumbent.matches[name], candidate.matches[name], config)
        if result is None:
            continue
        numbers[result.name] = asdict(result)
        if result.n < config.min_class_n:
            passes.append(f"{result.in_words()}: too few cells to judge, reported only")
        elif result.difference < -config.delta and result.high < 0:
            failures.append(f"{result.in_words()}: falls")
    return Verdict(promote=not failures, reasons=failures + passes, numbers=numbers)
