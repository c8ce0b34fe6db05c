"""Every table on one page.

Facts are appended and never changed: reviews, label revisions, predictions, evaluations, promotion decisions,
pushes. The database itself refuses to change or delete them (`db/guards.py`). What may change is a state machine with
its transitions written here, or a cursor. Machine predictions and human labels live in different tables; "the current
label" follows from the label revisions: triggers keep it (`db/derived.py`), and nobody else writes it.

A `Cell` is the identity that both refer to: a place in an image that some model or expert once called a cell.
Later predictions of the same place (IoU >= 0.5) get the same cell, so its key can travel through Label Studio
as the region id and a label survives every new model.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, with its zone, on every engine. Refuses naive datetimes."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"expected a datetime with a time zone, got {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


Json = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[Any]: Json}  # noqa: RUF012


class Split(StrEnum):
    train = "train"  # the pool: predicted, ranked, reviewed, trained on
    validation = "validation"  # calibration and thresholds
    test = "test"  # the ruler: never queued, never trained on


class ReviewStatus(StrEnum):
    submitted = "submitted"
    skipped = "skipped"
    withdrawn = "withdrawn"  # deleted, or turned back into a draft


class Action(StrEnum):
    """What an expert did to one cell, compared with what was shown (or with their own previous answer)."""

    imported = "imported"
    accepted = "accepted"
    relabelled = "relabelled"
    moved = "moved"
    added = "added"
    deleted = "deleted"
    withdrawn = "withdrawn"


class VersionStatus(StrEnum):
    candidate = "candidate"
    active = "active"
    retired = "retired"
    rejected = "rejected"


VERSION_TRANSITIONS: dict[VersionStatus, set[VersionStatus]] = {
    VersionStatus.candidate: {VersionStatus.active, VersionStatus.rejected},
    VersionStatus.active: {VersionStatus.retired},
    VersionStatus.retired: {VersionStatus.active},  # rollback
    VersionStatus.rejected: {VersionStatus.active},  # a person overrules the gate
}


class RunStatus(StrEnum):
    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


RUN_TRANSITIONS: dict[RunStatus, set[RunStatus]] = {
    RunStatus.queued: {RunStatus.running, RunStatus.cancelled, RunStatus.failed},
    RunStatus.running: {RunStatus.succeeded, RunStatus.failed, RunStatus.cancelled},
    RunStatus.succeeded: set(),
    RunStatus.failed: set(),
    RunStatus.cancelled: set(),
}


class Way(StrEnum):
    """How cells are reviewed: all of a smear's field at once, or one crop after the other."""

    field = "field"
    cell = "cell"


class Slot(StrEnum):
    """Why an item is in the queue."""

    acquisition = "acquisition"  # the ranking chose it
    random = "random"  # drawn uniformly from what waits: the honest monitor
    second_reading = (
        "second_reading"  # another expert has read it: difficult, suspicious, or drawn to measure agreement
    )


class ItemStatus(StrEnum):
    pending = "pending"
    done = "done"
    skipped = "skipped"
    superseded = "superseded"  # a newer ranking left it out


ITEM_TRANSITIONS: dict[ItemStatus, set[ItemStatus]] = {
    ItemStatus.pending: {ItemStatus.done, ItemStatus.skipped, ItemStatus.superseded},
    ItemStatus.done: set(),
    ItemStatus.skipped: set(),
    ItemStatus.superseded: set(),
}


DERIVED: dict[str, Any] = {"info": {"derived": True}}  # no fact of its own: triggers write it, backups leave it out
PROTOCOL = "coco-iou50.v1"  # matching and numbers of `al_loop/metrics.py`; another way to score gets another name


def state(enum: type[StrEnum]) -> Enum:
    """A column type that stores the enum's values as text behind a CHECK constraint, on both engines."""
    return Enum(
        enum,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=enum.__name__.lower(),
        values_callable=lambda members: [m.value for m in members],
    )


# --- images ------------------------------------------------------------------------------------------------


