"""COCO's average precision: the values by faster-coco-eval, their spread over resampled images by our own matching.

Both follow the same rules (a test holds them together); only the second can weigh images without matching again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from scipy import sparse

from al_loop.judge_cells import Floats
from al_loop.metrics import (
    CHANNELS,
    RECALL_POINTS,
    SCORE_FLOOR,
    Matches,
    channel_members,
    channel_scores,
)
from backend.instances import Instances

IOUS = np.linspace(0.5, 0.95, 10)
STEPS = 1000  # corners of a resampled curve: more of them move an interval by less than .001
UNLIMITED = 100_000  # detections per image; COCO's own 100 would cut a crowded field


def _coco_box(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _annotations(truths: Sequence[Instances], ignore: Sequence[NDArray[Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for image, (truth, regions) in enumerate(zip(truths, ignore, strict=True)):
        for category, channel in enumerate(CHANNELS, start=1):
            boxes = [(box, 0) for box in truth.boxes[channel_members(truth, channel)]]
            for box, crowd in [*boxes, *((box, 1) for box in np.asarray(regions).reshape(-1, 4))]:
                found.append({"image_id": image, "category_id": category, "bbox": _coco_box(box), "iscrowd": crowd})
    for number, annotation in enumerate(found, start=1):
        annotation.update(id=number, area=annotation["bbox"][2] * annotation["bbox"][3])
    return found


def _results(detections: Sequence[Instances]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for image, seen in enumerate(detections):
        boxes = [_coco_box(box) for box in seen.boxes]
        for category, channel in enumerate(CHANNELS, start=1):
            scores = channel_scores(seen, channel)
            found += [
                {"image_id": image, "category_id": category, "bbox": boxes[row], "score": float(scores[row])}
                for row in np.flatnonzero(scores >= SCORE_FLOOR)
            ]
    return found


def coco_ap(
    truths: Sequence[Instances], ignore: Sequence[NDArray[Any]], detections: Sequence[Instances]
) -> dict[str, Floats]:
    """AP per channel at each of IOUS, (10,) float64, by faster-coco-eval; NaN where there is no true cell.

    ignore: per image (K, 4) boxes xyxy px, given to COCO as crowds. The infected stages pooled are a channel too.
    """
    results = _results(detections)
    if not results:
        occurs = {name: any(channel_members(truth, name).any() for truth in truths) for name in CHANNELS}
        return {name: np.full(len(IOUS), 0.0 if there else np.nan) for name, there in occurs.items()}
    images = [
        {"id": index, "height": int(truth.image_size[0]), "width": int(truth.image_size[1])}
        for index, truth in enumerate(truths)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(CHANNELS, start=1)]
    truth = COCO({"images": images, "annotations": _annotations(truths, ignore), "categories": categories})
    evaluator = COCOeval_faster(truth, truth.loadRes(results), iouType="bbox", print_function=lambda *_: None)
    evaluator.params.iouThrs = IOUS
    evaluator.params.maxDets = [1, 10, UNLIMITED]
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # IoU, recall point, channel; -1 without a true cell
    means = np.where(precision < 0, np.nan, precision).mean(axis=1)
    return {name: means[:, index] for index, name in enumerate(CHANNELS)}


def resampled_ap(matches: Matches, weights: NDArray[np.int64]) -> Floats:
    """(R,) float64: AP in each of R samples, as `metrics.average_precision`, in a fraction of its time.

    weights: (R, I). The curve only has corners where a cell is found, so the misses before each count with it. Exact up
    to STEPS hits; with more of them, neighbouring ones are taken as one step. NaN where a sample has no true cell.
    """
    truths = (weights @ matches.truths).astype(np.float64)
    corners = int(matches.hits.sum()) + 1
    steps = min(corners, STEPS)
    step = np.asarray((np.cumsum(matches.hits) - matches.hits) * steps // corners)
    shape = (len(matches.truths), steps)
    draws = weights.astype(np.float64)
    found = draws @ sparse.csr_matrix((matches.hits.astype(np.float64), (matches.image, step)), shape).toarray()
    seen = draws @ sparse.csr_matrix((np.ones(len(step)), (matches.image, step)), shape).toarray()
    np.cumsum(found, axis=1, out=found)
    np.cumsum(seen, axis=1, out=seen)
    precision = found / np.maximum(seen, 1)
    envelope = np.zeros((len(weights), steps + 1))
    envelope[:, :-1] = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    result = np.full(len(weights), np.nan)
    for row in np.flatnonzero(truths):
        first = np.searchsorted(found[row] / truths[row], RECALL_POINTS, side="left")
        result[row] = envelope[row, first].mean()
    return result
