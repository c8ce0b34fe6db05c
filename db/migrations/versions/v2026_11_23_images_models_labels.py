"""Images, models, predictions, reviews and labels.

Revision 2026_11_23_labels, after none.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "2026_11_23_labels"
down_revision: str | None = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def state(name: str, *values: str) -> sa.Enum:
    """Text behind a CHECK constraint."""
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)


def where(condition: str) -> dict[str, Any]:
    """The condition of a partial index, on both engines."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


TABLES = (
    "images",
    "imports",
    "frozen_splits",
    "cells",
    "model_versions",
    "model_pairs",
    "predictions",
    "predicted_cells",
    "prediction_requests",
    "reviews",
    "label_revisions",
)


def create_images() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("file", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("group", sa.String(255), nullable=False),
        sa.Column("split", state("split", "train", "validation", "test"), nullable=False),
        sa.Column("dataset", sa.String(32), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        sa.UniqueConstraint("sha256", name="uq_images_sha256"),
    )
    op.create_index("ix_images_group", "images", ["group"])
    op.create_index("ix_images_name", "images", ["name"])
    op.create_index("ix_images_split", "images", ["split"])
    op.create_table(
        "imports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("dataset", sa.String(32), nullable=False),
        sa.Column("report", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_imports"),
    )
    op.create_table(
        "frozen_splits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("content", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_frozen_splits"),
        sa.UniqueConstraint("name", name="uq_frozen_splits_name"),
    )
    op.create_table(
        "cells",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cells"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_cells_image_id"),
        sa.UniqueConstraint("image_id", "key", name="uq_cells_image_id_key"),
    )
    op.create_index("ix_cells_image_id", "cells", ["image_id"])


