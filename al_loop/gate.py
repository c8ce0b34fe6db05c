"""May a candidate replace the pair that serves? It must be shown not to be worse, by what both saw in the same images.

Every number is compared by a paired bootstrap over images: the lower bound of its difference has to clear a margin.
The margin of a class grows as its cells get fewer: with the same margin for all, a candidate as good as the incumbent
would be refused because of thirty rings nearly every time (docs/results/gate.md). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.judge_counts import Reliability
from al_loop.label_audit import LabelAudit
from al_loop.metrics import (
    POOLED,
    EvaluationReport,
    Matches,
    average_precision,
    paired_differences,
    recall_at_false_positives,
    resampled_weights,
)
from backend.errors import NotEnoughData
from backend.instances import CLASSES, INFECTED_INDEX

Floats = NDArray[np.float64]
STAGES = tuple(CLASSES[index] for index in INFECTED_INDEX)
BY_STAGE = "AP50 of infected cells by stage"  # each stage's detections together: right only where the stage is
CALIBRATION_NOISE = 0.5  # times the square root of the number of detections: of two pairs as good, on few fields
CALIBRATIONS = {"infected": "calibration error of P(infected)", "top": "calibration error of the class named"}


@dataclass(frozen=True)
class GateConfig:
    """delta: how much worse a candidate may be without counting as worse. confidence: of each one-sided bound.

    pooled_delta, class_delta: the same on 30 cells; of more cells less, and never less than delta (`margin`). The first
    for infected cells as one class, the second for each class and for infected cells by stage. A class with fewer than
    min_class_n is reported, not judged. calibration_delta: how much a calibration error may rise; on few detections,
    CALIBRATION_NOISE. most_wrong: the share of new infected labels that must be shown not to be wrong.
    """

    delta: float = 0.02
    pooled_delta: float = 0.1
    class_delta: float = 0.2
    calibration_delta: float = 0.01
    most_wrong: float = 0.2
    resamples: int = 1000
    min_class_n: int = 30
    confidence: float = 0.95
    seed: int = 0

    def margin(self, at_least: float, n: int) -> float:
        """What may be lost on n cells: noise falls with the square root of n, and the margin with it."""
        return max(self.delta, at_least * math.sqrt(self.min_class_n / max(n, self.min_class_n)))


@dataclass(frozen=True)
class Verdict:
    """May a candidate serve? With reasons in words (failures first) and every number that was looked at.

    beside: id of the version it was compared with, None when there was none.
    """

    promote: bool
    reasons: list[str]
    numbers: dict[str, Any]
    beside: int | None = None


@dataclass(frozen=True)
class Judged:
    """What one pair was measured to be: its report, its calibration by group, and what its new labels look like.

    calibration: empty in evaluations of earlier times. labels: of a candidate only.
    """

    report: EvaluationReport
    calibration: Mapping[str, Reliability]
    labels: LabelAudit | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Judged:
        """As `al_loop/evaluate.py` stores it."""
        curves = {name: Reliability.from_json(rows) for name, rows in stored.get("reliability_by_image", {}).items()}
        audit = stored.get("label_audit")
        return cls(EvaluationReport.from_json(stored), curves, None if audit is None else LabelAudit(**audit))


@dataclass(frozen=True)
class Comparison:
    """Candidate minus incumbent: the observed difference with its one-sided bounds, on n true cells or detections.

    margin: how far it may go the wrong way. rising: more is better (else less is).
    """

    name: str
    incumbent: float
    candidate: float
    difference: float
    low: float
    high: float
    n: int
    margin: float
    rising: bool = True

    @property
    def passed(self) -> bool:
        """Whether it is shown not to be worse by more than the margin."""
        return self.low >= -self.margin if self.rising else self.high <= self.margin

    def in_words(self) -> str:
        return (
            f"{self.name} {self.incumbent:.3f} -> {self.candidate:.3f} "
            f"(difference {self.difference:+.3f}, between {self.low:+.3f} and {self.high:+.3f}, n = {self.n})"
        )

    def sentence(self) -> str:
        """The comparison and what follows from it."""
        if self.passed:
            return f"{self.in_words()}: not worse by more than {self.margin:.3g}"
        shown = self.high < 0 if self.rising else self.low > 0
        return f"{self.in_words()}: it {'is worse, maybe' if shown else 'may be worse'} by more than {self.margin:.3g}"


def gate(incumbent: Judged, candidate: Judged, config: GateConfig | None = None) -> Verdict:
    """May the candidate replace the incumbent? Both must have been measured on the same frozen images.

    Raises NotEnoughData when they were not.
    """
    config = config or GateConfig()
    failures: list[str] = []
    passes: list[str] = []
    numbers: dict[str, Any] = {}
    if not incumbent.report.matches[POOLED].truths.any():
        failures.append("no infected cell in the test split, so nothing can be shown; a person may promote")
    for result in comparisons(incumbent, candidate, config):
        numbers[result.name] = asdict(result)
        judged = result.name not in {f"{name} AP50" for name in CLASSES} or result.n >= config.min_class_n
        if judged:
            (passes if result.passed else failures).append(result.sentence())
        else:
            passes.append(f"{result.in_words()}: fewer than {config.min_class_n} cells, reported only")
    if not (incumbent.calibration and candidate.calibration):
        passes.append("calibration: not compared, as an evaluation of earlier times has none by image")
    if candidate.labels is not None:
        numbers["new labels"] = asdict(candidate.labels)
        sentence, bad = candidate.labels.sentence(config.most_wrong)
        (failures if bad else passes).append(sentence)
    return Verdict(promote=not failures, reasons=failures + passes, numbers=numbers)


def comparisons(incumbent: Judged, candidate: Judged, config: GateConfig) -> Iterator[Comparison]:
    """Every number of both that can be compared, the most important first."""
    ours, theirs = candidate.report.matches, incumbent.report.matches
    recall = "infected recall at 0.5 false positives per image"
    pooled = config.margin(config.pooled_delta, int(theirs[POOLED].truths.sum()))
    staged = config.margin(config.class_delta, int(theirs[POOLED].truths.sum()))
    yield from _compared(recall, recall_at_false_positives, theirs[POOLED], ours[POOLED], config, pooled)
    yield from _compared("pooled infected AP50", average_precision, theirs[POOLED], ours[POOLED], config, pooled)
    before, after = (together([matches[name] for name in STAGES]) for matches in (theirs, ours))
    yield from _compared(BY_STAGE, average_precision, before, after, config, staged)
    for name in CLASSES:
        margin = config.margin(config.class_delta, int(theirs[name].truths.sum()))
        yield from _compared(f"{name} AP50", average_precision, theirs[name], ours[name], config, margin)
    for group, name in CALIBRATIONS.items():
        if group in incumbent.calibration and group in candidate.calibration:
            yield _calibrated(name, incumbent.calibration[group], candidate.calibration[group], config)


def together(channels: Sequence[Matches]) -> Matches:
    """Matches of several channels of the same images as one: a detection is right in the channel of the true class."""
    scores = np.concatenate([each.scores for each in channels])
    best_first = np.argsort(-scores, kind="stable")
    return Matches(
        scores=scores[best_first],
        hits=np.concatenate([each.hits for each in channels])[best_first],
        image=np.concatenate([each.image for each in channels])[best_first],
        truths=np.sum([each.truths for each in channels], axis=0),
    )


def _compared(
    name: str,
    metric: Callable[[Matches, NDArray[np.int64]], Floats],
    incumbent: Matches,
    candidate: Matches,
    config: GateConfig,
    margin: float,
) -> Iterator[Comparison]:
    """One number of both; nothing where there is no true cell to compare on."""
    observed, samples = paired_differences(metric, candidate, incumbent, resamples=config.resamples, seed=config.seed)
    if math.isnan(observed):
        return
    whole = np.ones((1, len(candidate.truths)), dtype=np.int64)
    low, high = np.quantile(samples, [1 - config.confidence, config.confidence])
    before, after = (float(metric(matches, whole)[0]) for matches in (incumbent, candidate))
    yield Comparison(name, before, after, observed, float(low), float(high), int(candidate.truths.sum()), margin)


def _calibrated(name: str, incumbent: Reliability, candidate: Reliability, config: GateConfig) -> Comparison:
    """Calibration errors of both on the same images, each in its own bins of equal mass."""
    images = len(candidate.count)
    if len(incumbent.count) != images:
        raise NotEnoughData(f"{name}: expected the same images of both, got {len(incumbent.count)} and {images}")
    weights = np.concatenate(
        [np.ones((1, images), dtype=np.int64), resampled_weights(images, config.resamples, config.seed)]
    )
    before, after = incumbent.error(weights), candidate.error(weights)
    samples = (after - before)[1:]
    low, high = np.quantile(samples[np.isfinite(samples)], [1 - config.confidence, config.confidence])
    n = int(candidate.count.sum())
    error = (float(before[0]), float(after[0]))
    margin = max(config.calibration_delta, CALIBRATION_NOISE / math.sqrt(max(n, 1)))
    return Comparison(name, *error, error[1] - error[0], float(low), float(high), n, margin, rising=False)
