"""How good detections are: average precision, infected recall at a fixed price, and what chance alone would give.

Every number is computed from one matching per image and channel (a class, or the infected stages pooled), so that a
bootstrap over images re-weights matches instead of matching again. Matching and interpolation follow COCO at
IoU 0.5: greedy by falling score, regions to ignore behave like COCO's crowds, 101 recall points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import NotEnoughData
from backend.instances import CLASSES, INFECTED_INDEX, Instances
from backend.overlap import intersection_over_area, iou_matrix

POOLED = "infected"  # the channel that counts every infected stage as one class
CHANNELS: tuple[str, ...] = (*CLASSES, POOLED)
SCORE_FLOOR = 0.001  # COCO has none; a calibrated detector says .02 of what an uncalibrated one gives .3
MATCH_IOU = 0.5
FALSE_POSITIVES_PER_IMAGE = 0.5
RECALL_POINTS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Matches:
    """Detections of one channel over I images, best first, with what each of them hit.

    scores: (D,) float64, falling. hits: (D,) bool, True where a true cell was found for the first time.
    image: (D,) int64, index of the image. truths: (I,) int64, true cells per image.
    Detections that fall on a region to ignore are left out: they are neither right nor wrong.
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    image: NDArray[np.int64]
    truths: NDArray[np.int64]

    def to_json(self) -> dict[str, list[Any]]:
        return {
            "scores": self.scores.tolist(),
            "hits": self.hits.astype(int).tolist(),
            "image": self.image.tolist(),
            "truths": self.truths.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Matches:
        return cls(
            scores=np.asarray(data["scores"], dtype=np.float64),
            hits=np.asarray(data["hits"], dtype=bool),
            image=np.asarray(data["image"], dtype=np.int64),
            truths=np.asarray(data["truths"], dtype=np.int64),
        )


@dataclass(frozen=True)
class MetricValue:
    """One number with its 95 % interval from resampling images. None: undefined, as there is no such true cell."""

    name: str
    class_name: str  # "" for pooled numbers
    value: float | None
    low: float | None
    high: float | None
    n: int  # true cells it rests on


@dataclass(frozen=True)
class EvaluationReport:
    """What one model or pair scored on a set of images; `matches` lets two reports be compared image by image."""

    images: int
    values: tuple[MetricValue, ...]
    matches: Mapping[str, Matches]

    def value(self, name: str, class_name: str = "") -> float | None:
        """The number called `name`, of one class where it has one. Raises KeyError when there is none such."""
        return self.metric(name, class_name).value

    def metric(self, name: str, class_name: str = "") -> MetricValue:
        for value in self.values:
            if (value.name, value.class_name) == (name, class_name):
                return value
        raise KeyError(f"expected one of {sorted({v.name for v in self.values})}, got {name!r} {class_name!r}")

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "values": [vars(value) for value in self.values],
            "matches": {name: matches.to_json() for name, matches in self.matches.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EvaluationReport:
        return cls(
            images=data["images"],
            values=tuple(MetricValue(**value) for value in data["values"]),
            matches={name: Matches.from_json(matches) for name, matches in data["matches"].items()},
        )


def channel_scores(instances: Instances, channel: str) -> NDArray[np.float64]:
    """(N,) float64: the probability each box gives to this channel."""
    columns = INFECTED_INDEX if channel == POOLED else [CLASSES.index(channel)]
    return instances.probabilities[:, columns].sum(axis=1, dtype=np.float64)


def channel_members(instances: Instances, channel: str) -> NDArray[np.bool_]:
    """(N,) bool: the true cells that belong to this channel."""
    if channel == POOLED:
        return np.isin(instances.labels, INFECTED_INDEX)
    return instances.labels == CLASSES.index(channel)


def match_greedily(
    iou: NDArray[Any], ignored: NDArray[np.bool_], threshold: float = MATCH_IOU
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """COCO's matching of D detections, best first, with T true cells.

    iou: (D, T). ignored: (D,) bool, the detection lies in a region to ignore.
    Returns hits (D,) and counted (D,): a detection that hits nothing and is ignored does not count.
    """
    hits = np.zeros(len(iou), dtype=bool)
    if iou.size:
        # The last of equal overlaps wins, as in COCO; hence the reversed columns.
        free = np.where(iou >= threshold, iou, -1.0)[:, ::-1].copy()
        for row in np.flatnonzero((free > 0).any(axis=1)):
            best = int(free[row].argmax())
            if free[row, best] > 0:
                hits[row] = True
                free[:, best] = -1.0
    return hits, hits | ~ignored


def match_channel(
    channel: str,
    truths: Sequence[Instances],
    detections: Sequence[Instances],
    overlaps: Sequence[NDArray[Any]],
    ignored: Sequence[NDArray[np.bool_]],
    threshold: float = MATCH_IOU,
) -> Matches:
    """Matches of one channel over all images. overlaps: per image (D, T) IoU; ignored: per image (D,) bool."""
    scores, hits, image, counts = [], [], [], []
    for index, (truth, seen) in enumerate(zip(truths, detections, strict=True)):
        members = channel_members(truth, channel)
        counts.append(int(members.sum()))
        of_channel = channel_scores(seen, channel)
        candidates = np.flatnonzero(of_channel >= SCORE_FLOOR)
        order = candidates[np.argsort(-of_channel[candidates], kind="stable")]
        found, counted = match_greedily(overlaps[index][order][:, members], ignored[index][order], threshold)
        scores.append(of_channel[order][counted])
        hits.append(found[counted])
        image.append(np.full(int(counted.sum()), index, dtype=np.int64))
    all_scores = np.concatenate(scores)
    best_first = np.argsort(-all_scores, kind="stable")
    return Matches(
        scores=all_scores[best_first],
        hits=np.concatenate(hits)[best_first],
        image=np.concatenate(image)[best_first],
        truths=np.asarray(counts, dtype=np.int64),
    )


def match_images(
    truths: Sequence[Instances],
    detections: Sequence[Instances],
    ignore: Sequence[NDArray[Any]],
    threshold: float = MATCH_IOU,
) -> dict[str, Matches]:
    """Matches of every channel. ignore: per image (K, 4) boxes, xyxy px, inside which a detection costs nothing."""
    if not truths or not len(truths) == len(detections) == len(ignore):
        raise NotEnoughData(
            f"evaluation: expected truths, detections and ignore regions of the same images (at least one), "
            f"got {len(truths)}, {len(detections)} and {len(ignore)}"
        )
    overlaps: list[NDArray[Any]] = []
    ignored: list[NDArray[np.bool_]] = []
    for truth, seen, regions in zip(truths, detections, ignore, strict=True):
        regions = np.asarray(regions, dtype=np.float32).reshape(-1, 4)
        overlaps.append(iou_matrix(seen.boxes, truth.boxes))
        inside = intersection_over_area(seen.boxes, regions) >= threshold
        ignored.append(np.asarray(inside.any(axis=1)))
    return {name: match_channel(name, truths, detections, overlaps, ignored, threshold) for name in CHANNELS}


def evaluate_detections(
    truths: Sequence[Instances],
    detections: Sequence[Instances],
    ignore: Sequence[NDArray[Any]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> EvaluationReport:
    """Score detections against the truth of the same images, with 95 % intervals from resampling images.

    ignore: per image (K, 4) boxes, xyxy px. Names of the numbers: `ap50` per class, `pooled_infected_ap50`,
    `infected_recall_at_0.5fp`, and `mean_ap50` over the classes that occur.
    Raises NotEnoughData when there is no image or the lists disagree in length.
    """
    matches = match_images(truths, detections, ignore)
    weights = resampled_weights(len(truths), resamples, seed)
    values = [_value("ap50", name, average_precision, matches[name], weights) for name in CLASSES]
    values.append(_value("pooled_infected_ap50", "", average_precision, matches[POOLED], weights))
    values.append(_value("infected_recall_at_0.5fp", "", recall_at_false_positives, matches[POOLED], weights))
    defined = [value for value in values[: len(CLASSES)] if value.value is not None]
    mean = float(np.mean([value.value for value in defined])) if defined else None
    values.append(MetricValue("mean_ap50", "", mean, None, None, sum(value.n for value in defined)))
    return EvaluationReport(images=len(truths), values=tuple(values), matches=matches)


def resampled_weights(images: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """(resamples, images) int64: how often each image occurs in each bootstrap sample."""
    draws = np.random.default_rng(seed).integers(0, images, size=(resamples, images))
    rows = np.repeat(np.arange(resamples), images)
    return np.bincount(rows * images + draws.ravel(), minlength=resamples * images).reshape(resamples, images)


def average_precision(matches: Matches, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R,) float64: COCO's 101-point AP at IoU 0.5 in each of R samples; NaN where a sample has no true cell.

    weights: (R, I). Counting an image w times is the same as repeating it: precision's envelope only looks at the
    last of equal true positives and before the first of equal false positives.
    """
    truths = (weights @ matches.truths).astype(np.float64)
    result = np.full(len(weights), np.nan)
    for rows in np.array_split(np.arange(len(weights)), max(1, len(weights) * len(matches.scores) // 2_000_000)):
        found, seen = _cumulated(matches, weights[rows])
        precision = found / np.maximum(seen, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        envelope = np.concatenate([envelope, np.zeros((len(rows), 1))], axis=1)
        for index, row in enumerate(rows):
            if truths[row]:
                first = np.searchsorted(found[index] / truths[row], RECALL_POINTS, side="left")
                result[row] = envelope[index, first].mean()
    return result


def recall_at_false_positives(
    matches: Matches, weights: NDArray[np.int64], per_image: float = FALSE_POSITIVES_PER_IMAGE
) -> NDArray[np.float64]:
    """(R,) float64: recall at the lowest threshold with at most `per_image` false positives per image.

    weights: (R, I). Detections of equal score stand or fall together. NaN where a sample has no true cell.
    """
    truths = weights @ matches.truths
    allowed = per_image * weights.sum(axis=1)
    # cut k keeps the first k detections; a cut inside a run of equal scores is no threshold.
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(matches.scores, append=-1.0)) + 1]).astype(np.int64)
    result = np.full(len(weights), np.nan)
    for rows in np.array_split(np.arange(len(weights)), max(1, len(weights) * len(matches.scores) // 2_000_000)):
        found, seen = _cumulated(matches, weights[rows])
        found = np.concatenate([np.zeros((len(rows), 1)), found], axis=1)[:, cuts]
        seen = np.concatenate([np.zeros((len(rows), 1)), seen], axis=1)[:, cuts]
        last = (seen - found <= allowed[rows, None]).sum(axis=1) - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            result[rows] = found[np.arange(len(rows)), last] / truths[rows]
    return result


def paired_differences(
    metric: Any, candidate: Matches, incumbent: Matches, *, resamples: int, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Candidate minus incumbent on the same images: the observed difference, and one per bootstrap sample.

    metric: `average_precision` or `recall_at_false_positives`. Samples where it is undefined are left out; the
    observed difference is NaN when the images hold no such true cell at all.
    Raises NotEnoughData when the two were not evaluated on the same truth.
    """
    if not np.array_equal(candidate.truths, incumbent.truths):
        raise NotEnoughData(
            f"comparison: expected two evaluations of the same images, got {len(candidate.truths)} images with "
            f"{candidate.truths.sum()} cells and {len(incumbent.truths)} with {incumbent.truths.sum()}"
        )
    whole = np.ones((1, len(candidate.truths)), dtype=np.int64)
    weights = resampled_weights(len(candidate.truths), resamples, seed)
    observed = float(metric(candidate, whole)[0] - metric(incumbent, whole)[0])
    differences = metric(candidate, weights) - metric(incumbent, weights)
    return observed, differences[np.isfinite(differences)]


def _cumulated(matches: Matches, weights: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cumulated true positives and detections, (R, D) float64 each, best detection first."""
    counts = weights[:, matches.image].astype(np.float64)
    return np.cumsum(counts * matches.hits, axis=1), np.cumsum(counts, axis=1)


def _value(name: str, class_name: str, metric: Any, matches: Matches, weights: NDArray[np.int64]) -> MetricValue:
    n = int(matches.truths.sum())
    if n == 0:
        return MetricValue(name, class_name, None, None, None, 0)
    value = float(metric(matches, np.ones((1, weights.shape[1]), dtype=np.int64))[0])
    samples = metric(matches, weights)
    low, high = np.percentile(samples[np.isfinite(samples)], [2.5, 97.5])
    return MetricValue(name, class_name, value, float(low), float(high), n)
