"""The record guards itself: derived labels and counts, training sets by image, patients and how they are forgotten.

Revision 2026_11_26_record, after 2026_11_26_ways.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "2026_11_26_record"
down_revision: str | None = "2026_11_26_ways"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
# To remove a row, an engine looks for rows that refer to it: without an index, through the whole table each time.
BEHIND_FOREIGN_KEYS = (
    ("label_revisions", "predicted_cell_id"),
    ("review_items", "predicted_cell_id"),
    ("suspicions", "predicted_cell_id"),
    ("suspicions", "revision_id"),
    ("tasks", "pushed_prediction_id"),
    ("cell_tasks", "item_id"),
)


def upgrade() -> None:
    with op.batch_alter_table("images") as batch:
        batch.add_column(sa.Column("patient", sa.String(255), nullable=True))
        batch.add_column(sa.Column("taken_at", MOMENT, nullable=True))
    op.create_index("ix_images_patient", "images", ["patient"])
    with op.batch_alter_table("cells") as batch:
        batch.drop_constraint("uq_cells_image_id_key", type_="unique")
        batch.create_unique_constraint("uq_cells_key_image_id", ["key", "image_id"])
    order = long_last("manifest_sha256", "newest_revision_id", "created_at", "environment", "config", "manifest")
    with op.batch_alter_table("model_versions", **order) as batch:
        batch.add_column(sa.Column("newest_revision_id", sa.Integer(), nullable=True))
    with op.batch_alter_table("evaluations", **long_last("created_at", "report")) as batch:
        batch.add_column(sa.Column("protocol", sa.String(64), nullable=False, server_default="coco-iou50.v1"))
    with op.batch_alter_table("evaluations") as batch:
        batch.alter_column("protocol", server_default=None)
    op.create_index("ix_reviews_prediction_id", "reviews", ["prediction_id"])
    op.create_index("ix_review_items_cell_id", "review_items", ["cell_id"])
    op.create_index("ix_promotion_decisions_evaluation_id", "promotion_decisions", ["evaluation_id"])
    for table, column in BEHIND_FOREIGN_KEYS:
        op.create_index(f"ix_{table}_{column}", table, [column])
    create_derived()
    fill_derived()
    create_training_images()
    fill_training_images()
    create_forgettings()


def long_last(*order: str) -> dict[str, Any]:
    """Rebuild a table on SQLite with these columns in this order.

    SQLite reads through a value of megabytes to whatever follows it in the row; PostgreSQL keeps such values elsewhere.
    """
    if op.get_bind().dialect.name != "sqlite":
        return {}
    return {"recreate": "always", "partial_reordering": [order]}


def create_derived() -> None:
    op.create_table(
        "current_labels",
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("revision_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(32), nullable=True),
        sa.PrimaryKeyConstraint("cell_id", name="pk_current_labels"),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name="fk_current_labels_cell_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_current_labels_image_id"),
        sa.ForeignKeyConstraint(["revision_id"], ["label_revisions.id"], name="fk_current_labels_revision_id"),
        sa.UniqueConstraint("revision_id", name="uq_current_labels_revision_id"),
    )
    op.create_index("ix_current_labels_image_id", "current_labels", ["image_id"])
    op.create_index("ix_current_labels_label", "current_labels", ["label"])
    op.create_table(
        "label_counts",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(32), nullable=False),
        sa.Column("cells", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("image_id", "label", name="pk_label_counts"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_label_counts_image_id"),
        sa.CheckConstraint("cells >= 0", name=op.f("ck_label_counts_cells")),
    )
    op.create_table(
        "predicted_counts",
        sa.Column("prediction_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(32), nullable=False),
        sa.Column("cells", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("prediction_id", "label", name="pk_predicted_counts"),
        sa.ForeignKeyConstraint(["prediction_id"], ["predictions.id"], name="fk_predicted_counts_prediction_id"),
    )


def fill_derived() -> None:
    """What the triggers would have made of the revisions and predictions that are there."""
    op.execute("""
