"""One annotation into SQL: its state as an append-only review, and a label revision for every cell that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from al_loop.revise import Answer, Change, Shown, revise
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.protocol import Annotation
from backend.label_studio.regions import ParsedRegion, from_regions
from db import cells, labels, predictions, queue, reviews, versions
from db.models import Action, Image, ItemStatus, Project, Review, ReviewStatus


@dataclass
class SyncReport:
    """What a sync brought. revisions: label revisions by action. problems: regions that could not be understood.

    deleted: tasks that are gone in Label Studio since the last look at all of them.
    """

    tasks: int = 0
    reviews: Counter[str] = field(default_factory=Counter)
    revisions: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    deleted: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything new came."""
        return bool(self.reviews)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "tasks": self.tasks,
            "reviews": dict(self.reviews),
            "revisions": dict(self.revisions),
            "problems": self.problems,
            "deleted": self.deleted,
        }


@dataclass(frozen=True)
class Source:
    """Where an annotation comes from. expert: who made it. pair_name: model version of the prediction it answers.

    read_at: `updated_at` of its task as it was read. known: the newest review when the reading began.
    """

    project: Project
    config: LabelConfig
    image: Image
    ls_task_id: int
    expert: str
    pair_name: str | None
    read_at: datetime | None
    known: int


@dataclass(frozen=True)
class _ShownCell:
    predicted_cell_id: int
    shown: Shown


@dataclass(frozen=True)
class _ShownPrediction:
    prediction_id: int | None
    cells: Mapping[str, _ShownCell]


def record_review(session: Session, source: Source, annotation: Annotation, report: SyncReport) -> str:
    """Append what this annotation says now, unless it is known already. Returns the annotation's thread."""
    image = source.image
    thread = reviews.annotation_thread(source.project.ls_project_id, annotation.id)
    status = ReviewStatus.skipped if annotation.was_cancelled else ReviewStatus.submitted
    last = reviews.latest_review(session, thread)
    if last and last.status == status and last.content_sha256 == reviews.content_sha256(annotation.result):
        return thread
    moment = source.read_at if last and last.status is ReviewStatus.withdrawn else annotation.updated_at
    if last and outdated(last, moment, source.known):
        return thread
    shown = _shown(session, image, annotation.result, source.pair_name, last)
    review = reviews.add_review(
        session,
        thread=thread,
        image_id=image.id,
        status=status,
        expert=source.expert,
        revised_at=annotation.updated_at,
        content=annotation.result,
        lead_time_s=annotation.lead_time,
        ls_project_id=source.project.ls_project_id,
        ls_task_id=source.ls_task_id,
        ls_annotation_id=annotation.id,
        prediction_id=shown.prediction_id,
        sequence=reviews.after(last),
    )
    report.reviews[status.value] += 1
    if status is ReviewStatus.skipped:
        withdraw_labels(session, review, report)
        queue.close(session, image.id, ItemStatus.skipped)
        return thread
    parsed = from_regions(annotation.result, source.config, (image.height, image.width))
    where = f"task {source.ls_task_id}, annotation {annotation.id}"
    report.problems += [f"{where}: {problem}" for problem in parsed.problems]
    drawn = [Answer(r.key, r.box, r.label, r.shape, _drawn_mask(r)) for r in parsed.regions]
    said = [] if last is None else labels.thread_labels(session, thread)
    before = {
        live.key: Shown(live.box, live.label, live.mask) if live.label is not None and live.box is not None else None
        for live in said
    }
    predicted = {key: cell.shown for key, cell in shown.cells.items()}
    known = cells.ids_by_key(session, image.id)
    answers = _with_known_keys(session, image.id, drawn, known)
    _append(session, review, revise(predicted, before, answers), shown, known, report)
    queue.close(session, image.id, ItemStatus.done)
    return thread


def _drawn_mask(region: ParsedRegion) -> bytes | None:
    """COCO RLE counts of what the expert drew; an untouched outline is still the machine's."""
    return region.mask["counts"] if region.mask is not None and region.origin != "prediction" else None


def outdated(last: Review, moment: datetime | None, known: int) -> bool:
    """Whether what stems from this moment is older than the last state: another sync read later and was faster.

    known: the newest review when the reading began. What was recorded before is older than what was read then, whatever
    Label Studio's clock says of the two: it may have been put back.
    """
    return last.id > known and moment is not None and moment < last.revised_at


