"""`cellloop agreement`: a table for people, JSON for programs, a picture on request, and nothing to compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from db import migrate
from db.session import Database
from scripts import cli
from tests.builders import add_cell, add_image, say


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'cellloop.sqlite'}"
    migrate.upgrade(url)
    return Database(url)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["agreement", *arguments])
    return int(left.value.code or 0)


def test_before_any_double_reading(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "No cell was read by two experts yet." in capsys.readouterr().out
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out) == {"periods": []}


def test_double_readings_become_a_table_numbers_and_a_picture(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.session() as session:
        image = add_image(session)
        for number, (first, second) in enumerate([("ring", "ring"), ("ring", "trophozoite"), ("red blood cell", None)]):
            cell = add_cell(session, image)
            say(session, cell, first, "ls:1:1", minute=number, expert="ada@example.org")
            say(session, cell, second, "ls:1:2", minute=9 + number, expert="bob@example.org")
            say(session, cell, "ring", "import:x", action="imported", expert="import")
    assert run("--period", "month", "--plot", str(tmp_path / "confusion.png")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2026-01: 3 cells read by at least two of 2 experts" in shown
    assert "ada@example.org, bob@example.org" in shown
    assert "33%" in shown
    assert "trophozoite" in shown
    assert "schizont" not in shown
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert run("--json") == 0
    [period] = json.loads(capsys.readouterr().out)["periods"]
    assert (period["period"], period["cells"], period["readings"]) == ("all", 3, 6)
    assert run("--json", "--imports") == 0
    [period] = json.loads(capsys.readouterr().out)["periods"]
    assert period["readings"] == 9
    assert "import" in period["experts"]


def test_a_picture_that_cannot_be_written_is_one_clear_error(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--plot", str(tmp_path / "nowhere" / "confusion.png")) == 1
    assert "confusion.png: No such file or directory" in capsys.readouterr().err
