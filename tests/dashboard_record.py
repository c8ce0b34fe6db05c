"""A record as it might look after a month: experts at work, versions trained, promoted and refused, a queue that waits.

Everything is made up from a seed, but for the fields: those are handed in with their truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.instances import CLASSES, DIFFICULT, INFECTED
from backend.store import FileStore
from db import images, labels, predictions, queue, reviews, runs
from db.models import (
    Action,
    Image,
    LabelRevision,
    ModelPair,
    ModelVersion,
    PredictedCell,
    PromotionDecision,
    Review,
    ReviewStatus,
    Slot,
    TrainingRun,
    VersionStatus,
    Way,
)
from db.predictions import CellRow
from db.queue import QueueEntry
from db.runs import MetricRow
from db.session import Database
from tests import builders

Box = tuple[float, float, float, float]

EXPERTS = ("ada@example.org", "ben@example.org", "chidi@example.org", "mei@example.org")
VERSIONS = 12  # of `infected`
DAYS = 28


@dataclass(frozen=True)
class Field:
    """A field with what is true of it. pixels: the bytes of its file. cells: (xyxy px, label)."""

    name: str
    slide: str
    pixels: bytes
    suffix: str
    size: tuple[int, int]  # width, height px
    cells: Sequence[tuple[Box, str]]


Seer = Callable[[Field], list[CellRow]]


def guess(field: Field, seed: int = 0) -> list[CellRow]:
    """What a model might say of this field: mostly the truth, moved a little."""
    rng = np.random.default_rng([seed, len(field.cells)])
    rows = []
    for (x1, y1, x2, y2), label in field.cells:
        dx, dy = rng.normal(0, 1.5, 2)
        true = CLASSES.index(label) if label in CLASSES else 1
        share = float(rng.uniform(0.55, 0.98))
        probabilities = np.full(len(CLASSES), (1 - share) / len(CLASSES))
        probabilities[true if rng.uniform() < 0.95 else 2] = share
        rows.append(
            builders.cell_row(
                (x1 + dx, y1 + dy, x2 + dx, y2 + dy),
                CLASSES[int(probabilities.argmax())],
                score=share,
                probabilities=probabilities.tolist(),
            )
        )
    return rows


class Month:
    """Fills an empty migrated database, up to `present`."""

    def __init__(self, database: Database, store: FileStore, present: datetime, seed: int = 1) -> None:
        self.database = database
        self.store = store
        self.present = present
        self.rng = np.random.default_rng(seed)

    def fill(self, fields: Sequence[Field], see: Seer = guess, experts: Sequence[str] = EXPERTS) -> None:
        """Everything below, in order. The last fields stay unlabelled: they are what waits."""
        with self.database.session() as session:
            rows = [self._image(session, field) for field in fields]
            pairs = self._versions(session)
            for image, field in zip(rows, fields, strict=True):
                for pair in (pairs[0], pairs[-1]):
                    predictions.add_prediction(session, image.id, pair.id, see(field), seconds=0.4)
            reviewed = list(zip(rows, fields, strict=True))[: 2 * len(rows) // 3]
            for number, (image, field) in enumerate(reviewed):
                self._review(session, image, field, pairs, number, experts)
            self._read_again(session, [image for image, _ in reviewed], experts)
            self._queue(session, rows[len(reviewed) :], pairs[-1])
            self._runs(session)

    def at(self, days_ago: float) -> datetime:
        """A moment before the present."""
        return self.present - timedelta(days=days_ago)

    def _image(self, session: Session, field: Field) -> Image:
        stored = self.store.put_bytes("images", field.pixels, field.suffix)
        width, height = field.size
        return images.add_image(
            session, sha256=stored.sha256, file=stored.file, name=field.name, width=width, height=height,
            group=field.slide, split="train", dataset="bbbc041",
        )[0]  # fmt: skip

    def _versions(self, session: Session) -> list[ModelPair]:
        """The pair of every version, in order; the last one serves."""
        common = self._version(session, "all_cells", DAYS + 1, VersionStatus.active)
        session.add(PromotionDecision(version_id=common.id, kind="first", promote=True, decided_at=common.created_at,
                                      reasons=["nothing to compare with"]))  # fmt: skip
        pairs, serving = [], None
        for number in range(VERSIONS):
            promoted = number in (0, 1, 3, 4, 7, 8, 11)
            days = DAYS * (1 - (number + 0.8) / VERSIONS)
            status = VersionStatus.retired if promoted else VersionStatus.rejected
            version = self._version(session, "infected", days, VersionStatus.active if number == 11 else status)
            name = f"cellloop-{common.id}.{version.id}"
            pair = ModelPair(name=name, all_cells_id=common.id, infected_id=version.id, fusion={"match_iou": 0.5},
                             created_at=version.created_at)  # fmt: skip
            session.add(pair)
            session.flush()
            recall = self._evaluation(session, pair, number, promoted)
            word = "not worse by more than 0.02" if promoted else "it may be worse by more than 0.02"
            session.add(
                PromotionDecision(
                    version_id=version.id, replaced_id=serving, kind="gate" if number else "first", promote=promoted,
                    reasons=[f"infected recall at 0.5 false positives per image {recall:.3f}: {word}"],
                    decided_at=version.created_at + timedelta(minutes=20),
                )
            )  # fmt: skip
            pairs.append(pair)
            serving = version.id if promoted else serving
        return pairs

    def _version(self, session: Session, role: str, days_ago: float, status: VersionStatus) -> ModelVersion:
        version = ModelVersion(
            role=role, status=status, weights_sha256=builders.sha256(f"{role} {days_ago}"), config={"role": role},
            manifest={"images": []}, manifest_sha256=builders.sha256("manifest"), environment={"device": "cpu"},
            created_at=self.at(days_ago),
        )  # fmt: skip
        session.add(version)
        session.flush()
        return version

    def _evaluation(self, session: Session, pair: ModelPair, number: int, promoted: bool) -> float:
        """Numbers that grow and level off; the recall that was measured."""
        progress = 1 - np.exp(-number / 4) - (0 if promoted else 0.16)
        recall = float(0.55 + 0.33 * progress)
        values = [self._metric("infected_recall_at_0.5fp", "", recall, 180)]
        values.append(self._metric("pooled_infected_ap50", "", recall - 0.06, 180))
        values.append(self._metric("mean_ap50", "", recall - 0.1, 3000, interval=False))
        for name, start, n in zip(CLASSES, (0.92, 0.5, 0.35, 0.22, 0.18, 0.7), (2700, 90, 48, 14, 11, 0), strict=True):
            value = None if n == 0 else float(start + (0.95 - start) * 0.75 * progress)
            values.append(self._metric("ap50", name, value, n))
        report = {"images": 40, "values": [], "matches": {"infected": self._matches(), CLASSES[0]: self._matches()}}
        evaluation = runs.add_evaluation(session, pair.id, "test", builders.sha256("ruler"), report, values)
        assert evaluation.id
        return recall

    def _metric(self, name: str, class_name: str, value: float | None, n: int, interval: bool = True) -> MetricRow:
        half = None if value is None or not interval else 1.5 * float(np.sqrt(value * (1 - value) / max(n, 1)))
        low = None if value is None or half is None else max(0.0, value - half)
        high = None if value is None or half is None else min(1.0, value + half)
        return MetricRow(name, value, n, class_name, low, high)

    def _matches(self) -> dict[str, list[float]]:
        """Detections whose scores are a little too sure of themselves."""
        scores = np.sort(self.rng.beta(0.5, 0.6, 600))[::-1]
        hits = self.rng.uniform(size=600) < np.clip(scores**1.3, 0, 1)
        return {"scores": scores.tolist(), "hits": hits.astype(int).tolist(), "image": [0] * 600, "truths": [180]}

    def _review(
        self, session: Session, image: Image, field: Field, pairs: list[ModelPair], number: int, experts: Sequence[str]
    ) -> None:
        """An expert submits a field: what was shown, corrected to the truth; better pairs need less correcting."""
        share = number / max(1, 2 * VERSIONS)
        pair = pairs[0] if share < 0.2 else pairs[-1]
        prediction = predictions.get_prediction(session, image.id, pair.id)
        assert prediction is not None
        shown = predictions.predicted_cells(session, prediction.id)
        review = self._submitted(
            session, image, experts[number % len(experts)], DAYS * (1 - share) * 0.9, Way.field,
            seconds=float(60 + 2 * len(shown)), prediction_id=prediction.id,
        )  # fmt: skip
        rows = [self._answer(review, cell, field) for cell, _ in shown]
        labels.add_revisions(session, [row for row in rows if row is not None])

    def _submitted(
        self, session: Session, image: Image, expert: str, days_ago: float, way: Way, seconds: float,
        prediction_id: int | None,
    ) -> Review:  # fmt: skip
        thread = f"ls:{1 if way is Way.field else 2}:{int(self.rng.integers(1, 10**9))}"
        return reviews.add_review(
            session, thread=thread, image_id=image.id, status=ReviewStatus.submitted, expert=expert,
            revised_at=self.at(days_ago), content=[], lead_time_s=seconds, ls_project_id=1,
            prediction_id=prediction_id, way=way,
        )  # fmt: skip

    def _answer(self, review: Review, cell: PredictedCell, field: Field) -> LabelRevision | None:
        box = (cell.x1, cell.y1, cell.x2, cell.y2)
        true = _truth_at(field, box)
        if true is None:
            return labels.revision(review, cell.cell_id, Action.deleted, predicted_cell_id=cell.id)
        drawn, label = true
        moved = float(self.rng.uniform()) < 0.06
        action = Action.relabelled if label != cell.label else Action.moved if moved else Action.accepted
        return labels.revision(
            review, cell.cell_id, action, label, drawn if moved else box, shape="rectangle",
            predicted_cell_id=cell.id, predicted_iou=0.8 if moved else 1.0,
        )  # fmt: skip

    def _read_again(self, session: Session, some: Sequence[Image], experts: Sequence[str]) -> None:
        """Other experts answer single cells again; now and then they say something else."""
        for image in some:
            said = [live for live in labels.current_labels(session, [image.id]) if live.box is not None]
            for live in sorted(said, key=lambda live: (live.label == CLASSES[0], live.cell_id))[:6]:
                other = next(expert for expert in experts if expert != live.expert)
                days = (self.present - live.decided_at).total_seconds() / 86_400 * 0.6
                review = self._submitted(session, image, other, days, Way.cell, 4.0, None)
                agrees = float(self.rng.uniform()) < 0.82
                label = live.label if agrees else (DIFFICULT if live.label in INFECTED else "ring")
                action = Action.accepted if agrees else Action.relabelled
                labels.add_revisions(
                    session, [labels.revision(review, live.cell_id, action, label, live.box, shape="rectangle")]
                )

    def _queue(self, session: Session, waiting: Sequence[Image], pair: ModelPair) -> None:
        ranking = queue.add_ranking(session, pair.id, {"strategy": "batch"})
        entries = []
        for number, image in enumerate(waiting):
            prediction = predictions.get_prediction(session, image.id, pair.id)
            assert prediction is not None
            cells = [cell for cell, _ in predictions.predicted_cells(session, prediction.id)]
            cells.sort(key=lambda cell: (cell.label == CLASSES[0], cell.score))
            whys = [_why(cell) for cell in cells[:4]]
            entries.append(QueueEntry(image.id, 3.0 - 0.1 * number, {"reasons": whys}))
            for place, (cell, why) in enumerate(zip(cells, whys, strict=False)):
                slot = (Slot.acquisition, Slot.acquisition, Slot.random, Slot.second_reading)[place]
                entries.append(
                    QueueEntry(image.id, 5.0 - number - 0.2 * place, {}, Way.cell, slot, cell.cell_id, cell.id, why)
                )
        for item in queue.replace_queue(session, ranking.id, entries):
            item.created_at = self.at(float(self.rng.uniform(0.02, 2.5)))

    def _runs(self, session: Session) -> None:
        failed = TrainingRun(role="infected", trigger="person", detail={}, config={}, newest_revision_id=1,
                             created_at=self.at(6), updated_at=self.at(5.9))  # fmt: skip
        session.add(failed)
        session.flush()
        runs.fail(session, failed.id, "expected room on the disk, there is none left; make some")
        run = runs.open_run(session, "infected", "reviews", {"new": 27.5}, {"steps": 300})
        assert run is not None
        run.created_at = self.at(0.01)
        runs.start_run(session, run.id, steps=300)
        runs.progress(session, run.id, 111, 300, "loss 0.412")


def _truth_at(field: Field, box: Box) -> tuple[Box, str] | None:
    """The true cell around the middle of this box."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return next((cell for cell in field.cells if cell[0][0] < x < cell[0][2] and cell[0][1] < y < cell[0][3]), None)


def _why(cell: PredictedCell) -> str:
    order: NDArray[np.int64] = np.argsort(cell.probabilities)[::-1]
    first, second = (CLASSES[index] for index in order[:2])
    return f"{first} {cell.probabilities[order[0]]:.2f} or {second} {cell.probabilities[order[1]]:.2f}?"
