"""`cellloop stopping` and `cellloop suspicious`: what the record says, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from db import queue
from db.migrate import upgrade
from db.models import Slot, Way
from db.queue import QueueEntry
from db.session import Database
from scripts import cli
from tests.al_loop.test_suspect import RIGHT, labelled
from tests.builders import add_active_pair, say
from tests.db.test_random_readings import predicted


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'cellloop.db'}"
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path))
    monkeypatch.setenv("CELLLOOP_DATABASE_URL", url)
    upgrade(url)
    database = Database(url)
    yield database
    database.dispose()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert not left.value.code
    return capsys.readouterr().out


def test_how_many_infected_cells_are_unseen(record: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with record.session() as session:
        pair = add_active_pair(session)
        ranking = queue.add_ranking(session, pair.id, {})
        for number in range(40):
            [(row, cell)] = predicted(session, pair)
            if number >= 20:
                continue
            slot = {"way": Way.cell, "slot": Slot.random, "cell_id": cell.id, "predicted_cell_id": row}
            queue.add_items(session, ranking.id, [QueueEntry(cell.image_id, 1.0, {}, **slot)])
            say(session, cell, "ring" if number < 5 else "red blood cell", f"ls:2:{number}", way=Way.cell)
            queue.close_cell(session, cell.id, "done")
    answer = json.loads(run(capsys, "stopping", "--json"))
    assert (answer["unseen"]["reviewed"], answer["unseen"]["infected"], answer["unseen"]["waiting"]) == (20, 5, 20)
    assert answer["unseen"]["low"] < 5 < answer["unseen"]["high"]
    assert answer["stop"] is None
    assert "It cannot be told yet: fewer than two models were evaluated" in run(capsys, "stopping")


def test_labels_in_doubt_are_listed(record: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with record.session() as session:
        pair = add_active_pair(session)
        for _ in range(8):
            labelled(session, pair, RIGHT)
        labelled(session, pair, ["red blood cell", "red blood cell", "trophozoite", *RIGHT[3:]], name="wrong.png")
    shown = run(capsys, "suspicious")
    assert "1 labels in doubt, 1 of them new; 9 images looked at" in shown
    assert "Labelled trophozoite; the models say ring 0.97" in shown
    answer = json.loads(run(capsys, "suspicious", "--json"))
    assert (answer["open"], answer["added"], answer["suspicious"][0]["image"]) == (1, 0, "wrong.png")


def test_without_models_it_is_said_what_to_do(record: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["stopping"])
    assert left.value.code == 1
    assert "cellloop train" in capsys.readouterr().err
