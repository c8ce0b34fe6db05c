"""Measure model pairs on the frozen test split, the candidate and the incumbent alike.

A pair is what the expert meets, so pairs are judged, never single detectors. Fusion is fitted on the validation split
before its pair is measured; the test split decides nothing but the verdict.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from al_loop.bench import Bench, Contestant
from al_loop.calibrate_pair import fit_pair
from al_loop.context import Loop
from al_loop.dataset import LabelledImage
from al_loop.judge_calibration import calibration
from al_loop.judge_cells import assign
from al_loop.judge_counts import Reliability
from al_loop.judge_numbers import Number
from al_loop.label_audit import LabelAudit
from al_loop.metrics import EvaluationReport, evaluate_detections, resampled_weights
from al_loop.new_labels import audit_new_labels
from al_loop.ruler import RULER, Ruler, load_ruler
from backend.errors import NotEnoughData
from backend.fuse import FusionConfig, fuse
from backend.instances import CLASSES, ROLES, Instances
from backend.preannotate import Pair
from db.evaluations import MetricRow, add_evaluation, evaluation_of
from db.session import Database
from db.versions import active, get

log = logging.getLogger("cellloop.evaluate")

RESAMPLES = 1000

Report = Callable[[int, int], None]
Reader = Callable[[LabelledImage], NDArray[np.uint8]]


def _silent(done: int, total: int) -> None:
    """Nobody is watching."""


def evaluate_pair(
    pair: Pair, images: Sequence[LabelledImage], read: Reader, *, on_progress: Report = _silent, seed: int = 0
) -> EvaluationReport:
    """Pre-annotate labelled images with this pair and score the result. read: an image's pixels (h, w, 3) uint8 RGB.

    Raises NotEnoughData without any image.
    """
    detections = []
    for done, image in enumerate(images, start=1):
        pixels = read(image)
        detections.append(fuse(pair.all_cells.detect(pixels), pair.infected.detect(pixels), pair.fusion).cells)
        on_progress(done, len(images))
    return score(images, detections, seed=seed)


def score(images: Sequence[LabelledImage], detections: Sequence[Instances], *, seed: int = 0) -> EvaluationReport:
    """Detections against the labels of the same images; "difficult" cells count neither way."""
    return evaluate_detections(
        [image.truth() for image in images], detections, [image.ignore_boxes() for image in images], seed=seed
    )


def reliability(images: Sequence[LabelledImage], detections: Sequence[Instances]) -> dict[str, Reliability]:
    """What detections claim and how often it is so, by group: infected, suspected, top and cell."""
    pairs = zip(images, detections, strict=True)
    return calibration([assign(image.truth(), image.ignore_boxes(), seen) for image, seen in pairs], CLASSES)


def evaluate_candidate(
    loop: Loop, version_id: int, on_progress: Report = _silent, bench: Bench | None = None
) -> int | None:
    """Measure the pair this version would make, and the incumbent pair where there is one, on the frozen test split.

    Returns the id of the candidate's evaluation; None while the other role has no active version or, for the first
    version of a role, no test split is frozen: then there is nothing to compare. An evaluation that exists is kept.
    Raises NotEnoughData when there is an incumbent but no frozen test split.
    """
    with loop.database.session(read_only=True) as session:
        version = get(session, version_id)
        other = active(session, next(role for role in ROLES if role != version.role))
        incumbent = active(session, version.role)
        if other is None:
            return None
        candidate = Contestant.of(version, other)
        serving = None if incumbent is None or incumbent.id == version_id else Contestant.of(incumbent, other)
        try:
            ruler = load_ruler(session)
        except NotEnoughData as error:
            if serving is not None:
                raise
            log.warning("the first %s version is not evaluated: %s", version.role, error)
            return None
    bench = bench or Bench(loop.store, loop.settings.device)
    if serving is not None:
        evaluate_contestant(loop, bench, serving, ruler, on_progress)
    return evaluate_contestant(loop, bench, candidate, ruler, on_progress, beside=serving)


def evaluate_contestant(
    loop: Loop,
    bench: Bench,
    contestant: Contestant,
    ruler: Ruler,
    on_progress: Report = _silent,
    beside: Contestant | None = None,
) -> int:
    """Fit the pair's fusion where it has none, measure it on the ruler and store the evaluation; its id.

    beside: the incumbent pair of a candidate, whose new labels are then looked at, too.
    """
    pair = fit_pair(loop, contestant.all_cells_id, contestant.infected_id, bench)
    with loop.database.session(read_only=True) as session:
        stored = evaluation_of(session, pair.id, ruler.sha256)
    if stored is not None:
        return stored.id
    seen: list[list[Instances]] = [[], []]
    total = 2 * len(ruler.images)
    for column, weights in enumerate(contestant.weights):
        for done, image in enumerate(ruler.images, start=1):
            seen[column] += bench.see(weights, [image])
            on_progress(column * len(ruler.images) + done, total)
    settings = FusionConfig.from_json(pair.fusion)
    fused = [fuse(a, b, settings).cells for a, b in zip(*seen, strict=True)]
    labels = None if beside is None else audit_new_labels(loop, bench, contestant, beside, ruler.images)
    curves = reliability(ruler.images, fused)
    return store_evaluation(loop.database, pair.id, ruler, score(ruler.images, fused), curves, labels)


def store_evaluation(
    database: Database,
    pair_id: int,
    ruler: Ruler,
    report: EvaluationReport,
    curves: Mapping[str, Reliability],
    labels: LabelAudit | None = None,
) -> int:
    """Append a report and its reliability curves with their numbers as rows; the evaluation's id.

    A calibration error is called `ece_` and its group; its n is the number of detections. labels: of a candidate.
    """
    rows = [
        MetricRow(metric.name, metric.value, metric.n, metric.class_name, metric.low, metric.high)
        for metric in report.values
    ]
    weights = resampled_weights(report.images, RESAMPLES, seed=0)
    for group, curve in curves.items():
        error = Number.of(curve.error, weights)
        low, high = error.interval() or (None, None)
        rows.append(MetricRow(f"ece_{group}", error.value, int(curve.count.sum()), "", low, high))
    content = report.to_json() | {
        "reliability": {group: curve.bins_to_json() for group, curve in curves.items()},
        "reliability_by_image": {group: curve.images_to_json() for group, curve in curves.items()},
    }
    if labels is not None:
        content["label_audit"] = asdict(labels)
    with database.session() as session:
        return add_evaluation(session, pair_id, RULER, ruler.sha256, content, rows).id