class Image(Base):
    """A smear's field, stored once by the sha256 of its file."""

    __tablename__ = "images"
    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    file: Mapped[str] = mapped_column(String(255))  # path inside the file store: images/ab/<sha256>.png
    name: Mapped[str] = mapped_column(String(255), index=True)  # the name it came with
    width: Mapped[int]
    height: Mapped[int]
    group: Mapped[str] = mapped_column(String(255), index=True)  # slide or contiguous block
    split: Mapped[Split] = mapped_column(state(Split), index=True)
    dataset: Mapped[str] = mapped_column(String(32))  # bbbc041 | iml | coco | rendered | label-studio
    patient: Mapped[str | None] = mapped_column(String(255), index=True)  # NULL: nobody said
    taken_at: Mapped[datetime | None]  # NULL: nobody said
    created_at: Mapped[datetime] = mapped_column(default=now)


class Import(Base):
    """One run of `cellloop import`: what was found, what was left out and why."""

    __tablename__ = "imports"
    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(Text)
    dataset: Mapped[str] = mapped_column(String(32))
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class FrozenSplit(Base):
    """The test split as it was when it was frozen: the only images a gate ever compares on."""

    __tablename__ = "frozen_splits"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(32), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))  # over the sorted images and their labels
    content: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Cell(Base):
    """A place in an image; `key` is Label Studio's region id."""

    __tablename__ = "cells"
    __table_args__ = (UniqueConstraint("key", "image_id"),)  # in this order: cells are looked up by their key alone
    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    key: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)


# --- models ------------------------------------------------------------------------------------------------


