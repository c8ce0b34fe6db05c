"""Views of models: what was trained on what, what it scored, when it served and why."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from db.models import (
    Evaluation,
    Image,
    Metric,
    ModelPair,
    ModelVersion,
    PromotionDecision,
    TrainingImage,
    TrainingRun,
    UtcDateTime,
)
from db.views import View

DECIDED_BY = "the evaluation it was decided by; NULL: none was needed"

_trained_on = (
    select(func.count()).where(TrainingImage.version_id == ModelVersion.id).correlate(ModelVersion).scalar_subquery()
)
_newest = aliased(PromotionDecision)
_newest_decision = (
    select(func.max(_newest.id)).where(_newest.version_id == ModelVersion.id).correlate(ModelVersion).scalar_subquery()
)

VERSIONS = View(
    "v_versions",
    "a model version: how it came to be, and the last decision about it",
    select(
        ModelVersion.id.label("version_id"),
        ModelVersion.role,
        ModelVersion.status,
        ModelVersion.created_at.label("trained_at"),
        _trained_on.label("training_images"),
        ModelVersion.newest_revision_id,
        TrainingRun.id.label("run_id"),
        TrainingRun.trigger,
        PromotionDecision.decided_at,
        PromotionDecision.kind.label("decision"),
        PromotionDecision.promote.label("promoted"),
        PromotionDecision.reasons,
        PromotionDecision.replaced_id.label("replaced_version"),
        PromotionDecision.evaluation_id,
        ModelVersion.weights_sha256,
        ModelVersion.manifest_sha256,
    )
    .select_from(ModelVersion)
    .outerjoin(TrainingRun, TrainingRun.version_id == ModelVersion.id)
    .outerjoin(PromotionDecision, PromotionDecision.id == _newest_decision),
    ("version_id", "run_id"),
    {"decided_at": "when was decided about it last; NULL: never", "evaluation_id": DECIDED_BY},
)

DECISIONS = View(
    "v_decisions",
    "a decision about a version: the gate's, a person's, a rollback",
    select(
        PromotionDecision.id.label("decision_id"),
        PromotionDecision.version_id,
        ModelVersion.role,
        PromotionDecision.decided_at,
        PromotionDecision.kind,
        PromotionDecision.promote.label("promoted"),
        PromotionDecision.reasons,
        PromotionDecision.replaced_id.label("replaced_version"),
        PromotionDecision.evaluation_id,
        PromotionDecision.run_id,
    )
    .select_from(PromotionDecision)
    .join(ModelVersion, ModelVersion.id == PromotionDecision.version_id),
    ("decision_id",),
    {
        "decided_at": "when it was decided",
        "evaluation_id": DECIDED_BY,
        "run_id": "the training run that asked for the decision; NULL: none did",
    },
)

SERVING = View(
    "v_serving",
    "a span in which one version of a role served, and why",
    select(
        PromotionDecision.id.label("decision_id"),
        ModelVersion.role,
        PromotionDecision.version_id,
        PromotionDecision.decided_at.label("served_from"),
        func.lead(PromotionDecision.decided_at, type_=UtcDateTime())
        .over(partition_by=ModelVersion.role, order_by=PromotionDecision.id)
        .label("served_to"),
        PromotionDecision.kind,
        PromotionDecision.reasons,
    )
    .select_from(PromotionDecision)
    .join(ModelVersion, ModelVersion.id == PromotionDecision.version_id)
    .where(PromotionDecision.promote.is_(True)),
    ("decision_id",),
)

# The decision that an evaluation led to: about its candidate, the version it was made for.
_decision = aliased(PromotionDecision)
_of_evaluation = (
    select(func.min(_decision.id))
    .where(_decision.evaluation_id == Evaluation.id)
    .correlate(Evaluation)
    .scalar_subquery()
)

METRICS = View(
    "v_metrics",
    "a number of an evaluation with its 95 % interval",
    select(
        Metric.id.label("metric_id"),
        Evaluation.id.label("evaluation_id"),
        Evaluation.created_at.label("evaluated_at"),
        ModelPair.name.label("pair"),
        ModelPair.all_cells_id.label("all_cells_version"),
        ModelPair.infected_id.label("infected_version"),
        Evaluation.split,
        Evaluation.split_sha256,
        Evaluation.protocol,
        Metric.name,
        Metric.class_name,
        Metric.value,
        Metric.low,
        Metric.high,
        Metric.n,
        PromotionDecision.version_id.label("candidate"),
        PromotionDecision.promote.label("promoted"),
    )
    .select_from(Metric)
    .join(Evaluation, Evaluation.id == Metric.evaluation_id)
    .join(ModelPair, ModelPair.id == Evaluation.pair_id)
    .outerjoin(PromotionDecision, PromotionDecision.id == _of_evaluation),
    ("metric_id",),
    {"split": "what it was measured on; test: the frozen split", "promoted": "whether the candidate was promoted"},
)

TRAINING_IMAGES = View(
    "v_training_images",
    "an image that a version was trained on",
    select(
        TrainingImage.version_id,
        ModelVersion.role,
        TrainingImage.image_id,
        Image.name.label("image"),
        Image.sha256,
        Image.group.label("slide"),
        Image.patient,
        TrainingImage.complete,
        ModelVersion.newest_revision_id,
        ModelVersion.manifest_sha256,
        ModelVersion.created_at.label("trained_at"),
    )
    .select_from(TrainingImage)
    .join(ModelVersion, ModelVersion.id == TrainingImage.version_id)
    .join(Image, Image.id == TrainingImage.image_id),
    ("version_id", "image_id"),
    {"complete": "whether every cell of the field was known; else only cells reviewed one by one were learned"},
)

VIEWS = (VERSIONS, DECISIONS, SERVING, METRICS, TRAINING_IMAGES)
