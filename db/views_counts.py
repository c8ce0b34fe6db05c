"""Views of counts: images, cells per class, parasitaemia, and an image's whole life."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Double, Float, Integer, Select, String, cast, func, literal, select, union_all
from sqlalchemy.orm import aliased

from db.models import (
    Image,
    LabelCount,
    ModelPair,
    ModelVersion,
    PackedPrediction,
    PredictedCount,
    Prediction,
    Review,
    ReviewItem,
    ReviewStatus,
    TrainingImage,
    UtcDateTime,
    Way,
)
from db.views import View, events, one_if

# The stages of an infected cell, and what else is counted; a test compares them with `backend.instances.CLASSES`.
INFECTED = ("gametocyte", "ring", "schizont", "trophozoite")
RED = "red blood cell"
COUNTED = {RED: "red_blood_cells", "leukocyte": "leukocytes", **{name: f"{name}s" for name in INFECTED}}
DIFFICULT = "difficult"
Z = 1.959964  # two-sided 95 % of the normal distribution


def live_reviews(image_id: Any, way: Way = Way.field) -> Select[*tuple[Any, ...]]:
    """Submitted annotations of an image that are neither withdrawn nor replaced by a later state."""
    review, later = aliased(Review), aliased(Review)
    superseded = select(later.id).where(later.thread == review.thread, later.sequence > review.sequence)
    return select(review.id).where(
        review.image_id == image_id,
        review.way == way,
        review.status == ReviewStatus.submitted,
        ~superseded.exists(),
    )


_complete = live_reviews(Image.id).correlate(Image).exists()

IMAGES = View(
    "v_images",
    "an image: one field of a smear",
    select(
        Image.id.label("image_id"),
        Image.name.label("image"),
        Image.sha256,
        Image.group.label("slide"),
        Image.patient,
        Image.split,
        Image.dataset,
        Image.width,
        Image.height,
        Image.taken_at,
        Image.created_at.label("imported_at"),
        _complete.label("complete"),
    ),
    ("image_id",),
)


def _counts(of: Any) -> list[ColumnElement[Any]]:
    """One column per class, difficult cells, infected and all red cells."""

    def total(names: tuple[str, ...]) -> ColumnElement[int]:
        return func.coalesce(func.sum(one_if(of.label.in_(names)) * of.cells), 0)

    return [
        *[total((name,)).label(column) for name, column in COUNTED.items()],
        total((DIFFICULT,)).label("difficult"),
        total(INFECTED).label("infected"),
        total((*INFECTED, RED)).label("cells"),
    ]


def _place() -> list[Any]:
    return [
        Image.id.label("image_id"),
        Image.name.label("image"),
        Image.group.label("slide"),
        Image.patient,
        Image.split,
        func.coalesce(Image.taken_at, Image.created_at, type_=UtcDateTime()).label("at"),
    ]


def _by_labels() -> Select[*tuple[Any, ...]]:
    """Only completely labelled images: experts look at single cells because they are unlike the others."""
    return (
        select(literal("labels", String()).label("source"), *_place(), *_counts(LabelCount))
        .select_from(Image)
        .outerjoin(LabelCount, LabelCount.image_id == Image.id)
        .where(_complete)
        .group_by(Image.id)
    )


def _by_predictions() -> Select[*tuple[Any, ...]]:
    return (
        select(ModelPair.name.label("source"), *_place(), *_counts(PredictedCount))
        .select_from(Image)
        .join(Prediction, Prediction.image_id == Image.id)
        .join(ModelPair, ModelPair.id == Prediction.pair_id)
        .outerjoin(PredictedCount, PredictedCount.prediction_id == Prediction.id)
        .group_by(Prediction.id, Image.id, ModelPair.name)
    )


def _with_interval(counts: Any) -> Select[*tuple[Any, ...]]:
    """Wilson's interval of a proportion: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212."""
    found = counts.subquery("counts")
    cells: ColumnElement[Any] = cast(found.c.cells, Double())
    n: ColumnElement[Any] = func.nullif(cells, 0.0, type_=Double())  # NULL where there is nothing to divide by
    share = cast(found.c.infected, Double()) / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * func.sqrt(share * (1 - share) / n + Z**2 / (4 * n * n), type_=Double()) / (1 + Z**2 / n)
    return select(
        *found.c,
        (100 * share).label("parasitaemia"),
        (100 * (centre - half)).label("low"),
        (100 * (centre + half)).label("high"),
    )


