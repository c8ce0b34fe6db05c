"""`cellloop history`: tables for people, JSON, CSV and Parquet for programs, all with the same rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from backend.history.questions import QUESTIONS
from db.migrate import upgrade
from db.session import Database
from scripts import cli
from tests.made_history import REASON, make_history

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run `cellloop history` on a home with the history made by hand: exit status, stdout, stderr."""
    home = tmp_path / "home"
    url = f"sqlite:///{home / 'cellloop.sqlite'}"
    upgrade(url)
    database = Database(url)
    with database.session() as session:
        make_history(session)
    database.dispose()
    monkeypatch.setenv("CELLLOOP_HOME", str(home))

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main(("history", *arguments))
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return command


def test_the_life_of_a_cell_for_people(ask: Ask) -> None:
    status, shown, _ = ask("cell", "thecell")
    assert status == 0
    assert "11 rows" in shown
    assert REASON in shown
    assert "2026-01-01 12:20" in shown
    assert "Not shown: probabilities, ref" in shown
    assert "no rows" in ask("queue", "--slot", "random")[1]


def test_json_csv_and_parquet_have_the_same_rows(ask: Ask, tmp_path: Path) -> None:
    rows = json.loads(ask("labels", "--json")[1])["rows"]
    assert [(row["image"], row["label"]) for row in rows] == [
        ("S1-f1.png", "red blood cell"),
        ("S1-f1.png", "ring"),
        ("S2-f1.png", "schizont"),
    ]
    read = list(csv.DictReader(io.StringIO(ask("labels", "--csv")[1])))
    assert [{n: str(v) if v is not None else "" for n, v in row.items()} for row in rows] == read
    file = tmp_path / "labels.parquet"
    assert ask("labels", "--parquet", str(file))[1] == f"3 rows in {file}\n"
    stored = pq.read_table(file)
    assert [{**row, "decided_at": row["decided_at"].isoformat()} for row in stored.to_pylist()] == rows
    assert str(stored.schema.field("decided_at").type) == "timestamp[us, tz=UTC]"
    empty = tmp_path / "empty.parquet"
    ask("labels", "--label", "nothing", "--parquet", str(empty))
    assert pq.read_table(empty).schema == stored.schema


def test_filters_and_limits(ask: Ask) -> None:
    then = json.loads(ask("labels", "--cell", "thecell", "--as-of", "2026-01-01T12:25:00+00:00", "--json")[1])
    assert [row["label"] for row in then["rows"]] == ["trophozoite"]
    some = json.loads(ask("labels", "--limit", "1", "--json")[1])
    assert (len(some["rows"]), some["next"] is None) == (1, False)
    assert "there are more: --limit" in ask("labels", "--limit", "1")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("image", "nowhere.png"), "there is none such"),
        (("labels", "--as-of", "yesterday"), "expected a moment in ISO 8601"),
        (("labels", "--json", "--csv"), "expected one of --json, --csv and --parquet"),
    ],
)
def test_what_cannot_be_answered_is_one_line(ask: Ask, arguments: tuple[str, ...], says: str) -> None:
    status, out, err = ask(*arguments)
    assert (status, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1


def test_help_of_every_question_shows_an_example(ask: Ask) -> None:
    for question in QUESTIONS:
        status, shown, _ = ask(question.name, "--help")
        assert status == 0
        assert "Example: cellloop history" in " ".join(shown.split())
