"""What the database itself refuses, whoever asks: to change a fact, to delete it, or to put another in its place.

The one lawful removal is that of a forgotten patient: rows of an image may be deleted once a tombstone names it
(`ForgottenImage`), and what is kept in JSON about it may be struck out while its `Forgetting` is not finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import PrimaryKeyConstraint, Table, UniqueConstraint

from db.models import Base

_FORGOTTEN = "EXISTS (SELECT 1 FROM forgotten_images AS f WHERE f.image_id = {image})"
_OF_CELL = "(SELECT c.image_id FROM cells AS c WHERE c.id = {cell})"
_OF_PREDICTION = "(SELECT p.image_id FROM predictions AS p WHERE p.id = OLD.prediction_id)"
_OF_RANKED = _OF_CELL.format(
    cell="(SELECT s.cell_id FROM predicted_cells AS s WHERE s.id = OLD.predicted_cell_id)",
)
_FORGETTING = "EXISTS (SELECT 1 FROM forgettings AS f WHERE f.finished_at IS NULL)"
_OWN_IMAGE = "OLD.image_id"


@dataclass(frozen=True)
class Guard:
    """A table's facts. image: SQL for the image a row (OLD) is about, which lets it go when the image is forgotten.

    may_change: columns that may change, each with the condition on OLD and NEW; all others never do.
    """

    table: str
    image: str | None = None
    may_change: dict[str, str] = field(default_factory=dict)

    @property
    def may_go(self) -> str:
        return "1 = 0" if self.image is None else _FORGOTTEN.format(image=self.image)


GUARDS = (
    # A patient or a day may become known later; it never becomes another.
    Guard("images", "OLD.id", {"patient": "OLD.patient IS NULL", "taken_at": "OLD.taken_at IS NULL"}),
    Guard("imports", may_change={"source": _FORGETTING, "report": _FORGETTING}),
    Guard("frozen_splits", may_change={"content": _FORGETTING, "sha256": _FORGETTING}),
    Guard("cells", _OWN_IMAGE),
    Guard("model_versions", may_change={"status": "1 = 1", "manifest": _FORGETTING}),
    Guard("training_images", _OWN_IMAGE),
    # A pair takes its fusion settings once, before it has predicted anything (`db.versions.pair_of`).
    Guard("model_pairs", may_change={"fusion": "CAST(OLD.fusion AS TEXT) = '{}'"}),
    Guard("predictions", _OWN_IMAGE),
    Guard("predicted_cells", _OF_CELL.format(cell="OLD.cell_id")),
    Guard("packed_predictions", _OF_PREDICTION),
    Guard("reviews", _OWN_IMAGE),
    Guard("label_revisions", _OWN_IMAGE),
    Guard("rankings"),
    Guard("ranked_cells", _OF_RANKED),
    Guard("suspicions", _OWN_IMAGE),
    Guard("pushes"),
    Guard("evaluations", may_change={"report": _FORGETTING}),
    Guard("metrics"),
    Guard("promotion_decisions"),
    Guard("schedules"),
    Guard("drift_checks"),
    Guard("canary_checks"),
    Guard(
        "forgettings",
        may_change={"finished_at": "OLD.finished_at IS NULL", "removed": "OLD.finished_at IS NULL"},
    ),
    Guard("forgotten_images"),
)


def _table(guard: Guard) -> Table:
    return Base.metadata.tables[guard.table]


def _refused_change(guard: Guard, differs: str) -> str:
    """SQL that is true for an update that must not be. differs: the engine's "is distinct from"."""
    if not guard.may_change:
        return "1 = 1"
    refused = []
    for column in _table(guard).columns:
        name = f'"{column.name}"'
        old, new = f"OLD.{name}", f"NEW.{name}"
        condition = guard.may_change.get(column.name)
        changed = f"{old} {differs} {new}"
        refused.append(f"({changed})" if condition is None else f"({changed} AND NOT ({condition}))")
    return " OR ".join(refused)


def _keys(table: Table) -> Iterator[list[str]]:
    for constraint in sorted(table.constraints, key=lambda found: str(found.name)):
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint):
            yield [column.name for column in constraint.columns]


def sqlite() -> Iterator[str]:
    """The triggers for SQLite. One guards against INSERT OR REPLACE, which deletes rows without a DELETE trigger."""
    for guard in GUARDS:
        name, table = guard.table, _table(guard)
        for verb, refused, text in (
            ("UPDATE", _refused_change(guard, "IS NOT"), "are facts: expected a new row, got an UPDATE"),
            ("DELETE", f"NOT {guard.may_go}", "are kept for good: expected none to go, got a DELETE"),
        ):
            yield (
                f"CREATE TRIGGER guard_{name}_{verb.lower()} BEFORE {verb} ON {name} WHEN {refused} "
                f"BEGIN SELECT RAISE(ABORT, '{name} {text}'); END"
            )
        there = " OR ".join(
            f"EXISTS (SELECT 1 FROM {name} AS known WHERE "
            + " AND ".join(f'known."{column}" = NEW."{column}"' for column in key)
            + ")"
            for key in _keys(table)
        )
        yield (
            f"CREATE TRIGGER guard_{name}_insert BEFORE INSERT ON {name} WHEN {there} "
            f"BEGIN SELECT RAISE(ABORT, 'UNIQUE constraint failed: {name} are facts and this one is known'); END"
        )


def postgresql() -> Iterator[str]:
    """The triggers for PostgreSQL, with a function per table. TRUNCATE is refused, too."""
    for guard in GUARDS:
        name = guard.table
        yield f"""
CREATE FUNCTION cellloop_guard_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF {_refused_change(guard, "IS DISTINCT FROM")} THEN
      RAISE EXCEPTION '{name} are facts: expected a new row, got an UPDATE' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
  END IF;
  IF TG_OP = 'DELETE' THEN
    IF {guard.may_go} THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION USING
    MESSAGE = '{name} are kept for good: expected none to go, got a ' || TG_OP, ERRCODE = 'restrict_violation';
END $$
"""
        yield (
            f"CREATE TRIGGER guard_{name} BEFORE UPDATE OR DELETE ON {name} "
            f"FOR EACH ROW EXECUTE FUNCTION cellloop_guard_{name}()"
        )
        yield (
            f"CREATE TRIGGER guard_{name}_truncate BEFORE TRUNCATE ON {name} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION cellloop_guard_{name}()"
        )
