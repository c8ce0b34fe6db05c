"""The review queue, Label Studio's projects, training runs and decisions.

Revision 2026_11_23_runs, after 2026_11_23_labels.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "2026_11_23_runs"
down_revision: str | None = "2026_11_23_labels"
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
    "rankings",
    "review_items",
    "ranked_cells",
    "projects",
    "tasks",
    "pushes",
    "inbox_events",
    "training_runs",
    "evaluations",
    "metrics",
    "promotion_decisions",
)


def create_queue() -> None:
    op.create_table(
        "rankings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rankings"),
        sa.ForeignKeyConstraint(["pair_id"], ["model_pairs.id"], name="fk_rankings_pair_id"),
    )
    op.create_table(
        "review_items",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ranking_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("terms", JSON, nullable=False),
        sa.Column("status", state("itemstatus", "pending", "done", "skipped", "superseded"), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("closed_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_review_items"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_review_items_image_id"),
        sa.ForeignKeyConstraint(["ranking_id"], ["rankings.id"], name="fk_review_items_ranking_id"),
    )
    op.create_index("ix_review_items_ranking_id", "review_items", ["ranking_id"])
    op.create_index("ix_review_items_status_score", "review_items", ["status", "score"])
    op.create_index(
        "uq_review_items_pending_image", "review_items", ["image_id"], unique=True, **where("status = 'pending'")
    )
    op.create_table(
        "ranked_cells",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ranking_id", sa.Integer(), nullable=False),
        sa.Column("predicted_cell_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("terms", JSON, nullable=False),
        sa.Column("reason", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ranked_cells"),
        sa.ForeignKeyConstraint(
            ["predicted_cell_id"], ["predicted_cells.id"], name="fk_ranked_cells_predicted_cell_id"
        ),
        sa.ForeignKeyConstraint(["ranking_id"], ["rankings.id"], name="fk_ranked_cells_ranking_id"),
        sa.UniqueConstraint("ranking_id", "predicted_cell_id", name="uq_ranked_cells_ranking_id_predicted_cell_id"),
    )
    op.create_index("ix_ranked_cells_predicted_cell_id", "ranked_cells", ["predicted_cell_id"])


def create_label_studio() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("url", sa.String(255), nullable=False),
        sa.Column("ls_project_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("label_config", sa.Text(), nullable=False),
        sa.Column("synced_until", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("url", "ls_project_id", name="uq_projects_url_ls_project_id"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("ls_task_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("pushed_prediction_id", sa.Integer(), nullable=True),
        sa.Column("pushed_ls_prediction_id", sa.Integer(), nullable=True),
        sa.Column("pushed_score", sa.Double(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_tasks_image_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tasks_project_id"),
        sa.ForeignKeyConstraint(["pushed_prediction_id"], ["predictions.id"], name="fk_tasks_pushed_prediction_id"),
        sa.UniqueConstraint("project_id", "image_id", name="uq_tasks_project_id_image_id"),
        sa.UniqueConstraint("project_id", "ls_task_id", name="uq_tasks_project_id_ls_task_id"),
    )
    op.create_index("ix_tasks_image_id", "tasks", ["image_id"])
    op.create_table(
        "pushes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("ranking_id", sa.Integer(), nullable=True),
        sa.Column("predictions", sa.Integer(), nullable=False),
        sa.Column("rescored", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pushes"),
        sa.ForeignKeyConstraint(["pair_id"], ["model_pairs.id"], name="fk_pushes_pair_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_pushes_project_id"),
        sa.ForeignKeyConstraint(["ranking_id"], ["rankings.id"], name="fk_pushes_ranking_id"),
    )
    op.create_table(
        "inbox_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("handled_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_inbox_events"),
    )
    op.create_index("ix_inbox_events_handled_at", "inbox_events", ["handled_at"])


def create_training() -> None:
    op.create_table(
        "training_runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("trigger", sa.String(32), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column(
            "status", state("runstatus", "queued", "running", "succeeded", "failed", "cancelled"), nullable=False
        ),
        sa.Column("newest_revision_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_training_runs"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_training_runs_version_id"),
        sa.CheckConstraint("role IN ('all_cells', 'infected')", name=op.f("ck_training_runs_role")),
    )
    op.create_index(
        "uq_training_runs_open_role", "training_runs", ["role"], unique=True, **where("status IN ('queued', 'running')")
    )


def create_evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(32), nullable=False),
        sa.Column("split_sha256", sa.String(64), nullable=False),
        sa.Column("report", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.ForeignKeyConstraint(["pair_id"], ["model_pairs.id"], name="fk_evaluations_pair_id"),
    )
    op.create_index("ix_evaluations_pair_id", "evaluations", ["pair_id"])
    op.create_table(
        "metrics",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("class_name", sa.String(32), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_metrics"),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name="fk_metrics_evaluation_id"),
        sa.UniqueConstraint("evaluation_id", "name", "class_name", name="uq_metrics_evaluation_id_name_class_name"),
    )
    op.create_index("ix_metrics_name", "metrics", ["name"])
    op.create_table(
        "promotion_decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("replaced_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("promote", sa.Boolean(), nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=True),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("decided_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_promotion_decisions"),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name="fk_promotion_decisions_evaluation_id"),
        sa.ForeignKeyConstraint(["replaced_id"], ["model_versions.id"], name="fk_promotion_decisions_replaced_id"),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name="fk_promotion_decisions_run_id"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_promotion_decisions_version_id"),
    )
    op.create_index("ix_promotion_decisions_version_id", "promotion_decisions", ["version_id"])


def upgrade() -> None:
    create_queue()
    create_label_studio()
    create_training()
    create_evaluations()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