def create_models() -> None:
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("status", state("versionstatus", "candidate", "active", "retired", "rejected"), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column("manifest", JSON, nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=False),
        sa.Column("environment", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.CheckConstraint("role IN ('all_cells', 'infected')", name=op.f("ck_model_versions_role")),
    )
    op.create_index("ix_model_versions_role", "model_versions", ["role"])
    op.create_index(
        "uq_model_versions_active_role", "model_versions", ["role"], unique=True, **where("status = 'active'")
    )
    op.create_table(
        "model_pairs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("all_cells_id", sa.Integer(), nullable=False),
        sa.Column("infected_id", sa.Integer(), nullable=False),
        sa.Column("fusion", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_pairs"),
        sa.ForeignKeyConstraint(["all_cells_id"], ["model_versions.id"], name="fk_model_pairs_all_cells_id"),
        sa.ForeignKeyConstraint(["infected_id"], ["model_versions.id"], name="fk_model_pairs_infected_id"),
        sa.UniqueConstraint("all_cells_id", "infected_id", name="uq_model_pairs_all_cells_id_infected_id"),
        sa.UniqueConstraint("name", name="uq_model_pairs_name"),
    )


def create_predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_predictions_image_id"),
        sa.ForeignKeyConstraint(["pair_id"], ["model_pairs.id"], name="fk_predictions_pair_id"),
        sa.UniqueConstraint("pair_id", "image_id", name="uq_predictions_pair_id_image_id"),
    )
    op.create_index("ix_predictions_image_id", "predictions", ["image_id"])
    op.create_table(
        "predicted_cells",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("prediction_id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("x1", sa.Double(), nullable=False),
        sa.Column("y1", sa.Double(), nullable=False),
        sa.Column("x2", sa.Double(), nullable=False),
        sa.Column("y2", sa.Double(), nullable=False),
        sa.Column("label", sa.String(32), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("probabilities", JSON, nullable=False),
        sa.Column("score_all_cells", sa.Double(), nullable=True),
        sa.Column("score_infected", sa.Double(), nullable=True),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("pair_iou", sa.Double(), nullable=True),
        sa.Column("disputed", sa.Boolean(), nullable=False),
        sa.Column("mask", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_predicted_cells"),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name="fk_predicted_cells_cell_id"),
        sa.ForeignKeyConstraint(["prediction_id"], ["predictions.id"], name="fk_predicted_cells_prediction_id"),
        sa.UniqueConstraint("prediction_id", "cell_id", name="uq_predicted_cells_prediction_id_cell_id"),
        sa.CheckConstraint("x2 > x1 AND y2 > y1", name=op.f("ck_predicted_cells_box")),
        sa.CheckConstraint("source IN ('both', 'all_cells', 'infected')", name=op.f("ck_predicted_cells_source")),
    )
    op.create_index("ix_predicted_cells_cell_id", "predicted_cells", ["cell_id"])
    op.create_table(
        "prediction_requests",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="pk_prediction_requests"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_prediction_requests_image_id"),
    )


def create_labels() -> None:
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("thread", sa.String(128), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("status", state("reviewstatus", "submitted", "skipped", "withdrawn"), nullable=False),
        sa.Column("expert", sa.String(255), nullable=False),
        sa.Column("revised_at", MOMENT, nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("lead_time_s", sa.Double(), nullable=True),
        sa.Column("ls_project_id", sa.Integer(), nullable=True),
        sa.Column("ls_task_id", sa.Integer(), nullable=True),
        sa.Column("ls_annotation_id", sa.Integer(), nullable=True),
        sa.Column("prediction_id", sa.Integer(), nullable=True),
        sa.Column("content", JSON, nullable=False),
        sa.Column("content_sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_reviews_image_id"),
        sa.ForeignKeyConstraint(["prediction_id"], ["predictions.id"], name="fk_reviews_prediction_id"),
        sa.UniqueConstraint("thread", "sequence", name="uq_reviews_thread_sequence"),
        sa.CheckConstraint("sequence >= 1", name=op.f("ck_reviews_sequence")),
    )
    op.create_index("ix_reviews_expert", "reviews", ["expert"])
    op.create_index("ix_reviews_image_id", "reviews", ["image_id"])
    op.create_index("ix_reviews_revised_at", "reviews", ["revised_at"])
    op.create_table(
        "label_revisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("review_id", sa.Integer(), nullable=False),
        sa.Column("thread", sa.String(128), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("predicted_cell_id", sa.Integer(), nullable=True),
        sa.Column(
            "action",
            state("action", "imported", "accepted", "relabelled", "moved", "added", "deleted", "withdrawn"),
            nullable=False,
        ),
        sa.Column("label", sa.String(32), nullable=True),
        sa.Column("x1", sa.Double(), nullable=True),
        sa.Column("y1", sa.Double(), nullable=True),
        sa.Column("x2", sa.Double(), nullable=True),
        sa.Column("y2", sa.Double(), nullable=True),
        sa.Column("shape", sa.String(16), nullable=True),
        sa.Column("mask", sa.LargeBinary(), nullable=True),
        sa.Column("predicted_iou", sa.Double(), nullable=True),
        sa.Column("decided_at", MOMENT, nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_label_revisions"),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name="fk_label_revisions_cell_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_label_revisions_image_id"),
        sa.ForeignKeyConstraint(
            ["predicted_cell_id"], ["predicted_cells.id"], name="fk_label_revisions_predicted_cell_id"
        ),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name="fk_label_revisions_review_id"),
        sa.UniqueConstraint("review_id", "cell_id", name="uq_label_revisions_review_id_cell_id"),
        sa.CheckConstraint(
            "(label IS NULL) = (action IN ('deleted', 'withdrawn'))", name=op.f("ck_label_revisions_label")
        ),
    )
    op.create_index("ix_label_revisions_cell_id_thread_id", "label_revisions", ["cell_id", "thread", "id"])
    op.create_index("ix_label_revisions_decided_at", "label_revisions", ["decided_at"])
    op.create_index("ix_label_revisions_image_id", "label_revisions", ["image_id"])
    op.create_index("ix_label_revisions_label", "label_revisions", ["label"])


def upgrade() -> None:
    create_images()
    create_models()
    create_predictions()
    create_labels()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
