"""`cellloop difficult`: for people a table, for programs JSON, and the history of one cell with its experts' names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from db import difficult
from db.migrate import upgrade
from db.session import Database
from scripts import cli
from scripts.options import Doubt
from tests.builders import add_cell, add_image, say


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main(["difficult", *arguments])
    assert not left.value.code
    return capsys.readouterr().out


def test_states_offered_are_the_states_there_are() -> None:
    assert [state.value for state in Doubt] == [state.value for state in difficult.Doubt]


def test_difficult_cells_are_listed_and_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'cellloop.db'}"
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path))
    monkeypatch.setenv("CELLLOOP_DATABASE_URL", url)
    upgrade(url)
    database = Database(url)
    with database.session() as session:
        waiting, decided = (add_cell(session, add_image(session, name)) for name in ("one.png", "[two].png"))
        say(session, waiting, "difficult", "ls:1:1")
        say(session, decided, "difficult", "ls:1:2")
        say(session, decided, "ring", "ls:2:3", minute=90, expert="bob@example.org")
    shown = run(capsys)
    assert "2 difficult cells" in shown
    for word in ("one.png", "[two].png", "open", "resolved", "ada@example.org, bob@example.org", "2026-01-01 13:30"):
        assert word in shown
    assert "[two].png" not in run(capsys, "--state", "open")
    (cell,) = json.loads(run(capsys, "--state", "resolved", "--json"))["cells"]
    assert (cell["cell_id"], cell["label"], cell["readers"][1]) == (decided.id, "ring", "bob@example.org")
    told = run(capsys, "--cell", str(decided.id))
    assert told.index("ada@example.org") < told.index("bob@example.org")
    history = json.loads(run(capsys, "--cell", str(decided.id), "--json"))["history"]
    assert [entry["label"] for entry in history] == ["difficult", "ring"]
    database.dispose()
