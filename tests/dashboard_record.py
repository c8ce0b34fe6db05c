"""A record as it might look after a month: experts at work, versions trained, promoted and refused, a queue that waits.

Everything is made up from a seed, in the order it would have happened, but for the fields: those come with their truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import event
from sqlalchemy.orm import Session

from backend.instances import CLASSES, DIFFICULT, INFECTED
from backend.store import FileStore
from db import cells, evaluations, images, labels, predictions, queue, reviews, runs
from db.evaluations import MetricRow
from db.models import (
    Action,
    Image,
    ItemStatus,
    ModelPair,
    ModelVersion,
    PredictedCell,
    Prediction,
    PromotionDecision,
    Review,
    ReviewStatus,
    Slot,
    TrainingImage,
    TrainingRun,
    VersionStatus,
    Way,
)
from db.queue import QueueEntry
from tests import builders
from tests.dashboard_fields import Box, Field, See, guess, truth_at

EXPERTS = ("ada@example.org", "ben@example.org", "chidi@example.org", "mei@example.org")
VERSIONS = 12  # of `infected`
REFUSED = (2, 5, 6, 9, 10)
DAYS = 28.0
RED = CLASSES[0]


class Month:
    """Fills an empty record with the four weeks before `present`."""

    def __init__(self, session: Session, store: FileStore, present: datetime, seed: int = 1) -> None:
        self.session = session
        self.store = store
        self.present = present
        self.moment = present
        self.rng = np.random.default_rng(seed)
        self.serving: list[ModelPair] = []
        self.common = 0
        event.listen(session, "before_flush", self._date)

    def fill(self, fields: Sequence[Field], see: See = guess, experts: Sequence[str] = EXPERTS) -> None:
        """Two thirds of the fields are reviewed, the others wait."""
        self.moment = self.at(DAYS + 2)
        rows = [self._image(field) for field in fields]
        self.common = self._version("all_cells", VersionStatus.active).id
        self._decide(self.common, "first", True, ["nothing to compare with"], None, None)
        done = 2 * len(rows) // 3
        turns = [
            (DAYS * (1 - number / VERSIONS) + 0.5, self._train, (number, rows[:done])) for number in range(VERSIONS)
        ]
        for number in range(done):
            expert = experts[number % len(experts)]
            days = (DAYS - 0.5) * (1 - (number + 1) / done) + 0.14
            turns.append((days, self._review, (rows[number], fields[number], expert, see)))
            other = experts[(number + 1) % len(experts)]
            turns.append((days * 0.7, self._read_again, (rows[number], other)))
        for days, happens, arguments in sorted(turns, key=lambda turn: -turn[0]):
            self.moment = self.at(days)
            happens(*arguments)
        self._queue(list(zip(rows, fields, strict=True))[done:], see)
        self._runs()

    def at(self, days_ago: float) -> datetime:
        """A moment before the present."""
        return self.present - timedelta(days=days_ago)

    def _date(self, session: Session, _context: Any, _instances: Any) -> None:
        """What is recorded is recorded at the story's moment, not at the test's."""
        for row in session.new:
            for column in ("created_at", "recorded_at", "decided_at"):
                if hasattr(row, column) and getattr(row, column) is None:
                    setattr(row, column, self.moment)

    def _image(self, field: Field) -> Image:
        stored = self.store.put_bytes("images", field.pixels, field.suffix)
        width, height = field.size
        return images.add_image(
            self.session, sha256=stored.sha256, file=stored.file, name=field.name, width=width, height=height,
            group=field.slide, patient=field.patient, split="train", dataset="bbbc041",
        )[0]  # fmt: skip

    # --- models ---

    def _version(self, role: str, status: VersionStatus) -> ModelVersion:
        version = ModelVersion(
            role=role, status=status, weights_sha256=builders.sha256(f"{role} {self.moment}"), config={"role": role},
            manifest={"images": []}, manifest_sha256=builders.sha256("manifest"), environment={"device": "cpu"},
            newest_revision_id=labels.newest_revision_id(self.session),
        )  # fmt: skip
        self.session.add(version)
        self.session.flush()
        return version

    def _decide(
        self, version: int, kind: str, promote: bool, reasons: list[str], evaluation: int | None, run: int | None
    ) -> None:
        replaced = self.serving[-1].infected_id if promote and self.serving else None
        self.session.add(
            PromotionDecision(version_id=version, kind=kind, promote=promote, reasons=reasons, evaluation_id=evaluation,
                              run_id=run, replaced_id=replaced)
        )  # fmt: skip
        self.session.flush()

    def _train(self, number: int, some: Sequence[Image]) -> None:
        """One turn of the loop: a run, a version, its evaluation and the gate's decision."""
        promote = number not in REFUSED
        status = VersionStatus.rejected if not promote else VersionStatus.retired
        version = self._version("infected", VersionStatus.active if number == VERSIONS - 1 else status)
        seen = [image for image in some if labels.current_labels(self.session, [image.id])]
        self.session.add_all(TrainingImage(version_id=version.id, image_id=image.id, complete=True) for image in seen)
        run = TrainingRun(
            role="infected", trigger="reviews" if number else "first", detail={}, config={}, status="succeeded",
            newest_revision_id=version.newest_revision_id, step=300, steps=300, version_id=version.id,
            updated_at=self.moment, finished_at=self.moment,
        )  # fmt: skip
        pair = ModelPair(name=f"cellloop-{self.common}.{version.id}", all_cells_id=self.common, infected_id=version.id,
                         fusion={"match_iou": 0.5})  # fmt: skip
        self.session.add_all([run, pair])
        self.session.flush()
        recall, evaluation = self._evaluate(pair, number, promote)
        verdict = "not worse by more than 0.02" if promote else "it may be worse by more than 0.02"
        why = f"infected recall at 0.5 false positives per image {recall:.3f}: {verdict}"
        self._decide(version.id, "gate" if number else "first", promote, [why], evaluation, run.id)
        if promote:
            self.serving.append(pair)

    def _evaluate(self, pair: ModelPair, number: int, promote: bool) -> tuple[float, int]:
        """Numbers that grow and level off: the recall, and the evaluation's id."""
        progress = 1 - float(np.exp(-number / 4)) - (0 if promote else 0.16)
        recall = 0.55 + 0.33 * progress
        values = [_metric("infected_recall_at_0.5fp", "", recall, 180)]
        values += [_metric("pooled_infected_ap50", "", recall - 0.06, 180), _metric("mean_ap50", "", recall - 0.1, 0)]
        for name, start, n in zip(CLASSES, (0.92, 0.5, 0.35, 0.22, 0.18, 0.7), (2700, 90, 48, 14, 11, 0), strict=True):
            values.append(_metric("ap50", name, start + (0.95 - start) * 0.75 * progress if n else None, n))
        report = {"images": 40, "values": [], "matches": {"infected": self._matches(), RED: self._matches()}}
        evaluation = evaluations.add_evaluation(self.session, pair.id, "test", builders.sha256("ruler"), report, values)
        return recall, evaluation.id

    def _matches(self) -> dict[str, list[float]]:
        """Detections whose scores are a little too sure of themselves."""
        scores = np.sort(self.rng.beta(0.5, 0.6, 600))[::-1]
        hits = self.rng.uniform(size=600) < np.clip(scores**1.3, 0, 1)
        return {"scores": scores.tolist(), "hits": hits.astype(int).tolist(), "image": [0] * 600, "truths": [180]}

    def _runs(self) -> None:
        """One that failed, and one that runs."""
        self.moment = self.at(6)
        self.session.add(
            TrainingRun(role="infected", trigger="person", detail={}, config={}, newest_revision_id=1, status="failed",
                        updated_at=self.moment, finished_at=self.moment,
                        error="expected room on the disk, there is none left; make some")
        )  # fmt: skip
        self.session.flush()
        self.moment = self.at(0.01)
        run = runs.open_run(self.session, "infected", "reviews", {}, {"steps": 300})
        assert run is not None
        runs.start_run(self.session, run.id, steps=300)
        runs.progress(self.session, run.id, 111, 300, "loss 0.412")

    # --- experts ---

    def _predict(self, image: Image, field: Field, see: See) -> Prediction:
        pair = self.serving[-1]
        return predictions.add_prediction(self.session, image.id, pair.id, see(field, len(self.serving)), seconds=0.4)

    def _review(self, image: Image, field: Field, expert: str, see: See) -> None:
        """A field is predicted, queued and submitted: what was shown, corrected to the truth."""
        prediction = self._predict(image, field, see)
        self.moment += timedelta(minutes=4)
        ranking = queue.add_ranking(self.session, self.serving[-1].id, {})
        queue.add_items(self.session, ranking.id, [QueueEntry(image.id, 2.5, {}, reason="many open questions")])
        shown = [cell for cell, _ in predictions.predicted_cells(self.session, prediction.id)]
        self.moment += timedelta(hours=1)
        review = self._submitted(image, expert, Way.field, 60.0 + 2 * len(shown), prediction.id)
        found = [truth_at(field, cell) for cell in shown]
        answers = [self._answer(review, cell, true) for cell, true in zip(shown, found, strict=True)]
        for box, label in field.cells:
            if (box, label) not in found:
                cell = cells.add_cell(self.session, image.id)
                answers.append(labels.revision(review, cell.id, Action.added, label, box, shape="rectangle"))
        labels.add_revisions(self.session, answers)
        queue.close(self.session, image.id, ItemStatus.done)

    def _answer(self, review: Review, cell: PredictedCell, true: tuple[Box, str] | None) -> labels.NewRevision:
        if true is None:
            return labels.revision(review, cell.cell_id, Action.deleted, predicted_cell_id=cell.id)
        drawn, label = true
        moved = float(self.rng.uniform()) < 0.14 / len(self.serving)
        action = Action.relabelled if label != cell.label else Action.moved if moved else Action.accepted
        return labels.revision(
            review, cell.cell_id, action, label, drawn if moved else (cell.x1, cell.y1, cell.x2, cell.y2),
            shape="rectangle", predicted_cell_id=cell.id, predicted_iou=0.8 if moved else 1.0,
        )  # fmt: skip

    def _submitted(self, image: Image, expert: str, way: Way, seconds: float, prediction_id: int | None) -> Review:
        thread = f"ls:{1 if way is Way.field else 2}:{int(self.rng.integers(1, 10**9))}"
        return reviews.add_review(
            self.session, thread=thread, image_id=image.id, status=ReviewStatus.submitted, expert=expert,
            revised_at=self.moment, content=[], lead_time_s=seconds, ls_project_id=1, prediction_id=prediction_id,
            way=way,
        )  # fmt: skip

    def _read_again(self, image: Image, expert: str) -> None:
        """Another expert answers some cells again, one by one; now and then they say something else."""
        said = [live for live in labels.current_labels(self.session, [image.id]) if live.box is not None]
        for live in sorted(said, key=lambda live: (live.label == RED, live.cell_id))[:6]:
            self.moment += timedelta(seconds=6)
            review = self._submitted(image, expert, Way.cell, 4.0, None)
            agrees = float(self.rng.uniform()) < 0.85 or live.label not in (RED, *INFECTED)
            label = live.label if agrees else DIFFICULT
            action = Action.accepted if agrees else Action.relabelled
            row = labels.revision(review, live.cell_id, action, label, live.box, shape="rectangle")
            labels.add_revisions(self.session, [row])

    def _queue(self, waiting: Sequence[tuple[Image, Field]], see: See) -> None:
        self.moment = self.at(0.4)
        ranking = queue.add_ranking(self.session, self.serving[-1].id, {"strategy": "batch"})
        for number, (image, field) in enumerate(waiting):
            prediction = self._predict(image, field, see)
            shown = [cell for cell, _ in predictions.predicted_cells(self.session, prediction.id)]
            shown.sort(key=lambda cell: (cell.label == RED, cell.score))
            whys = [_why(cell) for cell in shown[:4]]
            ranks = [queue.CellRank(cell.id, 1.0, {}, why) for cell, why in zip(shown, whys, strict=False)]
            queue.add_ranked_cells(self.session, ranking.id, ranks)
            entries = [QueueEntry(image.id, 3.0 - 0.1 * number, {"reasons": whys})]
            for place, (cell, why) in enumerate(zip(shown, whys, strict=False)):
                slot = (Slot.acquisition, Slot.acquisition, Slot.random, Slot.second_reading)[place]
                score = 5.0 - place - 0.1 * number
                entries.append(QueueEntry(image.id, score, {}, Way.cell, slot, cell.cell_id, cell.id, why))
            self.moment = self.at(float(self.rng.uniform(0.02, 2.5)))
            queue.add_items(self.session, ranking.id, entries)


def _metric(name: str, class_name: str, value: float | None, n: int) -> MetricRow:
    if value is None or not n:
        return MetricRow(name, value, n, class_name)
    half = 1.5 * (value * (1 - value) / n) ** 0.5
    return MetricRow(name, value, n, class_name, max(0.0, value - half), min(1.0, value + half))


def _why(cell: PredictedCell) -> str:
    order = np.argsort(cell.probabilities)[::-1]
    first, second = (CLASSES[index] for index in order[:2])
    return f"{first} {cell.probabilities[order[0]]:.2f} or {second} {cell.probabilities[order[1]]:.2f}?"
