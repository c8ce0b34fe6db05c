"""Two ways of reviewing, slots of the queue, tasks of cells, and predictions as columns of bytes.

Revision 2026_11_26_ways, after 2026_11_23_runs.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "2026_11_26_ways"
down_revision: str | None = "2026_11_23_runs"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
ENUMS = {"way": ("field", "cell"), "slot": ("acquisition", "random", "second_reading")}


def state(name: str) -> sa.Enum:
    """Text behind a CHECK constraint."""
    return sa.Enum(*ENUMS[name], name=name, native_enum=False, create_constraint=True, length=16)


def where(condition: str) -> dict[str, Any]:
    """The condition of a partial index, on both engines."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def add_states(table: str, **columns: str) -> None:
    """Add columns of a state with its CHECK, all rows at this value. SQLite rebuilds the table for it."""
    with op.batch_alter_table(table) as batch:
        for name, value in columns.items():
            # The CHECK has a name of its own: an added column brings none along on every engine.
            batch.add_column(sa.Column(name, sa.String(16), nullable=False, server_default=value))
            allowed = ", ".join(f"'{value}'" for value in ENUMS[name])
            batch.create_check_constraint(op.f(f"ck_{table}_{name}"), f"{name} IN ({allowed})")
    with op.batch_alter_table(table) as batch:
        for name in columns:
            batch.alter_column(name, server_default=None)


def drop_states(table: str, *columns: str) -> None:
    with op.batch_alter_table(table) as batch:
        for name in columns:
            batch.drop_constraint(op.f(f"ck_{table}_{name}"), type_="check")
            batch.drop_column(name)


