"""Measure model pairs on the frozen test split, the candidate and the incumbent alike.

A pair is what the expert meets, so pairs are judged, never single detectors. Fusion is fitted on the validation split
before its pair is measured; the test split decides nothing but the verdict.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from al_loop.context import Loop
from al_loop.dataset import LabelledImage, truth
from al_loop.metrics import EvaluationReport, evaluate_detections
from al_loop.ruler import RULER, Ruler, load_ruler
from backend.calibrate import fit_fusion
from backend.detect import Detector, load_detector, pick_device
from backend.errors import NotEnoughData
from backend.fuse import FusionConfig, fuse
from backend.images import read_image
from backend.instances import ROLES, Instances
from backend.preannotate import Pair
from backend.store import FileStore
from db.labels import labelled_images
from db.models import ModelVersion, Split
from db.runs import MetricRow, add_evaluation, evaluation_of
from db.session import Database
from db.versions import active, get, pair_of

log = logging.getLogger("cellloop.evaluate")

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


@dataclass
class Bench:
    """Detectors and what they saw, so that two pairs that share a detector pay for it once."""

    store: FileStore
    device: str
    _detectors: dict[str, Detector] = field(default_factory=dict)
    _seen: dict[tuple[str, str], Instances] = field(default_factory=dict)

    def see(self, weights_sha256: str, images: Iterable[LabelledImage]) -> list[Instances]:
        """What the detector with these weights sees in each image. Raises WeightsCorrupt, StoredFileCorrupt."""
        found = []
        for image in images:
            key = (weights_sha256, image.sha256)
            if key not in self._seen:
                self._seen[key] = self.detector(weights_sha256).detect(self.read(image))
            found.append(self._seen[key])
        return found

    def detector(self, weights_sha256: str) -> Detector:
        if weights_sha256 not in self._detectors:
            path = self.store.path(f"weights/{weights_sha256[:2]}/{weights_sha256}.safetensors")
            self._detectors[weights_sha256] = load_detector(path, weights_sha256, pick_device(self.device))
        return self._detectors[weights_sha256]

    def read(self, image: LabelledImage) -> NDArray[np.uint8]:
        return read_image(self.store.read(image.file, image.sha256))


@dataclass(frozen=True)
class Contestant:
    """Two versions that serve together, or would. Plain values: safe outside of a session."""

    all_cells_id: int
    infected_id: int
    weights: tuple[str, str]  # sha256 of all_cells, of infected

    @classmethod
    def of(cls, first: ModelVersion, second: ModelVersion) -> Contestant:
        """The pair of these two versions, given in any order."""
        by_role = {version.role: version for version in (first, second)}
        all_cells, infected = (by_role[role] for role in ROLES)
        return cls(all_cells.id, infected.id, (all_cells.weights_sha256, infected.weights_sha256))


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
        validation = labelled_images(session, Split.validation)
        known = truth(session, [image.id for image in validation])
    bench = bench or Bench(loop.store, loop.settings.device)
    if serving is not None:
        evaluate_contestant(loop.database, bench, serving, ruler, known, on_progress)
    return evaluate_contestant(loop.database, bench, candidate, ruler, known, on_progress)


def evaluate_contestant(
    database: Database,
    bench: Bench,
    contestant: Contestant,
    ruler: Ruler,
    validation: Sequence[LabelledImage],
    on_progress: Report = _silent,
) -> int:
    """Fit the pair's fusion where it has none, measure it on the ruler and store the evaluation; its id."""
    ids = (contestant.all_cells_id, contestant.infected_id)
    with database.session() as session:
        known = pair_of(session, *ids)
        pair_id, fusion = known.id, known.fusion
        stored = evaluation_of(session, pair_id, ruler.sha256)
    if stored is not None:
        return stored.id
    if not fusion:
        fitted = fitted_fusion(bench, contestant, validation)
        with database.session() as session:
            # A pair that has predicted already keeps the fusion it predicted with, and is measured with that.
            fusion = pair_of(session, *ids, fitted.to_json()).fusion
    seen: list[list[Instances]] = [[], []]
    total = 2 * len(ruler.images)
    for column, weights in enumerate(contestant.weights):
        for done, image in enumerate(ruler.images, start=1):
            seen[column] += bench.see(weights, [image])
            on_progress(column * len(ruler.images) + done, total)
    settings = FusionConfig.from_json(fusion)
    report = score(ruler.images, [fuse(a, b, settings).cells for a, b in zip(*seen, strict=True)])
    return store_evaluation(database, pair_id, ruler, report)


def fitted_fusion(bench: Bench, contestant: Contestant, validation: Sequence[LabelledImage]) -> FusionConfig:
    """The fusion that fits the labelled validation images; the default where there are none."""
    all_cells, infected = (bench.see(weights, validation) for weights in contestant.weights)
    truths = [image.truth() for image in validation]
    return fit_fusion(list(zip(all_cells, infected, truths, strict=True))) if truths else FusionConfig()


def store_evaluation(database: Database, pair_id: int, ruler: Ruler, report: EvaluationReport) -> int:
    """Append a report with its numbers as rows; the evaluation's id."""
    rows = [
        MetricRow(metric.name, metric.value, metric.n, metric.class_name, metric.low, metric.high)
        for metric in report.values
    ]
    with database.session() as session:
        return add_evaluation(session, pair_id, RULER, ruler.sha256, report.to_json(), rows).id
