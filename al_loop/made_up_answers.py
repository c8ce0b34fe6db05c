"""Made-up answers: first readings of fields and cells, and what comes later: edits, second readings, withdrawals."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.made_up_fields import FieldWriter, Reading, boxes_of, sha256_of
from al_loop.made_up_rows import Batch, Ingest, where
from backend.instances import CLASSES, DIFFICULT
from db.models import Action, ItemStatus, LabelRevision, RankedCell, Review, ReviewItem, ReviewStatus, Slot, Way
from db.reviews import IMPORT_EXPERT, annotation_thread, content_sha256, import_thread

EXPERTS = ("ada@example.org", "ben@example.org", "chidi@example.org", "mei@example.org")
FIRST = (
    [Action.accepted, Action.moved, Action.relabelled, Action.deleted, Action.added],
    [0.9, 0.05, 0.03, 0.01, 0.01],
)
CELLS_READ = 20  # of a field whose cells are reviewed one by one
MARKED = 10  # cells of a queued field that the ranking points at
EDITED = 4  # cells that an edit of a field speaks of
LATER = 0.05 / 0.95  # revisions that come later, for each first one
REGION = {"id": "Ab3dE6gH9k", "type": "rectanglelabels", "value": {"x": 11.25, "y": 7.5, "width": 3.9, "height": 5.1}}
TERMS = json.dumps({"value": 0.731, "seconds": 4.2, "uncertainty": 0.61, "disagreement": 0.42, "rarity": 1.8})
SILENT = (Action.deleted, Action.withdrawn)  # answers without a label
WAITING_FIELDS, WAITING_CELLS = 40, 160


@dataclass(frozen=True)
class Said:
    """A review that something later may be about. cell: None for one of a whole field."""

    number: int  # of the annotation in Label Studio
    image: int
    cell: int | None
    expert: str
    moment: datetime

    @property
    def way(self) -> Way:
        return Way.field if self.cell is None else Way.cell

    @property
    def thread(self) -> str:
        return annotation_thread(1 if self.cell is None else 2, self.number)


class AnswerWriter:
    """Adds reviews, revisions, and the items of the queue that asked for them, in the order of recording."""

    def __init__(self, fields: FieldWriter, ingest: Ingest, rng: np.random.Generator) -> None:
        self.of, self.ingest, self.rng = fields, ingest, rng
        self.reviews, self.revisions = Batch(Review), Batch(LabelRevision)
        self.items, self.ranked = Batch(ReviewItem), Batch(RankedCell)
        self.newest_revision = 0
        self._made: Counter[str] = Counter()  # ids given, per kind
        self._states: Counter[int] = Counter()  # of each annotation
        self._field_readings: list[Said] = []
        self._cell_readings: list[Said] = []
        self._contents = {}
        for way, regions in ((Way.field, 100), (Way.cell, 1)):
            content = [REGION] * regions
            self._contents[way] = (json.dumps(content), content_sha256(content))

    def _next(self, kind: str) -> int:
        self._made[kind] += 1
        return self._made[kind]

    def add_readings(self, images: NDArray[np.int64], ranking: int, start: datetime) -> None:
        """First readings of these images, each in its way, then later answers about this and all before."""
        before = self.newest_revision
        for image, day in zip(images.tolist(), np.sort(self.rng.uniform(1, 3.5, len(images))).tolist(), strict=True):
            reading, moment = self.of.fields.reading[image - 1], start + timedelta(days=day)
            if reading == Reading.imported:
                self._import(image, moment)
            elif reading == Reading.field:
                self._read_field(image, ranking, moment)
            elif reading == Reading.cells:
                self._read_cells(image, ranking, moment)
        self._add_later(round(LATER * (self.newest_revision - before)), start + timedelta(days=3.5))
        for batch in (self.reviews, self.revisions, self.items, self.ranked):
            self.ingest.add(batch.model, batch.take())

    def add_waiting(self, images: NDArray[np.int64], ranking: int, moment: datetime) -> None:
        """The queue as it waits now: fields, and cells of other fields."""
        for image in images[:WAITING_FIELDS].tolist():
            self._queue(image, None, ranking, moment, ItemStatus.pending)
        for image in images[WAITING_FIELDS : WAITING_FIELDS + WAITING_CELLS].tolist():
            self._queue(image, int(self.of.fields.first[image - 1]), ranking, moment, ItemStatus.pending)
        self.ingest.add(ReviewItem, self.items.take())
        self.ingest.add(RankedCell, self.ranked.take())

    def _cells(self, image: int) -> NDArray[np.int64]:
        return self.of.fields.cells(np.array([image]))

    def _some(self, image: int, most: int) -> NDArray[np.int64]:
        """At most so many cells of an image, parasites first."""
        cells = self._cells(image)
        order = np.argsort(self.rng.random(len(cells)) - (self.of.fields.labels[cells - 1] > 0), kind="stable")
        return np.sort(cells[order[:most]])

    def _import(self, image: int, moment: datetime) -> None:
        thread, cells = import_thread(sha256_of(image)), self._cells(image)
        review = self._review(thread, 1, image, Way.field, IMPORT_EXPERT, moment, moment)
        self._say(review, thread, image, cells, [Action.imported] * len(cells), moment, moment)

    def _read_field(self, image: int, ranking: int, moment: datetime) -> None:
        expert = EXPERTS[int(self.rng.integers(len(EXPERTS)))]
        said = Said(self._next("annotation"), image, None, expert, moment)
        cells = self._cells(image)
        self._queue(image, None, ranking, moment - timedelta(hours=9), ItemStatus.done)
        self._record(said, cells, self._first_actions(len(cells)))
        self._field_readings.append(said)

    def _read_cells(self, image: int, ranking: int, moment: datetime) -> None:
        expert = EXPERTS[int(self.rng.integers(len(EXPERTS)))]
        cells = self._some(image, CELLS_READ)
        for cell, action in zip(cells.tolist(), self._first_actions(len(cells)), strict=True):
            moment += timedelta(seconds=5)
            said = Said(self._next("annotation"), image, cell, expert, moment)
            self._queue(image, cell, ranking, moment - timedelta(hours=9), ItemStatus.done)
            self._record(said, np.array([cell]), [action])
            self._cell_readings.append(said)

    def _first_actions(self, count: int) -> list[Action]:
        actions, shares = FIRST
        return [actions[index] for index in self.rng.choice(len(actions), count, p=shares)]

    def _add_later(self, revisions: int, moment: datetime) -> None:
        """So many revisions about earlier readings, in these shares of each kind."""
        end = self.newest_revision + revisions
        while self.newest_revision < end and self._field_readings and self._cell_readings:
            moment += timedelta(seconds=3)
            about_field = self._field_readings[int(self.rng.integers(len(self._field_readings)))]
            about_cell = self._cell_readings[int(self.rng.integers(len(self._cell_readings)))]
            kind = self.rng.choice(
                ["edit", "deletion", "second", "withdrawal", "late"], p=[0.2, 0.13, 0.41, 0.13, 0.13]
            )
            if kind == "edit":
                cells = self._some(about_field.image, EDITED)
                self._record(about_field, cells, [Action.relabelled] * len(cells), moment)
            elif kind == "deletion":
                self._record(about_field, self._some(about_field.image, 1), [Action.deleted], moment)
            elif kind == "withdrawal":
                self._record(about_cell, self._cells_of(about_cell), [Action.withdrawn], moment)
            else:
                other = EXPERTS[(EXPERTS.index(about_cell.expert) + 1) % len(EXPERTS)]
                decided = moment if kind == "second" else about_cell.moment - timedelta(days=1)
                said = Said(self._next("annotation"), about_cell.image, about_cell.cell, other, decided)
                self._record(said, self._cells_of(about_cell), [Action.relabelled], decided, moment)

    @staticmethod
    def _cells_of(said: Said) -> NDArray[np.int64]:
        return np.array([said.cell], dtype=np.int64)

    def _record(
        self,
        said: Said,
        cells: NDArray[np.int64],
        actions: list[Action],
        decided: datetime | None = None,
        recorded: datetime | None = None,
    ) -> None:
        """The next state of an annotation."""
        self._states[said.number] += 1
        decided = decided or said.moment
        recorded = recorded or decided
        withdrawn = actions[0] == Action.withdrawn
        status = ReviewStatus.withdrawn if withdrawn else ReviewStatus.submitted
        review = self._review(
            said.thread, self._states[said.number], said.image, said.way, said.expert, decided, recorded, status
        )
        self._say(review, said.thread, said.image, cells, actions, decided, recorded)

    def _review(
        self,
        thread: str,
        sequence: int,
        image: int,
        way: Way,
        expert: str,
        decided: datetime,
        recorded: datetime,
        status: ReviewStatus = ReviewStatus.submitted,
    ) -> int:
        content, sha256 = self._contents[way]
        imported = expert == IMPORT_EXPERT
        number = self._next("review")
        self.reviews.extend(
            1,
            id=number,
            thread=thread,
            sequence=sequence,
            image_id=image,
            way=way,
            status=status,
            expert=expert,
            revised_at=decided,
            recorded_at=recorded,
            lead_time_s=None if imported else 4.5 if way == Way.cell else 180.0,
            ls_project_id=None if imported else 1 if way == Way.field else 2,
            prediction_id=None if imported else int(self.of.prediction[image - 1]),
            content=content,
            content_sha256=sha256,
        )
        return number

    def _say(
        self,
        review: int,
        thread: str,
        image: int,
        cells: NDArray[np.int64],
        actions: list[Action],
        decided: datetime,
        recorded: datetime,
    ) -> None:
        count = len(cells)
        silent = [action in SILENT for action in actions]
        shown_before = [action not in (Action.imported, Action.added) for action in actions]
        labels = np.array([*CLASSES, DIFFICULT], dtype=object)[self.of.fields.labels[cells - 1]]
        labels[self.rng.random(count) < 0.003] = DIFFICULT
        labels[silent] = None
        boxes = boxes_of(cells, self.rng).astype(object)
        boxes[silent] = None
        shown = (self.of.shown[image - 1] + cells - self.of.fields.first[image - 1]).tolist()
        corners: dict[str, Any] = dict(zip(("x1", "y1", "x2", "y2"), boxes.T.tolist(), strict=True))
        self.revisions.extend(
            count,
            id=list(range(self.newest_revision + 1, self.newest_revision + 1 + count)),
            review_id=review,
            thread=thread,
            cell_id=cells.tolist(),
            image_id=image,
            predicted_cell_id=where(shown_before, shown),
            action=actions,
            label=labels.tolist(),
            **corners,
            shape=where((not each for each in silent), "rectangle"),
            predicted_iou=where(shown_before, 0.91),
            decided_at=decided,
            recorded_at=recorded,
        )
        self.newest_revision += count

    def _queue(self, image: int, cell: int | None, ranking: int, moment: datetime, status: ItemStatus) -> None:
        """An item of the queue, and what the ranking says of its cells."""
        cells = self._some(image, MARKED) if cell is None else np.array([cell])
        shown = (self.of.shown[image - 1] + cells - self.of.fields.first[image - 1]).tolist()
        reason = "ring or trophozoite: 0.48 against 0.41"
        self.ranked.extend(
            len(shown),
            id=[self._next("ranked") for _ in shown],
            ranking_id=ranking,
            predicted_cell_id=shown,
            score=0.7,
            terms=TERMS,
            reason=reason,
        )
        self.items.extend(
            1,
            id=self._next("item"),
            ranking_id=ranking,
            way=Way.field if cell is None else Way.cell,
            slot=Slot.acquisition,
            image_id=image,
            cell_id=cell,
            predicted_cell_id=None if cell is None else shown[0],
            score=float(self.rng.random()),
            terms=TERMS,
            reason="" if cell is None else reason,
            readers="[]",
            status=status,
            created_at=moment,
            closed_at=None if status == ItemStatus.pending else moment + timedelta(hours=9),
        )