def upgrade() -> None:
    add_states("reviews", way="field")
    add_states("projects", way="field")
    op.drop_index("uq_review_items_pending_image", "review_items")
    add_states("review_items", way="field", slot="acquisition")
    with op.batch_alter_table("review_items") as batch:
        batch.add_column(sa.Column("cell_id", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("predicted_cell_id", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("reason", sa.String(255), nullable=False, server_default=""))
        batch.add_column(sa.Column("readers", JSON, nullable=False, server_default="[]"))
        batch.add_column(sa.Column("assigned_to", sa.String(255), nullable=True))
        batch.add_column(sa.Column("assigned_until", MOMENT, nullable=True))
        batch.create_foreign_key("fk_review_items_cell_id", "cells", ["cell_id"], ["id"])
        batch.create_foreign_key("fk_review_items_predicted_cell_id", "predicted_cells", ["predicted_cell_id"], ["id"])
        batch.create_check_constraint(op.f("ck_review_items_cell"), "(way = 'cell') = (cell_id IS NOT NULL)")
        batch.create_check_constraint(
            op.f("ck_review_items_assigned"), "(assigned_to IS NULL) = (assigned_until IS NULL)"
        )
    with op.batch_alter_table("review_items") as batch:
        batch.alter_column("reason", server_default=None)
        batch.alter_column("readers", server_default=None)
    op.create_index("ix_review_items_image_id", "review_items", ["image_id"])
    pending = "status = 'pending' AND way = "
    op.create_index(
        *("uq_review_items_pending_image", "review_items", ["image_id"]), unique=True, **where(pending + "'field'")
    )
    op.create_index(
        *("uq_review_items_pending_cell", "review_items", ["cell_id"]), unique=True, **where(pending + "'cell'")
    )
    create_cell_tasks()
    with op.batch_alter_table("tasks") as batch:
        batch.add_column(sa.Column("pushed_revision_id", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("pushed_marks", sa.String(64), nullable=True))
        batch.add_column(sa.Column("placed", JSON, nullable=False, server_default="[]"))
    with op.batch_alter_table("tasks") as batch:
        batch.alter_column("placed", server_default=None)
    create_suspicions()
    op.create_table(
        "packed_predictions",
        sa.Column("prediction_id", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("cells", sa.LargeBinary(), nullable=False),
        sa.Column("embeddings", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("prediction_id", name="pk_packed_predictions"),
        sa.ForeignKeyConstraint(["prediction_id"], ["predictions.id"], name="fk_packed_predictions_prediction_id"),
    )
    pack_predictions()


def create_cell_tasks() -> None:
    op.create_table(
        "cell_tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("ls_task_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("pushed_ls_prediction_id", sa.Integer(), nullable=True),
        sa.Column("pushed_score", sa.Double(), nullable=True),
        sa.Column("placed", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_cell_tasks"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_cell_tasks_project_id"),
        sa.ForeignKeyConstraint(["item_id"], ["review_items.id"], name="fk_cell_tasks_item_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_cell_tasks_image_id"),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name="fk_cell_tasks_cell_id"),
        sa.UniqueConstraint("project_id", "item_id", name="uq_cell_tasks_project_id_item_id"),
        sa.UniqueConstraint("project_id", "ls_task_id", name="uq_cell_tasks_project_id_ls_task_id"),
    )
    op.create_index("ix_cell_tasks_image_id", "cell_tasks", ["image_id"])
    op.create_index("ix_cell_tasks_cell_id", "cell_tasks", ["cell_id"])


def create_suspicions() -> None:
    op.create_table(
        "suspicions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("revision_id", sa.Integer(), nullable=True),
        sa.Column("predicted_cell_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("reason", sa.String(255), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_suspicions"),
        sa.ForeignKeyConstraint(["pair_id"], ["model_pairs.id"], name="fk_suspicions_pair_id"),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name="fk_suspicions_cell_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_suspicions_image_id"),
        sa.ForeignKeyConstraint(["revision_id"], ["label_revisions.id"], name="fk_suspicions_revision_id"),
        sa.ForeignKeyConstraint(["predicted_cell_id"], ["predicted_cells.id"], name="fk_suspicions_predicted_cell_id"),
        sa.UniqueConstraint("cell_id", "pair_id", "kind", name="uq_suspicions_cell_id_pair_id_kind"),
        sa.CheckConstraint("kind IN ('label', 'nothing', 'overlooked', 'misplaced')", name=op.f("ck_suspicions_kind")),
        sa.CheckConstraint("(kind = 'overlooked') = (revision_id IS NULL)", name=op.f("ck_suspicions_revision")),
    )
    op.create_index("ix_suspicions_image_id", "suspicions", ["image_id"])


def pack_predictions() -> None:
    """Predictions made before, packed as `db/packed.py` did on the day of this migration; they have no embeddings."""
    connection = op.get_bind()
    names = "id, cell_id, probabilities, score_all_cells, score_infected, pair_iou, disputed"
    cells = sa.text(f"SELECT {names} FROM predicted_cells WHERE prediction_id = :prediction ORDER BY id")
    stored = sa.text(
        "INSERT INTO packed_predictions (prediction_id, count, cells) VALUES (:prediction, :count, :cells)"
    )
    for prediction in connection.scalars(sa.text("SELECT id FROM predictions ORDER BY id")).all():
        rows = connection.execute(cells, {"prediction": prediction}).all()
        vectors = [
            json.loads(row.probabilities) if isinstance(row.probabilities, str) else row.probabilities for row in rows
        ]
        packed = np.zeros(
            len(rows),
            dtype=[
                ("predicted_cell_id", "<i8"),
                ("cell_id", "<i8"),
                ("probabilities", "<f4", (len(vectors[0]) if vectors else 0,)),
                ("score_all_cells", "<f4"),
                ("score_infected", "<f4"),
                ("pair_iou", "<f4"),
                ("code", "<u2"),
                ("disputed", "?"),
            ],
        )
        if rows:
            packed["probabilities"] = vectors
        packed["predicted_cell_id"] = [row.id for row in rows]
        packed["cell_id"] = [row.cell_id for row in rows]
        packed["disputed"] = [bool(row.disputed) for row in rows]
        for name in ("score_all_cells", "score_infected", "pair_iou"):
            values = [getattr(row, name) for row in rows]
            packed[name] = [np.nan if value is None else value for value in values]
        connection.execute(stored, {"prediction": prediction, "count": len(rows), "cells": packed.tobytes()})


def downgrade() -> None:
    """Items of cells are dropped with their tasks: the older schema has no place for them. Labels stay."""
    op.drop_table("packed_predictions")
    op.drop_table("suspicions")
    op.drop_table("cell_tasks")
    with op.batch_alter_table("tasks") as batch:
        batch.drop_column("placed")
        batch.drop_column("pushed_marks")
        batch.drop_column("pushed_revision_id")
    op.execute("DELETE FROM review_items WHERE way = 'cell'")
    op.drop_index("uq_review_items_pending_image", "review_items")
    op.drop_index("uq_review_items_pending_cell", "review_items")
    op.drop_index("ix_review_items_image_id", "review_items")
    with op.batch_alter_table("review_items") as batch:
        batch.drop_constraint(op.f("ck_review_items_assigned"), type_="check")
        batch.drop_constraint(op.f("ck_review_items_cell"), type_="check")
        batch.drop_constraint(op.f("fk_review_items_cell_id"), type_="foreignkey")
        batch.drop_constraint(op.f("fk_review_items_predicted_cell_id"), type_="foreignkey")
        for name in ("cell_id", "predicted_cell_id", "reason", "readers", "assigned_to", "assigned_until"):
            batch.drop_column(name)
    drop_states("review_items", "way", "slot")
    op.create_index(
        *("uq_review_items_pending_image", "review_items", ["image_id"]), unique=True, **where("status = 'pending'")
    )
    drop_states("projects", "way")
    drop_states("reviews", "way")
