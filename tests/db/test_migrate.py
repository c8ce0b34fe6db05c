"""The schema: built by migrations, undone by them, and equal to the models on both engines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect

from db import migrate
from db.models import Base
from db.session import make_engine


@pytest.fixture
def other_empty_url(empty_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A second empty database on the same engine."""
    if empty_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'other.db'}"
    return str(request.getfixturevalue("new_postgres_database")())


def schema(engine: Engine) -> dict[str, Any]:
    """Everything the engine knows about our tables, in an order of no meaning."""
    inspector = inspect(engine)
    return {
        table: {
            "columns": {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)},
            "primary": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign": sorted(
                (key["name"], key["constrained_columns"], key["referred_table"])
                for key in inspector.get_foreign_keys(table)
            ),
            "unique": sorted((u["name"], tuple(u["column_names"])) for u in inspector.get_unique_constraints(table)),
            "checks": sorted((c["name"], c["sqltext"]) for c in inspector.get_check_constraints(table)),
            "indexes": sorted(
                (i["name"], tuple(i["column_names"]), bool(i["unique"]), str(condition(i)))
                for i in inspector.get_indexes(table)
            ),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def condition(index: Any) -> object:
    """The WHERE of a partial index."""
    options = index.get("dialect_options", {})
    return options.get("sqlite_where", options.get("postgresql_where"))


def test_migrations_build_exactly_what_the_models_say(empty_url: str, other_empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrated, modelled = make_engine(empty_url), make_engine(other_empty_url)
    Base.metadata.create_all(modelled)
    found, expected = schema(migrated), schema(modelled)
    assert set(found) == set(Base.metadata.tables)
    for table, facts in expected.items():
        assert found[table] == facts, table
    partial = [i for table in found.values() for i in table["indexes"] if i[3] != "None"]
    assert len(partial) == 4  # the comparison sees conditions: active version, open run, pending field and cell
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    migrated.dispose()
    modelled.dispose()


def test_up_down_and_up_again(empty_url: str) -> None:
    assert migrate.current(empty_url) is None
    assert migrate.pending(empty_url)
    migrate.upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.head()
    assert not migrate.pending(empty_url)
    migrate.downgrade(empty_url, "base")
    engine = make_engine(empty_url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate.upgrade(empty_url)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *Base.metadata.tables}
    engine.dispose()


def test_every_single_step_can_be_undone(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrate.downgrade(empty_url, "-1")
    assert migrate.pending(empty_url)
    migrate.upgrade(empty_url, "+1")
    assert not migrate.pending(empty_url)


def test_server_and_worker_may_migrate_at_once(empty_url: str) -> None:
    code = "import sys; from db.migrate import upgrade; upgrade(sys.argv[1])"
    command = [sys.executable, "-c", code, empty_url]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not migrate.pending(empty_url)


def test_a_failing_migration_leaves_nothing_behind(empty_url: str) -> None:
    engine = make_engine(empty_url)
    with engine.begin() as connection:  # in the way of the second migration, after the first has done its work
        connection.exec_driver_sql("CREATE TABLE review_items (id INTEGER)")
    with pytest.raises(Exception, match="review_items"):
        migrate.upgrade(empty_url)
    assert inspect(engine).get_table_names() == ["review_items"]
    engine.dispose()


def test_asking_for_the_revision_creates_no_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'not' / 'there.db'}"
    assert migrate.current(url) is None
    assert not (tmp_path / "not").exists()
    migrate.upgrade(url)
    assert not migrate.pending(url)
