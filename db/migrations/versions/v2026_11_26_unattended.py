"""Retraining that needs nobody: workers, logs of runs, schedules, drift, canaries, tokens of the API.

Revision 2026_11_26_unattended, after 2026_11_26_record.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "2026_11_26_unattended"
down_revision: str | None = "2026_11_26_record"
branch_labels = None
depends_on = None

# Of triggers and views (`db/definitions.py`).
definitions = "a4d9a2feefea1abaa0c633b48ef9822440ee0790c3c7464a482fb999a5c815c3"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
NEW_TABLES = ("workers", "run_events", "schedules", "drift_checks", "image_stains", "canary_checks", "api_tokens")


def upgrade() -> None:
    create_workers()
    widen_training_runs()
    create_run_events()
    create_schedules()
    create_drift()
    create_canaries()
    create_api_tokens()
    op.add_column("projects", sa.Column("synced_at", MOMENT, nullable=True))
    for table in ("tasks", "cell_tasks"):
        op.add_column(table, sa.Column("read_at", MOMENT, nullable=True))
    op.create_index("ix_reviews_ls_task_id", "reviews", ["ls_task_id"])


def create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", JSON, nullable=False),
        sa.Column("beat", sa.Integer(), nullable=False),
        sa.Column("beat_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ended", sa.String(16), nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sa.UniqueConstraint("name", name="uq_workers_name"),
        sa.CheckConstraint("ended IN ('stopped', 'died')", name=op.f("ck_workers_ended")),
    )


def widen_training_runs() -> None:
    with op.batch_alter_table("training_runs") as batch:
        batch.add_column(sa.Column("retry_of", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("worker_id", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("stage", sa.String(16), nullable=False, server_default=""))
        batch.add_column(sa.Column("checkpoint_sha256", sa.String(64), nullable=True))
        batch.add_column(sa.Column("started_at", MOMENT, nullable=True))
        batch.add_column(sa.Column("ends_at", MOMENT, nullable=True))
        batch.create_foreign_key("fk_training_runs_retry_of", "training_runs", ["retry_of"], ["id"])
        batch.create_foreign_key("fk_training_runs_worker_id", "workers", ["worker_id"], ["id"])
    with op.batch_alter_table("training_runs") as batch:
        for name in ("attempt", "stage"):
            batch.alter_column(name, server_default=None)


def create_run_events() -> None:
    op.create_table(
        "run_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Integer(), nullable=True),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run_events"),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name="fk_run_events_run_id"),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name="fk_run_events_worker_id"),
    )
    op.create_index("ix_run_events_run_id", "run_events", ["run_id"])


def create_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("retrain_after", sa.Double(), nullable=True),
        sa.Column("cron", sa.String(128), nullable=True),
        sa.Column("on_drift", sa.Boolean(), nullable=False),
        sa.Column("cooldown_s", sa.Double(), nullable=False),
        sa.Column("set_by", sa.String(255), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.CheckConstraint("role IN ('all_cells', 'infected')", name=op.f("ck_schedules_role")),
    )
    op.create_index("ix_schedules_role", "schedules", ["role"])


def create_drift() -> None:
    op.create_table(
        "drift_checks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("drifted", sa.Boolean(), nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("numbers", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_drift_checks"),
        sa.ForeignKeyConstraint(["pair_id"], ["model_pairs.id"], name="fk_drift_checks_pair_id"),
    )
    op.create_index("ix_drift_checks_pair_id", "drift_checks", ["pair_id"])
    colours = ("mean_red", "mean_green", "mean_blue", "sd_red", "sd_green", "sd_blue")
    op.create_table(
        "image_stains",
        sa.Column("image_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=False) for name in colours),
        sa.PrimaryKeyConstraint("image_id", name="pk_image_stains"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_image_stains_image_id"),
    )


def create_canaries() -> None:
    op.create_table(
        "canary_checks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("predecessor_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("numbers", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_canary_checks"),
        sa.ForeignKeyConstraint(["pair_id"], ["model_pairs.id"], name="fk_canary_checks_pair_id"),
        sa.ForeignKeyConstraint(["predecessor_id"], ["model_pairs.id"], name="fk_canary_checks_predecessor_id"),
        sa.CheckConstraint("kind IN ('replayed', 'live')", name=op.f("ck_canary_checks_kind")),
        sa.CheckConstraint(
            "verdict IN ('passed', 'watching', 'refused', 'rolled_back')", name=op.f("ck_canary_checks_verdict")
        ),
    )
    op.create_index("ix_canary_checks_pair_id", "canary_checks", ["pair_id"])


def create_api_tokens() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("token_sha256", name="uq_api_tokens_token_sha256"),
        sa.CheckConstraint("scope IN ('read', 'review', 'operate')", name=op.f("ck_api_tokens_scope")),
    )


def downgrade() -> None:
    """Tokens, schedules and logs are dropped: the older schema has no place for them. Runs and labels stay."""
    op.drop_index("ix_reviews_ls_task_id", "reviews")
    for table in ("tasks", "cell_tasks"):
        op.drop_column(table, "read_at")
    op.drop_column("projects", "synced_at")
    with op.batch_alter_table("training_runs") as batch:
        batch.drop_constraint("fk_training_runs_worker_id", type_="foreignkey")
        batch.drop_constraint("fk_training_runs_retry_of", type_="foreignkey")
        for name in ("retry_of", "worker_id", "attempt", "stage", "checkpoint_sha256", "started_at", "ends_at"):
            batch.drop_column(name)
    for table in reversed(NEW_TABLES):
        op.drop_table(table)
