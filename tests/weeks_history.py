"""Five weeks after the history made by hand: smears come, experts answer, versions are trained, promoted or refused.

Every week brings a slide of another patient with three fields. The serving pair pre-annotates them. Ada and Bob review
a field each; Carol answers suspected parasites of the third one by one, and reads some of Ada's again. At its end an
`infected` version is trained on the fields that are labelled, and the gate decides. After the last week the serving
pair has seen all fields, and what Carol left waits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sqlalchemy.orm import Session

from backend.instances import CLASSES, INFECTED
from db import evaluations, labels, predictions, queue, versions
from db.evaluations import MetricRow
from db.models import Action, Image, ModelPair, PredictedCell, Prediction, Slot, Way
from db.predictions import CellRow
from db.queue import QueueEntry
from tests.builders import add_cell, add_image, add_review, add_version, at, cell_row, dated, sha256
from tests.made_history import MadeHistory, make_history

Box = tuple[float, float, float, float]

CELLS = 60  # of a field
SHARES = (0.04, 0.1, 0.22, 0.15, 0.07)  # infected cells of each week's slide
ERRORS = (0.3, 0.2, 0.2, 0.12, 0.07)  # how often the pair of each week is wrong about a cell
RECALLS = (0.66, 0.62, 0.73, 0.79, 0.82)  # of the version trained at each week's end
REFUSED = 1  # the week whose version the gate refuses
AP50 = {"red blood cell": (0.9, 900), "ring": (0.75, 60), "trophozoite": (0.7, 40), "schizont": (0.5, 12),
        "gametocyte": (0.4, 7)}  # at a recall of 1, and true cells in the test split  # fmt: skip
DAY = 24 * 60.0
BETWEEN_CELLS = 9.0  # seconds


@dataclass(frozen=True)
class Field:
    """truth: the true cells. shown: what the pair saw, each with the index of its true cell (None: there is none)."""

    image: Image
    truth: list[tuple[Box, str]]
    shown: list[tuple[PredictedCell, int | None]]
    prediction: Prediction


def make_weeks(session: Session) -> list[Field]:
    """Write it down, after the history made by hand. Gives the fields, three of each week."""
    weeks = _Weeks(session, make_history(session))
    for week in range(len(SHARES)):
        weeks.pass_week(week)
    weeks.look_at_everything()
    return weeks.fields


class _Weeks:
    def __init__(self, session: Session, history: MadeHistory) -> None:
        self.session = session
        self.random = random.Random(4)
        self.all_cells = history.versions[0]
        self.serving = history.b
        self.labelled = [history.labelled.sha256]
        self.fields: list[Field] = []
        self.threads = 100

    def pass_week(self, week: int) -> None:
        start = (1 + 7 * week) * DAY
        with dated(self.session, at(start)):
            fields = [self._field(week, number, start) for number in range(3)]
        self._review(fields[0], start + 1.1 * DAY, "ada")
        self._review(fields[1], start + 2.2 * DAY, "bob")
        infected = [(cell, true) for cell, true in fields[2].shown if cell.label in INFECTED]
        self._answer_cells(fields[2], infected[:4], start + 3.1 * DAY)
        self._answer_cells(fields[0], [c for c in fields[0].shown if c[0].label in INFECTED][:3], start + 3.2 * DAY)
        self._queue(fields[2], infected[4:], start + 3.3 * DAY)
        self.labelled += [field.image.sha256 for field in fields[:2]]
        self._train(week, start + 5 * DAY)
        self.fields += fields

    def look_at_everything(self) -> None:
        with dated(self.session, at((1 + 7 * len(SHARES)) * DAY)):
            for field in self.fields:
                self._predict(field.image, field.truth, ERRORS[-1])

    # --- fields and what pairs see in them ---

    def _field(self, week: int, number: int, minute: float) -> Field:
        slide = f"S{week + 3}"
        image = add_image(self.session, f"{slide}-f{number + 1}.png", group=slide, patient=f"P{week + 3}",
                          taken_at=at(minute - 60))  # fmt: skip
        share = SHARES[week] * self.random.uniform(0.7, 1.3)  # fields of a slide differ
        truth = []
        for index in range(CELLS):
            x, y = 15.0 + 60 * (index % 10), 15.0 + 75 * (index // 10)
            stage = self.random.choices(INFECTED, (1, 6, 1, 3))[0]
            truth.append(((x, y, x + 40, y + 40), stage if self.random.random() < share else "red blood cell"))
        return Field(image, truth, *self._predict(image, truth, ERRORS[week]))

    def _predict(
        self, image: Image, truth: list[tuple[Box, str]], error: float
    ) -> tuple[list[tuple[PredictedCell, int | None]], Prediction]:
        rows: list[CellRow] = []
        of: list[int | None] = []
        for index, (box, label) in enumerate(truth):
            mistake = self.random.choices(
                ("none", "label", "box", "missed"), (1 - error, error / 3, error / 3, error / 3)
            )
            if mistake[0] != "missed":
                wrong = "ring" if label == "red blood cell" else "red blood cell"
                rows.append(self._row(_shifted(box, 5) if mistake[0] == "box" else box,
                                      wrong if mistake[0] == "label" else label))  # fmt: skip
                of.append(index)
        for place in range(round(10 * error)):  # where there is no cell
            rows.append(self._row((15.0 + 60 * place, 445, 45.0 + 60 * place, 475), "ring"))
            of.append(None)
        prediction = predictions.add_prediction(self.session, image.id, self.serving.id, rows, seconds=0.4)
        seen = [cell for cell, _ in predictions.predicted_cells(self.session, prediction.id)]
        return list(zip(seen, of, strict=True)), prediction

    def _row(self, box: Box, label: str) -> CellRow:
        score = round(self.random.uniform(0.5, 0.95), 3)
        rest = (1 - score) / (len(CLASSES) - 1)
        probabilities = [score if name == label else rest for name in CLASSES]
        return cell_row(box, label, score=score, probabilities=probabilities, disputed=score < 0.6)

    # --- experts ---

    def _review(self, field: Field, minute: float, expert: str) -> None:
        """A whole field, corrected to the truth: longer where more must be corrected."""
        answers = [self._correction(field, cell, true) for cell, true in field.shown]
        missed = set(range(len(field.truth))) - {true for _, true in field.shown}
        changed = sum(answer[1] is not Action.accepted for answer in answers) + len(missed)
        review = add_review(self.session, field.image, self._thread(1), minute, expert=expert,
                            lead_time_s=60 + 4.0 * changed, prediction_id=field.prediction.id)  # fmt: skip
        rows = [
            labels.revision(review, cell, action, label, box, predicted_cell_id=shown)
            for cell, action, label, box, shown in answers
        ]
        for index in sorted(missed):
            box, label = field.truth[index]
            rows.append(labels.revision(review, add_cell(self.session, field.image).id, Action.added, label, box))
        self._add(rows, minute)

    def _correction(
        self, field: Field, cell: PredictedCell, true: int | None
    ) -> tuple[int, Action, str | None, Box | None, int]:
        if true is None:
            return cell.cell_id, Action.deleted, None, None, cell.id
        box, label = field.truth[true]
        moved = (cell.x1, cell.y1) != box[:2]
        action = Action.relabelled if label != cell.label else Action.moved if moved else Action.accepted
        return cell.cell_id, action, label, box, cell.id

    def _answer_cells(self, field: Field, some: list[tuple[PredictedCell, int | None]], minute: float) -> None:
        """Carol's answers about cells, one by one; one in five is another than the truth."""
        for number, (cell, true) in enumerate(some):
            review = add_review(self.session, field.image, self._thread(2), minute + number / 6, expert="carol",
                                way=Way.cell, lead_time_s=BETWEEN_CELLS, prediction_id=field.prediction.id)  # fmt: skip
            cell_id, action, label, box, shown = self._correction(field, cell, true)
            if action is Action.accepted and self.random.random() < 0.2:
                action, label = Action.relabelled, "trophozoite" if label == "ring" else "ring"
            self._add([labels.revision(review, cell_id, action, label, box, predicted_cell_id=shown)], minute)

    def _thread(self, project: int) -> str:
        self.threads += 1
        return f"ls:{project}:{self.threads}"

    def _add(self, rows: list[labels.NewRevision], minute: float) -> None:
        with dated(self.session, at(minute + 1)):
            labels.add_revisions(self.session, rows)

    def _queue(self, field: Field, some: list[tuple[PredictedCell, int | None]], minute: float) -> None:
        """The field, and cells of it: what an expert will not see until next week."""
        with dated(self.session, at(minute)):
            ranking = queue.add_ranking(self.session, self.serving.id, {})
            entries = [QueueEntry(field.image.id, 1.0, {}, reason="a field with suspected parasites")]
            for number, (cell, _) in enumerate(some):
                slot = (Slot.acquisition, Slot.acquisition, Slot.random, Slot.second_reading)[number % 4]
                why = f"{cell.label} {cell.score:.2f} or red blood cell {1 - cell.score:.2f}?"
                entries.append(
                    QueueEntry(field.image.id, 3.0 - 0.1 * number, {}, Way.cell, slot, cell.cell_id, cell.id, why)
                )
            queue.add_items(self.session, ranking.id, entries)

    # --- models ---

    def _train(self, week: int, minute: float) -> None:
        newest = labels.newest_revision_id(self.session)
        images = [{"sha256": sha256, "cells": [], "partial": None} for sha256 in self.labelled]
        with dated(self.session, at(minute)):
            version = add_version(self.session, manifest={"newest_revision_id": newest, "images": images})
            pair = ModelPair(name=f"W{week + 1}", all_cells_id=self.all_cells, infected_id=version.id, fusion={"x": 1})
            self.session.add(pair)
            self.session.flush()
            recall = RECALLS[week]
            metrics = [_metric("infected_recall_at_0.5fp", "", recall, 119)]
            metrics += [_metric("ap50", name, most * recall**0.5, n) for name, (most, n) in AP50.items()]
            metrics.append(MetricRow("ap50", None, 0, "leukocyte"))
            evaluation = evaluations.add_evaluation(self.session, pair.id, "test", sha256("ruler"), {}, metrics)
        with dated(self.session, at(minute + 5)):
            if week == REFUSED:
                why = f"infected recall {recall:.2f}: it may be worse by more than 0.02"
                versions.reject(self.session, version.id, reasons=[why], evaluation_id=evaluation.id)
            else:
                why = f"infected recall {recall:.2f}: not worse"
                versions.activate(self.session, version.id, kind="gate", reasons=[why], evaluation_id=evaluation.id)
                self.serving = pair


def _shifted(box: Box, by: float) -> Box:
    return box[0] + by, box[1] + by, box[2] + by, box[3] + by


def _metric(name: str, class_name: str, value: float, n: int) -> MetricRow:
    half = 1.96 * (value * (1 - value) / n) ** 0.5
    return MetricRow(name, value, n, class_name, max(0.0, value - half), min(1.0, value + half))