PARASITAEMIA = View(
    "v_parasitaemia",
    "an image and its cells as one source counts them; labels count on completely labelled images only",
    _with_interval(union_all(_by_labels(), _by_predictions())),
    ("source", "image_id"),
    {
        "source": "labels (the current ones), or the name of the pair that predicted",
        "at": "when the image was taken, or else imported",
        "cells": "all red cells: red blood cells and infected ones",
        "low": "lower end of Wilson's 95 % interval, percent. Cells of a slide are alike: do not pool images with it",
        "high": "upper end of Wilson's 95 % interval, percent",
    },
)

CLASS_COUNTS = View(
    "v_class_counts",
    "a class and how many current labels of a split are of it",
    select(Image.split, LabelCount.label, func.sum(LabelCount.cells).label("cells"))
    .select_from(LabelCount)
    .join(Image, Image.id == LabelCount.image_id)
    .group_by(Image.split, LabelCount.label),
    ("split", "label"),
    {"label": "the class, or difficult"},
)

EVENT = {
    "image_id": Integer(),
    "at": UtcDateTime(),
    "event": String(),
    "pair": String(),
    "version_id": Integer(),
    "cells": Integer(),
    "expert": String(),
    "status": String(),
    "seconds": Float(),
    "way": String(),
    "slot": String(),
    "reason": String(),
    "ref": Integer(),
}


def _imported() -> Select[*tuple[Any, ...]]:
    said = literal("imported", String())
    return select(
        *events(EVENT, image_id=Image.id, at=Image.created_at, event=said, reason=Image.dataset, ref=Image.id)
    )


def _predicted() -> Select[*tuple[Any, ...]]:
    return (
        select(
            *events(
                EVENT,
                image_id=Prediction.image_id,
                at=Prediction.created_at,
                event=literal("predicted", String()),
                pair=ModelPair.name,
                cells=PackedPrediction.count,
                seconds=Prediction.seconds,
                ref=Prediction.id,
            )
        )
        .select_from(Prediction)
        .join(ModelPair, ModelPair.id == Prediction.pair_id)
        .outerjoin(PackedPrediction, PackedPrediction.prediction_id == Prediction.id)
    )


def _queued() -> Select[*tuple[Any, ...]]:
    return select(
        *events(
            EVENT,
            image_id=ReviewItem.image_id,
            at=ReviewItem.created_at,
            event=literal("queued", String()),
            expert=ReviewItem.assigned_to,
            status=ReviewItem.status,
            way=ReviewItem.way,
            slot=ReviewItem.slot,
            reason=ReviewItem.reason,
            ref=ReviewItem.id,
        )
    )


def _reviewed() -> Select[*tuple[Any, ...]]:
    return (
        select(
            *events(
                EVENT,
                image_id=Review.image_id,
                at=Review.revised_at,
                event=literal("reviewed", String()),
                pair=ModelPair.name,
                expert=Review.expert,
                status=Review.status,
                seconds=Review.lead_time_s,
                way=Review.way,
                ref=Review.id,
            )
        )
        .select_from(Review)
        .outerjoin(Prediction, Prediction.id == Review.prediction_id)
        .outerjoin(ModelPair, ModelPair.id == Prediction.pair_id)
    )


def _trained() -> Select[*tuple[Any, ...]]:
    return (
        select(
            *events(
                EVENT,
                image_id=TrainingImage.image_id,
                at=ModelVersion.created_at,
                event=literal("trained", String()),
                version_id=ModelVersion.id,
                reason=ModelVersion.role,
                ref=ModelVersion.id,
            )
        )
        .select_from(TrainingImage)
        .join(ModelVersion, ModelVersion.id == TrainingImage.version_id)
    )


IMAGE_EVENTS = View(
    "v_image_events",
    "something that happened to an image. Ask it by image_id",
    union_all(_imported(), _predicted(), _queued(), _reviewed(), _trained()),
    ("image_id", "at", "event", "ref"),
    {
        "event": "imported, predicted, queued, reviewed or trained",
        "pair": "predicted: the pair; reviewed: the pair whose prediction was shown; else NULL",
        "version_id": "trained: the version; else NULL",
        "cells": "predicted: how many cells the pair saw; else NULL",
        "expert": "reviewed: who; queued: in whose hands it is; else NULL",
        "status": "reviewed: submitted, skipped or withdrawn; queued: pending, done, skipped or superseded; else NULL",
        "seconds": "predicted: how long the pair took; reviewed: how long the expert looked; else NULL",
        "slot": "queued: acquisition, random or second_reading; else NULL",
        "reason": "imported: the data set; queued: why, in words; trained: the version's role",
    },
)

VIEWS = (IMAGES, PARASITAEMIA, CLASS_COUNTS, IMAGE_EVENTS)
