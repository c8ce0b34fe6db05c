"""`docs/views.md` tells the truth: its tables come from the code, its SQL runs on both engines."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.exc import DBAPIError

from backend.history.questions import QUESTIONS
from backend.history.views_document import renewed, rest_call, type_word
from db import definitions
from db.definitions import VIEWS
from db.migrate import upgrade
from db.session import Database
from tests.backend.server import Bench
from tests.made_history import make_history

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "views.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^### (v_\w+)\n.*?^```sql\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
ROLE = re.findall(r"^```sql\n(CREATE ROLE.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
AT_12_25 = ("thecell", "trophozoite", "ada")
REAL = {  # what PostgreSQL calls the document's types
    "boolean": {"BOOLEAN"},
    "integer": {"INTEGER", "BIGINT", "NUMERIC"},
    "number": {"DOUBLE PRECISION"},
    "text": {"VARCHAR", "TEXT"},
    "moment": {"TIMESTAMP"},
    "JSON": {"JSONB"},
}


def test_its_tables_are_those_of_the_code() -> None:
    assert re.findall(r"<!-- made: (\w+) -->", TEXT) == ["questions", *re.findall(r"^### (v_\w+)$", TEXT, re.MULTILINE)]
    assert set(EXAMPLES) == {view.name for view in VIEWS}
    assert renewed(TEXT) == TEXT, "run: python -m backend.history.views_document docs/views.md"


def test_its_examples_run_on_sqlite(sqlite_database: Database) -> None:
    with sqlite_database.session() as session:
        make_history(session)
    file = f"file:{sqlite_database.engine.url.database}?mode=ro"
    with closing(sqlite3.connect(file, uri=True)) as connection:
        for name, sql in EXAMPLES.items():
            assert connection.execute(sql).fetchall(), name
        assert connection.execute(EXAMPLES["v_labels_as_of"]).fetchone()[:3] == AT_12_25


@pytest.fixture
def analyst(new_postgres_database: Callable[[], str]) -> Iterator[Engine]:
    """A new PostgreSQL database with a history, seen by the document's role after an upgrade made the views anew."""
    url = new_postgres_database()
    upgrade(url)
    database = Database(url)
    with database.session() as session:
        make_history(session)
    with database.engine.begin() as connection:
        _run(connection, ROLE[0])
        definitions.drop(connection)
        definitions.create(connection)
    engine = create_engine(database.engine.url.set(username="analyst"))
    yield engine
    engine.dispose()
    with database.engine.begin() as connection:
        _run(connection, "DROP OWNED BY analyst; DROP ROLE analyst;")
    database.dispose()


def _run(connection: Connection, sql: str) -> None:
    for statement in filter(None, map(str.strip, sql.split(";"))):
        connection.exec_driver_sql(statement)


@pytest.mark.postgres
def test_its_examples_and_its_role_on_postgresql(analyst: Engine) -> None:
    with analyst.connect() as connection:
        for name, sql in EXAMPLES.items():
            assert connection.exec_driver_sql(sql).all(), name
        assert connection.exec_driver_sql(EXAMPLES["v_labels_as_of"]).one()[:3] == AT_12_25
        for view in VIEWS:
            for found in inspect(connection).get_columns(view.name):
                word = type_word(view.table.c[found["name"]].type)
                assert str(found["type"]).partition("(")[0] in REAL[word], (view.name, found["name"])
        with pytest.raises(DBAPIError, match="read-only transaction"):
            connection.exec_driver_sql("DELETE FROM projects")
    with analyst.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.commit()
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.exec_driver_sql("DELETE FROM projects")


def test_its_rest_calls_are_understood(client: TestClient, bench: Bench) -> None:
    for question in QUESTIONS:
        found = client.get(rest_call(question), **bench.bearer(bench.token))
        assert found.status_code == 200 or "there is none such" in found.json()["error"], question.name
    assert rest_call(QUESTIONS[0]) == "/api/v1/history/cell?cell=4711"