def withdraw(session: Session, last: Review, moment: datetime, report: SyncReport) -> None:
    """Append that a thread says nothing any more: its annotation was deleted or turned back into a draft by then."""
    review = reviews.add_review(
        session,
        thread=last.thread,
        image_id=last.image_id,
        status=ReviewStatus.withdrawn,
        expert=last.expert,
        revised_at=moment,
        content=[],
        ls_project_id=last.ls_project_id,
        ls_task_id=last.ls_task_id,
        ls_annotation_id=last.ls_annotation_id,
        prediction_id=last.prediction_id,
        way=last.way,
    )
    report.reviews[ReviewStatus.withdrawn.value] += 1
    withdraw_labels(session, review, report)


def _shown(
    session: Session, image: Image, content: Sequence[Any], pair_name: str | None, last: Review | None
) -> _ShownPrediction:
    """The prediction the expert saw: that of the version the annotation names, or of its earlier states.

    An annotation without a parent that still holds regions of ours was made from the newest prediction, too
    (Label Studio forgets the parent when the prediction is deleted); any other was drawn from nothing.
    """
    prediction = None
    if pair_name is not None:
        pair = versions.pair_named(session, pair_name)
        prediction = predictions.get_prediction(session, image.id, pair.id) if pair else None
    elif last is not None and last.prediction_id is not None:
        prediction = predictions.by_id(session, last.prediction_id)
    elif any(isinstance(item, dict) and str(item.get("origin", "")).startswith("prediction") for item in content):
        prediction = predictions.newest_prediction(session, image.id)
    if prediction is None:
        return _ShownPrediction(None, {})
    found = {
        key: _ShownCell(cell.id, Shown((cell.x1, cell.y1, cell.x2, cell.y2), cell.label))
        for cell, key in predictions.predicted_cells(session, prediction.id)
    }
    return _ShownPrediction(prediction.id, found)


def _with_known_keys(
    session: Session, image_id: int, answers: Sequence[Answer], known: Mapping[str, int]
) -> Sequence[Answer]:
    """The answers, with a cell redrawn by hand where one is known carrying that cell's key. known: ids by key.

    Without this, two experts who add the same overlooked cell would make two cells of it.
    """
    drawn = [i for i, answer in enumerate(answers) if answer.key not in known]
    if not drawn:
        return answers
    by_id = {cell_id: key for key, cell_id in known.items()}
    claimed = {known[answer.key] for answer in answers if answer.key in known}
    free = {cell_id: box for cell_id, box in cells.places(session, image_id).items() if cell_id not in claimed}
    pairs = cells.match([answers[i].box for i in drawn], list(free.values()))
    free_ids = list(free)
    keys = {drawn[i]: by_id[free_ids[j]] for i, j in pairs.items()}
    return [replace(answer, key=keys.get(i, answer.key)) for i, answer in enumerate(answers)]


def _append(
    session: Session,
    review: Review,
    changes: Sequence[Change],
    shown: _ShownPrediction,
    known: Mapping[str, int],
    report: SyncReport,
) -> None:
    rows = []
    for change in changes:
        cell_id = known.get(change.key) or cells.add_cell(session, review.image_id, change.key).id
        predicted = shown.cells.get(change.key)
        answer = change.answer
        rows.append(
            labels.revision(
                review,
                cell_id,
                change.action,
                answer.label if answer else None,
                answer.box if answer else None,
                shape=answer.shape if answer else None,
                mask=answer.mask if answer else None,
                predicted_cell_id=predicted.predicted_cell_id if predicted else None,
                predicted_iou=change.predicted_iou,
            )
        )
        report.revisions[change.action.value] += 1
    labels.add_revisions(session, rows)


def withdraw_labels(session: Session, review: Review, report: SyncReport) -> None:
    """Append that this review's thread says nothing of any cell any more."""
    live = labels.thread_labels(session, review.thread)
    labels.add_revisions(session, [labels.revision(review, label.cell_id, Action.withdrawn) for label in live])
    if live:
        report.revisions[Action.withdrawn.value] += len(live)
