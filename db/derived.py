"""What follows from the facts, kept by triggers: the current label of every cell, and counts per image.

Within a thread the last revision of a cell counts, and `withdrawn` means the thread says nothing any more; between
threads the newest answer counts, by the expert's clock, then by the order of recording (`db/labels.py` says the same
as a query). A trigger computes it anew for every cell that a revision speaks of, so that neither the order in which
revisions arrive nor who writes them can make the two differ.

SQLite's triggers run once per row, PostgreSQL's once per statement over all its rows.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect

_LIVE = """
SELECT {distinct} r.cell_id, r.image_id, r.id, r.label FROM label_revisions AS r
WHERE {cells} AND r.action <> 'withdrawn' AND NOT EXISTS (
  SELECT 1 FROM label_revisions AS later
  WHERE later.cell_id = r.cell_id AND later.thread = r.thread AND later.id > r.id
)
ORDER BY {first} r.decided_at DESC, r.id DESC {limit}
"""

_SQLITE_LIVE = _LIVE.format(distinct="", cells="r.cell_id = NEW.cell_id", first="", limit="LIMIT 1")
_POSTGRESQL_LIVE = _LIVE.format(
    distinct="DISTINCT ON (r.cell_id)",
    cells="r.cell_id IN (SELECT cell_id FROM added)",
    first="r.cell_id,",
    limit="",
)

SQLITE = (
    f"""
CREATE TRIGGER derive_current_labels AFTER INSERT ON label_revisions BEGIN
  DELETE FROM current_labels WHERE cell_id = NEW.cell_id;
  INSERT INTO current_labels (cell_id, image_id, revision_id, label) {_SQLITE_LIVE};
END
""",
    """
CREATE TRIGGER derive_label_counts_more AFTER INSERT ON current_labels WHEN NEW.label IS NOT NULL BEGIN
  INSERT INTO label_counts (image_id, label, cells) VALUES (NEW.image_id, NEW.label, 1)
  ON CONFLICT (image_id, label) DO UPDATE SET cells = cells + 1;
END
""",
    """
CREATE TRIGGER derive_label_counts_less AFTER DELETE ON current_labels WHEN OLD.label IS NOT NULL BEGIN
  UPDATE label_counts SET cells = cells - 1 WHERE image_id = OLD.image_id AND label = OLD.label;
END
""",
    """
CREATE TRIGGER derive_predicted_counts AFTER INSERT ON predicted_cells BEGIN
  INSERT INTO predicted_counts (prediction_id, label, cells) VALUES (NEW.prediction_id, NEW.label, 1)
  ON CONFLICT (prediction_id, label) DO UPDATE SET cells = cells + 1;
END
""",
)

# The lock: two transactions that speak of one cell at the same time must see each other's revisions.
POSTGRESQL = (
    f"""
CREATE FUNCTION cellloop_derive_current_labels() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM 1 FROM images WHERE id IN (SELECT image_id FROM added) ORDER BY id FOR NO KEY UPDATE;
  DELETE FROM current_labels WHERE cell_id IN (SELECT cell_id FROM added);
  INSERT INTO current_labels (cell_id, image_id, revision_id, label) {_POSTGRESQL_LIVE};
  RETURN NULL;
END $$
""",
    """
CREATE TRIGGER derive_current_labels AFTER INSERT ON label_revisions
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION cellloop_derive_current_labels()
""",
    """
CREATE FUNCTION cellloop_derive_label_counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO label_counts (image_id, label, cells)
    SELECT image_id, label, count(*) FROM added WHERE label IS NOT NULL GROUP BY image_id, label ORDER BY 1, 2
    ON CONFLICT (image_id, label) DO UPDATE SET cells = label_counts.cells + excluded.cells;
  ELSE
    UPDATE label_counts AS kept SET cells = kept.cells - gone.cells
    FROM (SELECT image_id, label, count(*) AS cells FROM removed GROUP BY image_id, label) AS gone
    WHERE kept.image_id = gone.image_id AND kept.label = gone.label;
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE TRIGGER derive_label_counts_more AFTER INSERT ON current_labels
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION cellloop_derive_label_counts()
""",
    """
CREATE TRIGGER derive_label_counts_less AFTER DELETE ON current_labels
REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION cellloop_derive_label_counts()
""",
    """
CREATE FUNCTION cellloop_derive_predicted_counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO predicted_counts (prediction_id, label, cells)
  SELECT prediction_id, label, count(*) FROM added GROUP BY prediction_id, label ORDER BY 1, 2
  ON CONFLICT (prediction_id, label) DO UPDATE SET cells = predicted_counts.cells + excluded.cells;
  RETURN NULL;
END $$
""",
    """
CREATE TRIGGER derive_predicted_counts AFTER INSERT ON predicted_cells
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION cellloop_derive_predicted_counts()
""",
)

# The same from all facts at once, on both engines: for rows that came while the triggers were away (`db/bulk.py`).
REBUILT = {
    "current_labels": """
INSERT INTO current_labels (cell_id, image_id, revision_id, label)
SELECT cell_id, image_id, id, label FROM (
  SELECT last.*, row_number() OVER (PARTITION BY cell_id ORDER BY decided_at DESC, id DESC) AS place FROM (
    SELECT r.id, r.cell_id, r.image_id, r.label, r.action, r.decided_at,
      row_number() OVER (PARTITION BY cell_id, thread ORDER BY id DESC) AS place_in_thread
    FROM label_revisions AS r
  ) AS last WHERE place_in_thread = 1 AND action <> 'withdrawn'
) AS live WHERE place = 1
""",
    "label_counts": """
INSERT INTO label_counts (image_id, label, cells)
SELECT image_id, label, count(*) FROM current_labels WHERE label IS NOT NULL GROUP BY image_id, label
""",
    "predicted_counts": """
INSERT INTO predicted_counts (prediction_id, label, cells)
SELECT prediction_id, label, count(*) FROM predicted_cells GROUP BY prediction_id, label
""",
}


def rebuild(connection: Connection) -> None:
    """Make all of it anew, where the triggers are away; an older schema may lack some of the tables."""
    there = inspect(connection).get_table_names()
    for table in REBUILT.keys() & set(there):
        connection.exec_driver_sql(f"DELETE FROM {table}")
    for table, statement in REBUILT.items():
        if table in there:
            connection.exec_driver_sql(statement)
