"""Made-up models: versions of both roles in turn, what each was trained on, what its pair scored, what was decided."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from al_loop.made_up_fields import Fields, Reading, sha256_of
from al_loop.made_up_rows import Batch, Ingest
from backend.instances import CLASSES, ROLES
from db.models import (
    PROTOCOL,
    Base,
    Evaluation,
    Metric,
    ModelPair,
    ModelVersion,
    PromotionDecision,
    Ranking,
    RunStatus,
    Split,
    TrainingImage,
    TrainingRun,
    VersionStatus,
)

VERSIONS = 500
PROMOTED = 0.6  # of the candidates
LISTED = 2000  # images in a stored manifest; whole ones would have many MB each, and no question here reads them
DETECTIONS = 2000  # matches in a stored report of an evaluation
NUMBERS = [*(("ap50", name) for name in CLASSES), ("mean_ap50", ""), ("pooled_infected_ap50", "")]
NUMBERS += [("infected_recall_at_0.5fp", "")]
RULER = hashlib.sha256(b"the frozen test split").hexdigest()


class ModelWriter:
    """Adds versions two by two, one of each role, with all that belongs to them.

    serving, ranking: ids of the pair that predicts at present and of the newest ranking, which is by it.
    """

    def __init__(self, fields: Fields, ingest: Ingest, rng: np.random.Generator) -> None:
        self.fields, self.ingest, self.rng = fields, ingest, rng
        self.serving = self.ranking = self._versions = self._pairs = self._evaluations = 0
        # In the order in which one refers to another.
        written = (ModelVersion, TrainingImage, TrainingRun, ModelPair, Evaluation, Metric, PromotionDecision, Ranking)
        self._batches: dict[type[Base], Batch] = {model: Batch(model) for model in written}
        self._active: dict[str, int] = {}
        self._read: list[int] = []  # train images with labels
        self._listed: list[str] = []  # the first of them, as a manifest has them
        self._promoted = rng.random(VERSIONS) < PROMOTED
        self._promoted[: len(ROLES)] = True  # somebody has to begin
        self._last = {role: int(np.flatnonzero(self._promoted[n :: len(ROLES)])[-1]) * len(ROLES) + n + 1
                      for n, role in enumerate(ROLES)}  # fmt: skip
        scores = rng.random(DETECTIONS).tolist()
        matches = {"scores": scores, "hits": [int(score > 0.4) for score in scores], "image": [0] * DETECTIONS}
        self._report = json.dumps({"images": 200, "values": [], "matches": {"infected": matches}})

    def note_readings(self, images: NDArray[np.int64]) -> None:
        """These images have been read, as far as they ever are: later versions learn from them."""
        for image in images.tolist():
            if self.fields.splits[image - 1] == Split.train and self.fields.reading[image - 1] != Reading.none:
                self._read.append(image)
                if len(self._listed) < LISTED:
                    self._listed.append(json.dumps({"sha256": sha256_of(image), "cells": []}))

    def add_versions(self, newest_revision: int, moment: datetime) -> None:
        """One version of each role, and a ranking by what serves then."""
        for role in ROLES:
            self._versions += 1
            self._add_version(role, newest_revision, moment)
            self._decide(role, moment + timedelta(minutes=20))
            moment += timedelta(hours=1)
        self.ranking += 1
        self._batches[Ranking].extend(1, id=self.ranking, pair_id=self.serving, config="{}", created_at=moment)
        for batch in self._batches.values():
            self.ingest.add(batch.model, batch.take())

    def _add_version(self, role: str, newest_revision: int, moment: datetime) -> None:
        version = self._versions
        status = VersionStatus.active if version == self._last[role] else VersionStatus.retired
        manifest = '{"images": [' + ", ".join(self._listed) + "]}"
        self._batches[ModelVersion].extend(
            1,
            id=version,
            role=role,
            status=status if self._promoted[version - 1] else VersionStatus.rejected,
            weights_sha256=sha256_of(-version),
            config=json.dumps({"role": role, "detector": {"preset": "lite"}, "steps": 2000}),
            manifest=manifest,
            manifest_sha256=hashlib.sha256(manifest.encode()).hexdigest(),
            newest_revision_id=newest_revision,
            environment=json.dumps({"device": "cpu", "torch": "2"}),
            created_at=moment,
        )
        read = np.array(self._read, dtype=np.int64)
        complete = self.fields.reading[read - 1] != Reading.cells
        self._batches[TrainingImage].extend(
            len(read), version_id=version, image_id=read.tolist(), complete=complete.tolist()
        )
        self._batches[TrainingRun].extend(
            1, id=version, role=role, trigger="reviews", detail="{}", config="{}", step=2000, steps=2000,
            status=RunStatus.succeeded, attempt=1, stage="finish", newest_revision_id=newest_revision, message="",
            version_id=version, created_at=moment - timedelta(hours=2), updated_at=moment, finished_at=moment,
        )  # fmt: skip

    def _decide(self, role: str, moment: datetime) -> None:
        version, promoted = self._versions, bool(self._promoted[self._versions - 1])
        replaced = self._active.get(role)
        together = {**self._active, role: version}
        pair = self._add_pair(together, moment) if len(together) == len(ROLES) else None
        evaluation = self._evaluate(pair, moment) if pair is not None and replaced is not None else None
        self._batches[PromotionDecision].extend(
            1, id=version, version_id=version, replaced_id=replaced if promoted else None,
            kind="first" if replaced is None else "gate", promote=promoted, evaluation_id=evaluation, run_id=version,
            reasons=json.dumps(["infected recall at 0.5 false positives per image 0.84: not worse by more than 0.02"]),
            decided_at=moment,
        )  # fmt: skip
        if promoted:
            self._active, self.serving = together, pair or 0

    def _add_pair(self, together: dict[str, int], moment: datetime) -> int:
        self._pairs += 1
        all_cells, infected = (together[role] for role in ROLES)
        self._batches[ModelPair].extend(
            1,
            id=self._pairs,
            name=f"cellloop-{all_cells}.{infected}",
            all_cells_id=all_cells,
            infected_id=infected,
            fusion='{"iou": 0.5}',
            created_at=moment,
        )
        return self._pairs

    def _evaluate(self, pair: int, moment: datetime) -> int:
        self._evaluations += 1
        self._batches[Evaluation].extend(
            1, id=self._evaluations, pair_id=pair, created_at=moment, split="test", split_sha256=RULER,
            protocol=PROTOCOL, report=self._report,
        )  # fmt: skip
        names, classes = (list(column) for column in zip(*NUMBERS, strict=True))
        values = 0.6 + 0.35 * (1 - np.exp(-pair / 100)) + self.rng.normal(0, 0.01, len(NUMBERS))
        first = (self._evaluations - 1) * len(NUMBERS) + 1
        self._batches[Metric].extend(
            len(NUMBERS), id=list(range(first, first + len(NUMBERS))), evaluation_id=self._evaluations,
            name=names, class_name=classes, value=values.tolist(), low=(values - 0.03).tolist(),
            high=(values + 0.03).tolist(), n=180,
        )  # fmt: skip
        return self._evaluations