INSERT INTO current_labels (cell_id, image_id, revision_id, label)
SELECT cell_id, image_id, id, label FROM (
  SELECT last.*, row_number() OVER (PARTITION BY cell_id ORDER BY decided_at DESC, id DESC) AS place FROM (
    SELECT r.id, r.cell_id, r.image_id, r.label, r.action, r.decided_at,
      row_number() OVER (PARTITION BY cell_id, thread ORDER BY id DESC) AS place_in_thread
    FROM label_revisions AS r
  ) AS last WHERE place_in_thread = 1 AND action <> 'withdrawn'
) AS live WHERE place = 1
""")
    op.execute("""
INSERT INTO label_counts (image_id, label, cells)
SELECT image_id, label, count(*) FROM current_labels WHERE label IS NOT NULL GROUP BY image_id, label
""")
    op.execute("""
INSERT INTO predicted_counts (prediction_id, label, cells)
SELECT prediction_id, label, count(*) FROM predicted_cells GROUP BY prediction_id, label
""")


def create_training_images() -> None:
    op.create_table(
        "training_images",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("version_id", "image_id", name="pk_training_images"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_training_images_version_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_training_images_image_id"),
    )
    op.create_index("ix_training_images_image_id_version_id", "training_images", ["image_id", "version_id"])


def fill_training_images() -> None:
    """From the manifests, as `db.versions.add_version` does."""
    connection = op.get_bind()
    image_of = {sha256: number for number, sha256 in connection.execute(sa.text("SELECT id, sha256 FROM images"))}
    add = sa.text("INSERT INTO training_images (version_id, image_id, complete) VALUES (:version, :image, :complete)")
    note = sa.text("UPDATE model_versions SET newest_revision_id = :newest WHERE id = :version")
    manifests = sa.text("SELECT manifest FROM model_versions WHERE id = :version")
    for version in connection.scalars(sa.text("SELECT id FROM model_versions ORDER BY id")).all():
        stored = connection.scalar(manifests, {"version": version})
        manifest = json.loads(stored) if isinstance(stored, str) else stored
        if (newest := manifest.get("newest_revision_id")) is not None:
            connection.execute(note, {"version": version, "newest": newest})
        rows = {
            image_of[image["sha256"]]: image.get("partial") is None
            for image in manifest.get("images", ())
            if image["sha256"] in image_of
        }
        for image, complete in rows.items():
            connection.execute(add, {"version": version, "image": image, "complete": complete})


def create_forgettings() -> None:
    op.create_table(
        "forgettings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("patient_sha256", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("versions", JSON, nullable=False),
        sa.Column("removed", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_forgettings"),
    )
    op.create_index("ix_forgettings_patient_sha256", "forgettings", ["patient_sha256"])
    op.create_table(
        "forgotten_images",
        sa.Column("image_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("forgetting_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("file", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="pk_forgotten_images"),
        sa.ForeignKeyConstraint(["forgetting_id"], ["forgettings.id"], name="fk_forgotten_images_forgetting_id"),
        sa.UniqueConstraint("sha256", name="uq_forgotten_images_sha256"),
    )
    op.create_index("ix_forgotten_images_forgetting_id", "forgotten_images", ["forgetting_id"])


def downgrade() -> None:
    """Patients and tombstones are dropped: the older schema has no place for them. Labels stay."""
    for table in ("forgotten_images", "forgettings", "training_images"):
        op.drop_table(table)
    for table in ("predicted_counts", "label_counts", "current_labels"):
        op.drop_table(table)
    op.drop_index("ix_promotion_decisions_evaluation_id", "promotion_decisions")
    for table, column in BEHIND_FOREIGN_KEYS:
        op.drop_index(f"ix_{table}_{column}", table)
    op.drop_index("ix_review_items_cell_id", "review_items")
    op.drop_index("ix_reviews_prediction_id", "reviews")
    with op.batch_alter_table("evaluations") as batch:
        batch.drop_column("protocol")
    with op.batch_alter_table("model_versions") as batch:
        batch.drop_column("newest_revision_id")
    op.drop_index("ix_images_patient", "images")
    with op.batch_alter_table("cells") as batch:
        batch.drop_constraint("uq_cells_key_image_id", type_="unique")
        batch.create_unique_constraint("uq_cells_image_id_key", ["image_id", "key"])
    with op.batch_alter_table("images") as batch:
        batch.drop_column("taken_at")
        batch.drop_column("patient")
