"""The analyst's notebook, run from its first cell to its last on a made-up record: what it shows is what is there."""

from __future__ import annotations

import ast
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from sqlalchemy import func, select, text

from backend.instances import INFECTED
from db import labels
from db.models import Image, LabelRevision, ModelVersion, Review, ReviewItem
from db.reviews import IMPORT_EXPERT
from db.session import Database
from db.views_people import OUTCOMES
from tests.builders import at
from tests.made_history import REASON
from tests.weeks_history import RECALLS, REFUSED, Field, make_weeks

FILE = Path(__file__).resolve().parents[1] / "docs" / "analyst.ipynb"
PLOTS = {"metrics", "work", "corrections", "parasitaemia", "training-labels"}
TABLES = ("life", "spans", "as_of", "metrics", "pace", "effort", "slides", "waiting", "trained_on", "learned")
TELL = """
tables = {name: globals()[name].reset_index().to_json(orient="records", date_format="iso") for name in %r}
print(json.dumps({name: json.loads(rows) for name, rows in tables.items()}))
"""


@dataclass(frozen=True)
class Ran:
    """The record and its made-up fields, the notebook's code cells with their outputs, and its tables' rows by name."""

    database: Database
    fields: list[Field]
    cells: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ran(_migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """One run for all tests, as most of its time goes into starting Python and loading what draws."""
    url = f"sqlite:///{shutil.copy(_migrated_sqlite, tmp_path_factory.mktemp('notebook') / 'record.sqlite')}"
    database = Database(url)
    with database.session() as session:
        fields = make_weeks(session)
    notebook = stored()
    notebook.cells.append(nbformat.v4.new_code_cell(TELL % (TABLES,), id="tables"))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("CELLLOOP_DATABASE_URL", url)
        patch.setenv("IPYTHONDIR", folder)
        # Only this interpreter's own kernel, whatever else is installed on this machine; by sockets, not by ports.
        kernel = AsyncKernelManager(
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            transport="ipc",
            connection_file=f"{folder}/kernel.json",  # the sockets lie beside it: their paths must be short
        )
        client = NotebookClient(notebook, km=kernel, timeout=120, resources={"metadata": {"path": str(FILE.parent)}})
        client.execute(cleanup_kc=True)  # else a kernel that was handed in lives on
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    yield Ran(database, fields, cells, json.loads(cells["tables"].outputs[0].text))
    database.dispose()


def stored() -> Any:
    return nbformat.read(FILE, as_version=4)


def test_it_is_stored_without_what_it_showed() -> None:
    cells = [cell for cell in stored().cells if cell.cell_type == "code"]
    assert len(cells) > 10
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []


def test_every_cell_ran_and_showed_something_and_nothing_warned(ran: Ran) -> None:
    assert [cell.execution_count for cell in ran.cells.values()] == list(range(1, len(ran.cells) + 1))
    shown = {name: [output.get("data", {}) for output in cell.outputs] for name, cell in ran.cells.items()}
    assert all(shown.values())
    assert {name for name, data in shown.items() if any("image/png" in each for each in data)} == PLOTS
    assert [o.text for cell in ran.cells.values() for o in cell.outputs if o.get("name") == "stderr"] == []
    assert REASON in shown["life"][0]["text/html"]
    assert "infected recall 0.62: it may be worse by more than 0.02" in shown["decisions"][0]["text/html"]


def test_a_cell_and_its_labels_at_any_moment(ran: Ran) -> None:
    life, spans, as_of = ran.tables["life"], ran.tables["spans"], ran.tables["as_of"]
    assert [(row["event"], row["label"]) for row in life if row["event"] in ("predicted", "answered", "trained")] == [
        ("predicted", "ring"), ("answered", "difficult"), ("answered", "trophozoite"), ("answered", "ring"),
        ("trained", "ring"), ("answered", "schizont"), ("answered", None),
    ]  # fmt: skip
    said = ["difficult", "trophozoite", "ring", "schizont", "schizont"]
    assert [row["label"] for row in spans] == said
    assert [row["valid_from"] for row in spans][1] == "2026-01-01T12:20:00.000Z"
    assert [[name for name, count in row.items() if count == 1] for row in as_of] == [
        [name] for name in (*said, said[-1])
    ]


def test_models(ran: Ran) -> None:
    recall = [row for row in ran.tables["metrics"] if row["name"] == "infected_recall_at_0.5fp"]
    assert [row["value"] for row in recall] == pytest.approx(RECALLS)
    assert [week for week, row in enumerate(recall) if row["verdict"] == "refused"] == [REFUSED]
    assert sum(row["verdict"] == "promoted" for row in recall) == len(RECALLS) - 1
    with ran.database.session(read_only=True) as session:
        version = session.scalars(select(ModelVersion).order_by(ModelVersion.id.desc()).limit(1)).one()
        names = [row["image"] for row in ran.tables["trained_on"]]
        images = session.scalars(select(Image.id).where(Image.name.in_(names))).all()
        learned = labels.current_labels(session, images, newest_revision_id=version.newest_revision_id)
    labelled = [field.image.name for number, field in enumerate(ran.fields) if number % 3 < 2]
    assert names == ["S1-f1.png", *labelled]
    said = Counter(live.label or "no cell" for live in learned)
    assert {row["label"]: row["count"] for row in ran.tables["learned"]} == said


def test_people(ran: Ran) -> None:
    with ran.database.session(read_only=True) as session:
        answers = select(Review.expert).join(LabelRevision, LabelRevision.review_id == Review.id)
        said = Counter(session.scalars(answers.where(Review.expert != IMPORT_EXPERT)))
        waiting = session.scalar(select(func.count(ReviewItem.id)))
    counted: Counter[str] = Counter()
    for row in ran.tables["pace"]:
        counted[row["expert"]] += row["answers"]
    assert counted == said
    assert sum(row["items"] for row in ran.tables["waiting"]) == waiting
    corrected = [row["corrected"] for row in ran.tables["effort"]]
    assert corrected == sorted(corrected, reverse=True)
    for row in ran.tables["effort"]:
        assert sum(row[action.value] for action in OUTCOMES) == pytest.approx(100, abs=0.3)


def test_parasitaemia_of_slides_is_the_truth(ran: Ran) -> None:
    by_experts = {row["group"]: row for row in ran.tables["slides"] if row["source"] == "labels"}
    for week in range(5):
        labelled = ran.fields[3 * week : 3 * week + 2]
        row = by_experts[labelled[0].image.group]
        true = [label for field in labelled for _, label in field.truth]
        assert (row["infected"], row["cells"]) == (sum(label in INFECTED for label in true), len(true))
        assert row["low"] < row["percent"] < row["high"]


def test_its_sql_runs_on_both_engines(database: Database) -> None:
    values = {"cell": 1, "image": 1, "version": 1, "moment": at(25)}
    code = "\n".join(cell.source for cell in stored().cells if cell.cell_type == "code")
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    asked = [call for call in calls if ast.unparse(call.func) == "ask"]
    assert len(asked) > 10
    with database.engine.connect() as connection:
        for call in asked:
            given = {str(keyword.arg): values[str(keyword.arg)] for keyword in call.keywords}
            assert connection.execute(text(ast.literal_eval(call.args[0])).bindparams(**given)).keys()
