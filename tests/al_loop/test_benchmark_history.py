"""`cellloop bench history` at a hundredth of its size: numbers, plans, and a history that is what it says."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from al_loop import benchmark_history
from db import cells as identities
from db import labels
from db.models import Action, Base, Cell, LabelRevision, ModelVersion, PredictedCell, Review, TrainingImage, now
from db.session import Database
from db.views_life import CELL_EVENTS
from scripts import cli

CELLS = {"sqlite": 100_000, "postgres": 50_000}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url(engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if engine == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('history') / 'history.db'}"
    return str(request.getfixturevalue("new_postgres_database")())


@pytest.fixture(scope="module")
def report(engine: str, url: str) -> dict[str, Any]:
    """What the command says; the history stays."""
    options = ["--engine", engine, "--cells", str(CELLS[engine]), "--database", url, "--keep", "--json"]
    with pytest.MonkeyPatch.context() as changes, contextlib.redirect_stdout(io.StringIO()) as out:
        changes.setattr(benchmark_history, "ASKED", 25)
        with pytest.raises(SystemExit) as left:
            cli.main(["bench", "history", *options])
    assert left.value.code in (0, None)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


@pytest.fixture
def session(report: dict[str, Any], url: str) -> Iterator[Session]:
    database = Database(url)
    with database.session(read_only=True) as session:
        yield session
    database.dispose()


def count(session: Session, *conditions: Any, of: type[Base] = LabelRevision) -> int:
    return session.scalar(select(func.count()).select_from(of).where(*conditions)) or 0


def test_every_number_is_there(report: dict[str, Any], engine: str) -> None:
    assert (report["engine"], report["cells"]) == (engine, CELLS[engine])
    wanted = {"ingest_rows_per_s", "cell_life_p99_ms", "as_of_p99_ms", "metrics_ms", "counts_ms", "dashboard_ms"}
    assert min(report[name] for name in wanted) > 0
    assert report["tables"]["model_versions"]["rows"] == 500
    assert report["rows"] == sum(table["rows"] for table in report["tables"].values())


def test_no_question_reads_a_big_table_from_end_to_end(report: dict[str, Any]) -> None:
    assert report["full_scans"] == {}


def test_the_history_has_the_proportions_it_says(session: Session, engine: str) -> None:
    cells = CELLS[engine]
    assert count(session, of=Cell) == cells
    assert count(session, of=PredictedCell) == pytest.approx(1.2 * cells, rel=0.06)
    revisions = count(session)
    assert revisions == pytest.approx(0.2 * cells, rel=0.1)
    red = count(session, PredictedCell.label == "red blood cell", of=PredictedCell)
    assert red / count(session, of=PredictedCell) == pytest.approx(0.96, abs=0.02)
    actions = set(session.scalars(select(LabelRevision.action).distinct()))
    assert {"imported", "accepted", "moved", "relabelled", "added", "deleted", "withdrawn"} <= actions
    assert 0 < count(session, Review.sequence > 1, of=Review) < 0.05 * revisions
    earlier = aliased(LabelRevision)
    late = select(earlier.id).where(
        earlier.cell_id == LabelRevision.cell_id,
        earlier.id < LabelRevision.id,
        earlier.decided_at > LabelRevision.decided_at,
    )
    assert count(session, late.exists()) > 10


def test_what_follows_by_triggers_is_what_the_rule_says(session: Session) -> None:
    by_rule = Counter(label.label for label in labels.current_labels(session, as_of=now()) if label.label is not None)
    assert labels.class_counts(session) == by_rule


def test_a_training_used_the_label_of_its_time(session: Session) -> None:
    told = CELL_EVENTS.table.c
    changed = select(LabelRevision.cell_id).where(LabelRevision.action == Action.withdrawn).limit(5)
    for cell in session.scalars(changed).all():
        events = session.execute(
            select(told.version_id, told.label).where(told.cell_id == cell, told.event == "trained")
        )
        found = {version: label for version, label in events}
        image = identities.get(session, cell).image_id
        trainings = session.execute(
            select(ModelVersion.id, ModelVersion.newest_revision_id)
            .join(TrainingImage, TrainingImage.version_id == ModelVersion.id)
            .where(TrainingImage.image_id == image)
        ).all()
        assert trainings
        for version, newest in trainings[::20]:
            known = labels.current_labels(session, [image], newest_revision_id=newest)
            said = [label.label for label in known if label.cell_id == cell]
            assert said == ([found[version]] if version in found else [])


def test_it_wants_an_empty_database_of_the_engine_named(url: str, report: dict[str, Any]) -> None:
    for engine, database in (("sqlite", url), ("postgres", url)):
        with contextlib.redirect_stderr(io.StringIO()) as said, pytest.raises(SystemExit) as left:
            cli.main(["bench", "history", "--engine", engine, "--database", database])
        assert left.value.code == 1
        assert "expected" in said.getvalue()