class ModelVersion(Base):
    """One trained detector. `config` and `manifest` say exactly how it was made."""

    __tablename__ = "model_versions"
    __table_args__ = (
        CheckConstraint("role IN ('all_cells', 'infected')", name="role"),
        Index(
            "uq_model_versions_active_role",
            "role",
            unique=True,
            sqlite_where=text("status = 'active'"),
            postgresql_where=text("status = 'active'"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(String(16), index=True)
    status: Mapped[VersionStatus] = mapped_column(state(VersionStatus), default=VersionStatus.candidate)
    weights_sha256: Mapped[str] = mapped_column(String(64))
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    newest_revision_id: Mapped[int | None]  # labels up to here were trained on; NULL: not trained from this record
    created_at: Mapped[datetime] = mapped_column(default=now)
    environment: Mapped[dict[str, Any]]  # device, package versions
    config: Mapped[dict[str, Any]]
    manifest: Mapped[dict[str, Any]]  # a few MB for thousands of images: last, as SQLite reads through what is before


class TrainingImage(Base):
    """An image that a version was trained on, as its manifest lists it: for questions by image. Append-only."""

    __tablename__ = "training_images"
    # With the version: hundreds may have learned from one image, and none of their rows is read.
    __table_args__ = (Index("ix_training_images_image_id_version_id", "image_id", "version_id"),)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    complete: Mapped[bool]  # every cell of the field was known, not only those reviewed one by one


class ModelPair(Base):
    """An `all_cells` and an `infected` version with their fusion settings: what a prediction is made by.

    `name` is Label Studio's model_version.
    """

    __tablename__ = "model_pairs"
    __table_args__ = (UniqueConstraint("all_cells_id", "infected_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    all_cells_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    infected_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    fusion: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Prediction(Base):
    """What one model pair saw in one image. Append-only."""

    __tablename__ = "predictions"
    __table_args__ = (UniqueConstraint("pair_id", "image_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("model_pairs.id"))
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=now)


class PredictedCell(Base):
    """One fused cell of a prediction. `probabilities` follows backend.instances.CLASSES. Append-only."""

    __tablename__ = "predicted_cells"
    __table_args__ = (
        UniqueConstraint("prediction_id", "cell_id"),
        CheckConstraint("source IN ('both', 'all_cells', 'infected')", name="source"),
        CheckConstraint("x2 > x1 AND y2 > y1", name="box"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    prediction_id: Mapped[int] = mapped_column(ForeignKey("predictions.id"))
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), index=True)
    x1: Mapped[float]  # px, xyxy
    y1: Mapped[float]
    x2: Mapped[float]
    y2: Mapped[float]
    label: Mapped[str] = mapped_column(String(32))
    score: Mapped[float]
    probabilities: Mapped[list[Any]]
    score_all_cells: Mapped[float | None]  # raw, NULL where that model saw nothing
    score_infected: Mapped[float | None]
    source: Mapped[str] = mapped_column(String(16))
    pair_iou: Mapped[float | None]
    disputed: Mapped[bool]
    mask: Mapped[bytes | None] = mapped_column(LargeBinary)  # COCO RLE counts of the whole image


class PackedPrediction(Base):
    """The same cells as columns of bytes (`db/packed.py`): a ranking reads a million of them in a second."""

    __tablename__ = "packed_predictions"
    prediction_id: Mapped[int] = mapped_column(ForeignKey("predictions.id"), primary_key=True)
    count: Mapped[int]
    cells: Mapped[bytes] = mapped_column(LargeBinary)
    embeddings: Mapped[bytes | None] = mapped_column(LargeBinary)  # (count, D) float16, unit length


class PredictedCount(Base):
    """Cells per label of a prediction. Derived from `predicted_cells` by triggers (`db/derived.py`)."""

    __tablename__ = "predicted_counts"
    __table_args__ = (DERIVED,)
    prediction_id: Mapped[int] = mapped_column(ForeignKey("predictions.id"), primary_key=True)
    label: Mapped[str] = mapped_column(String(32), primary_key=True)
    cells: Mapped[int]


class PredictionRequest(Base):
    """An image somebody opened before it was predicted; the worker predicts and pushes it. A queue."""

    __tablename__ = "prediction_requests"
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


# --- reviews and labels ------------------------------------------------------------------------------------


class Review(Base):
    """One state of one annotation, exactly as it came. Append-only.

    `thread` names the annotation through all its states: `ls:<project>:<annotation>` or `import:<image sha>`.
    """

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("thread", "sequence"),
        CheckConstraint("sequence >= 1", name="sequence"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    thread: Mapped[str] = mapped_column(String(128))
    sequence: Mapped[int]  # 1, 2, ... within the thread
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    way: Mapped[Way] = mapped_column(state(Way), default=Way.field)  # a cell's review says nothing of the others
    status: Mapped[ReviewStatus] = mapped_column(state(ReviewStatus))
    expert: Mapped[str] = mapped_column(String(255), index=True)
    revised_at: Mapped[datetime] = mapped_column(index=True)  # when the expert did it
    recorded_at: Mapped[datetime] = mapped_column(default=now)  # when we learned of it
    lead_time_s: Mapped[float | None]
    ls_project_id: Mapped[int | None]
    ls_task_id: Mapped[int | None] = mapped_column(index=True)
    ls_annotation_id: Mapped[int | None]
    prediction_id: Mapped[int | None] = mapped_column(ForeignKey("predictions.id"), index=True)  # what it answers
    content: Mapped[list[Any]]  # Label Studio's result, untouched
    content_sha256: Mapped[str] = mapped_column(String(64))


class LabelRevision(Base):
    """One answer about one cell. Append-only; the current label is the newest live answer (`db/labels.py`)."""

    __tablename__ = "label_revisions"
    __table_args__ = (
        UniqueConstraint("review_id", "cell_id"),
        CheckConstraint("(label IS NULL) = (action IN ('deleted', 'withdrawn'))", name="label"),
        Index("ix_label_revisions_cell_id_thread_id", "cell_id", "thread", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    review_id: Mapped[int] = mapped_column(ForeignKey("reviews.id"))
    thread: Mapped[str] = mapped_column(String(128))
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    predicted_cell_id: Mapped[int | None] = mapped_column(ForeignKey("predicted_cells.id"), index=True)
    action: Mapped[Action] = mapped_column(state(Action))
    label: Mapped[str | None] = mapped_column(String(32), index=True)
    x1: Mapped[float | None]  # px, xyxy; NULL for deleted and withdrawn
    y1: Mapped[float | None]
    x2: Mapped[float | None]
    y2: Mapped[float | None]
    shape: Mapped[str | None] = mapped_column(String(16))  # rectangle | ellipse | polygon | brush
    mask: Mapped[bytes | None] = mapped_column(LargeBinary)  # COCO RLE counts, where the expert drew one
    predicted_iou: Mapped[float | None]  # box IoU with what was shown
    decided_at: Mapped[datetime] = mapped_column(index=True)
    recorded_at: Mapped[datetime] = mapped_column(default=now)


class CurrentLabel(Base):
    """The newest live answer about a cell (NULL: no cell there). Derived from `label_revisions` by triggers.

    A cell about which nobody says anything (any more) has no row.
    """

    __tablename__ = "current_labels"
    __table_args__ = (DERIVED,)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("label_revisions.id"), unique=True)
    label: Mapped[str | None] = mapped_column(String(32), index=True)


class LabelCount(Base):
    """Cells per current label of an image. Derived from `current_labels` by triggers; may be 0."""

    __tablename__ = "label_counts"
    __table_args__ = (CheckConstraint("cells >= 0", name="cells"), DERIVED)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    label: Mapped[str] = mapped_column(String(32), primary_key=True)
    cells: Mapped[int]


# --- ranking and the queue ---------------------------------------------------------------------------------


class Ranking(Base):
    """One ordering of the pool by one model pair, with its settings. Append-only."""

    __tablename__ = "rankings"
    id: Mapped[int] = mapped_column(primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("model_pairs.id"))
    config: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class ReviewItem(Base):
    """A field or a cell waiting for an expert, with its priority. Each waits at most once.

    While `assigned_until` lies ahead, the item is in the hands of `assigned_to`, and no ranking takes it away.
    """

    __tablename__ = "review_items"
    __table_args__ = (
        Index(
            "uq_review_items_pending_image",
            "image_id",
            unique=True,
            sqlite_where=text("status = 'pending' AND way = 'field'"),
            postgresql_where=text("status = 'pending' AND way = 'field'"),
        ),
        Index(
            "uq_review_items_pending_cell",
            "cell_id",
            unique=True,
            sqlite_where=text("status = 'pending' AND way = 'cell'"),
            postgresql_where=text("status = 'pending' AND way = 'cell'"),
        ),
        CheckConstraint("(way = 'cell') = (cell_id IS NOT NULL)", name="cell"),
        CheckConstraint("(assigned_to IS NULL) = (assigned_until IS NULL)", name="assigned"),
        Index("ix_review_items_status_score", "status", "score"),
        Index("ix_review_items_cell_id", "cell_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    ranking_id: Mapped[int] = mapped_column(ForeignKey("rankings.id"), index=True)
    way: Mapped[Way] = mapped_column(state(Way), default=Way.field)
    slot: Mapped[Slot] = mapped_column(state(Slot), default=Slot.acquisition)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    cell_id: Mapped[int | None] = mapped_column(ForeignKey("cells.id"))
    predicted_cell_id: Mapped[int | None] = mapped_column(ForeignKey("predicted_cells.id"), index=True)  # asked about
    score: Mapped[float]  # expected value per second of the expert's time
    terms: Mapped[dict[str, Any]]  # everything `score` is made of
    reason: Mapped[str] = mapped_column(String(255), default="")
    readers: Mapped[list[Any]] = mapped_column(default=list)  # experts who have read it: not for them
    status: Mapped[ItemStatus] = mapped_column(state(ItemStatus), default=ItemStatus.pending)
    assigned_to: Mapped[str | None] = mapped_column(String(255))
    assigned_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    closed_at: Mapped[datetime | None]


class RankedCell(Base):
    """One cell's acquisition score in a ranking, every term of it, and the reason in words. Append-only."""

    __tablename__ = "ranked_cells"
    __table_args__ = (UniqueConstraint("ranking_id", "predicted_cell_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    ranking_id: Mapped[int] = mapped_column(ForeignKey("rankings.id"))
    predicted_cell_id: Mapped[int] = mapped_column(ForeignKey("predicted_cells.id"), index=True)
    score: Mapped[float]
    terms: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(String(255))


class Suspicion(Base):
    """Why one label may be wrong or missing, by what a pair that never trained on it saw. Append-only.

    It ends when the label is not the cell's current one any more, or when another expert has read the cell.
    """

    __tablename__ = "suspicions"
    __table_args__ = (
        UniqueConstraint("cell_id", "pair_id", "kind"),
        CheckConstraint("kind IN ('label', 'nothing', 'overlooked', 'misplaced')", name="kind"),
        CheckConstraint("(kind = 'overlooked') = (revision_id IS NULL)", name="revision"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("model_pairs.id"))
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    revision_id: Mapped[int | None] = mapped_column(ForeignKey("label_revisions.id"), index=True)  # the label in doubt
    predicted_cell_id: Mapped[int | None] = mapped_column(ForeignKey("predicted_cells.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))  # as in al_loop.suspicion
    score: Mapped[float]  # 0 to 1
    reason: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=now)


# --- Label Studio ------------------------------------------------------------------------------------------


class Project(Base):
    """A Label Studio project we serve, one per way of reviewing. `synced_until` is the sync's cursor.

    The cursor stands still while nobody changes anything; `synced_at` is when a sync last read to the end.
    """

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("url", "ls_project_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(String(255))
    ls_project_id: Mapped[int]
    way: Mapped[Way] = mapped_column(state(Way), default=Way.field)
    title: Mapped[str] = mapped_column(String(255))
    label_config: Mapped[str] = mapped_column(Text)
    synced_until: Mapped[datetime | None]
    synced_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Task(Base):
    """An image's task in a project. `pushed_*` is what Label Studio holds of ours, so a push can be repeated.

    `pushed_revision_id`: the newest answer about one of its cells that its prediction shows. `pushed_marks`: a hash of
    the reasons it shows. `placed`: annotations of ours, no expert's answers (`db/placed.py`).
    """

    __tablename__ = "tasks"
    __table_args__ = (UniqueConstraint("project_id", "ls_task_id"), UniqueConstraint("project_id", "image_id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    ls_task_id: Mapped[int]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    pushed_prediction_id: Mapped[int | None] = mapped_column(ForeignKey("predictions.id"), index=True)
    pushed_ls_prediction_id: Mapped[int | None]
    pushed_score: Mapped[float | None]
    pushed_revision_id: Mapped[int | None]
    pushed_marks: Mapped[str | None] = mapped_column(String(64))
    placed: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]  # Label Studio's `updated_at` when it was last read


class CellTask(Base):
    """A cell's task in a project of cells: one per queue item, so that a second reading is a task of its own."""

    __tablename__ = "cell_tasks"
    __table_args__ = (UniqueConstraint("project_id", "ls_task_id"), UniqueConstraint("project_id", "item_id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    ls_task_id: Mapped[int]
    item_id: Mapped[int] = mapped_column(ForeignKey("review_items.id"), index=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), index=True)
    pushed_ls_prediction_id: Mapped[int | None]
    pushed_score: Mapped[float | None]
    placed: Mapped[list[Any]] = mapped_column(default=list)  # annotations of ours, no expert's answers
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]  # Label Studio's `updated_at` when it was last read


class Push(Base):
    """One push of predictions and order to a project. Append-only."""

    __tablename__ = "pushes"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    pair_id: Mapped[int] = mapped_column(ForeignKey("model_pairs.id"))
    ranking_id: Mapped[int | None] = mapped_column(ForeignKey("rankings.id"))
    predictions: Mapped[int]  # how many were created
    rescored: Mapped[int]  # how many only got a new score
    created_at: Mapped[datetime] = mapped_column(default=now)


class InboxEvent(Base):
    """A webhook call, stored before it is answered; the worker's wake-up."""

    __tablename__ = "inbox_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    action: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]]
    received_at: Mapped[datetime] = mapped_column(default=now)
    handled_at: Mapped[datetime | None] = mapped_column(index=True)


# --- retraining --------------------------------------------------------------------------------------------


class TrainingRun(Base):
    """One training, from its trigger to its end. At most one per role is queued or running."""

    __tablename__ = "training_runs"
    __table_args__ = (
        CheckConstraint("role IN ('all_cells', 'infected')", name="role"),
        Index(
            "uq_training_runs_open_role",
            "role",
            unique=True,
            sqlite_where=text("status IN ('queued', 'running')"),
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    trigger: Mapped[str] = mapped_column(String(32))  # reviews | cron | drift | person | label-studio | first
    detail: Mapped[dict[str, Any]]
    config: Mapped[dict[str, Any]]
    retry_of: Mapped[int | None] = mapped_column(ForeignKey("training_runs.id"))  # its labels and its checkpoint
    status: Mapped[RunStatus] = mapped_column(state(RunStatus), default=RunStatus.queued)
    newest_revision_id: Mapped[int]  # labels up to here are trained on; later ones count for the next run
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("workers.id"))  # who works on it: nobody else writes to it
    attempt: Mapped[int] = mapped_column(default=0)  # how many workers have taken it up
    stage: Mapped[str] = mapped_column(String(16), default="")  # of `al_loop/cycle.py`
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    message: Mapped[str] = mapped_column(Text, default="")
    checkpoint_sha256: Mapped[str | None] = mapped_column(String(64))  # in the shared store; NULL: only with its worker
    version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    started_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]  # an estimate, while it runs
    finished_at: Mapped[datetime | None]


class Worker(Base):
    """A process that takes work from queues. `beat` grows while it lives; a worker whose beat rests is declared dead.

    Beats are counted, not dated: no two machines need the same clock, and a clock may jump.
    """

    __tablename__ = "workers"
    __table_args__ = (CheckConstraint("ended IN ('stopped', 'died')", name="ended"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)  # DBOS's executor id
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    queues: Mapped[list[Any]]  # of train, predict, sync
    beat: Mapped[int] = mapped_column(default=0)
    beat_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime] = mapped_column(default=now)
    ended: Mapped[str | None] = mapped_column(String(16))  # NULL: it lives, as far as anybody knows
    ended_at: Mapped[datetime | None]


class RunEvent(Base):
    """A line of a training run's log, from whichever worker. A stage's first line carries its name and no level."""

    __tablename__ = "run_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("training_runs.id"), index=True)
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("workers.id"))
    stage: Mapped[str] = mapped_column(String(16))
    level: Mapped[str] = mapped_column(String(16))  # info | warning | error; "stage" where a stage begins
    message: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default=now)


class Schedule(Base):
    """When a role is retrained without anybody asking: the newest row counts. Append-only."""

    __tablename__ = "schedules"
    __table_args__ = (CheckConstraint("role IN ('all_cells', 'infected')", name="role"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(String(16), index=True)
    retrain_after: Mapped[float | None]  # weighted count of new reviewed cells; NULL: never for that
    cron: Mapped[str | None] = mapped_column(String(128))  # five fields, UTC; NULL: never for that
    on_drift: Mapped[bool]
    cooldown_s: Mapped[float]
    set_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=now)


class DriftCheck(Base):
    """How far recent fields are from those a pair was accepted on, and by what. Append-only."""

    __tablename__ = "drift_checks"
    id: Mapped[int] = mapped_column(primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("model_pairs.id"), index=True)
    drifted: Mapped[bool]
    reasons: Mapped[list[Any]]
    numbers: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class ImageStain(Base):
    """A field's colours: mean and standard deviation of the optical density per channel. Follows from the file."""

    __tablename__ = "image_stains"
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    mean_red: Mapped[float]
    mean_green: Mapped[float]
    mean_blue: Mapped[float]
    sd_red: Mapped[float]
    sd_green: Mapped[float]
    sd_blue: Mapped[float]


class CanaryCheck(Base):
    """How much experts correct a new pair beside its predecessor, on fields drawn at random. Append-only."""

    __tablename__ = "canary_checks"
    __table_args__ = (
        CheckConstraint("kind IN ('replayed', 'live')", name="kind"),
        CheckConstraint("verdict IN ('passed', 'watching', 'refused', 'rolled_back')", name="verdict"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("model_pairs.id"), index=True)
    predecessor_id: Mapped[int] = mapped_column(ForeignKey("model_pairs.id"))
    kind: Mapped[str] = mapped_column(String(16))  # replayed: by answers already there; live: by answers to the pair
    verdict: Mapped[str] = mapped_column(String(16))
    reasons: Mapped[list[Any]]
    numbers: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class ApiToken(Base):
    """A token of our API or dashboard, known by its hash alone. Each scope includes those before it."""

    __tablename__ = "api_tokens"
    __table_args__ = (CheckConstraint("scope IN ('read', 'review', 'operate')", name="scope"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))  # whose, or what for
    scope: Mapped[str] = mapped_column(String(16))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]  # NULL: until it is revoked
    revoked_at: Mapped[datetime | None]


class Evaluation(Base):
    """What one model pair scored on one split. Append-only."""

    __tablename__ = "evaluations"
    id: Mapped[int] = mapped_column(primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("model_pairs.id"), index=True)
    split: Mapped[str] = mapped_column(String(32))
    split_sha256: Mapped[str] = mapped_column(String(64))
    protocol: Mapped[str] = mapped_column(String(64), default=PROTOCOL)  # how it was scored
    created_at: Mapped[datetime] = mapped_column(default=now)
    report: Mapped[dict[str, Any]]  # every match: long, therefore last


class Metric(Base):
    """One number of an evaluation with its 95 % interval, for questions over time. Append-only."""

    __tablename__ = "metrics"
    __table_args__ = (UniqueConstraint("evaluation_id", "name", "class_name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id"))
    name: Mapped[str] = mapped_column(String(64), index=True)
    class_name: Mapped[str] = mapped_column(String(32), default="")  # "" for pooled numbers
    value: Mapped[float | None]  # NULL where undefined (no such cell in the split)
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int]


class PromotionDecision(Base):
    """Why a version serves or does not: the gate's verdict, a person's promotion, a rollback. Append-only."""

    __tablename__ = "promotion_decisions"
    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    replaced_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    kind: Mapped[str] = mapped_column(String(16))  # gate | first | person | rollback | canary
    promote: Mapped[bool]
    reasons: Mapped[list[Any]]
    evaluation_id: Mapped[int | None] = mapped_column(ForeignKey("evaluations.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("training_runs.id"))
    decided_at: Mapped[datetime] = mapped_column(default=now)


# --- forgetting --------------------------------------------------------------------------------------------


class Forgetting(Base):
    """A patient whose images and labels were removed: when, why, and which versions had learned from them.

    The tombstone. It allows the removal: the guards let go of rows of `forgotten_images` alone (`db/guards.py`).
    """

    __tablename__ = "forgettings"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_sha256: Mapped[str] = mapped_column(String(64), index=True)  # who it was is forgotten, too
    reason: Mapped[str] = mapped_column(Text)
    versions: Mapped[list[Any]]  # ids of the model versions that were trained on these images
    removed: Mapped[dict[str, Any]]  # rows per table, and files
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]  # NULL: the removal was begun and must be repeated


class ForgottenImage(Base):
    """An image that must not come back. Its row and file are gone; the sha256 tells when somebody imports it again."""

    __tablename__ = "forgotten_images"
    image_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    forgetting_id: Mapped[int] = mapped_column(ForeignKey("forgettings.id"), index=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    file: Mapped[str] = mapped_column(String(255))
