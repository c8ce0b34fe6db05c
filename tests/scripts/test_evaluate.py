"""`cellloop evaluate`: what it says before there is anything to measure, and how it shows the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from al_loop import evaluate as evaluating
from db import migrate, runs, versions
from db.session import Database
from scripts import cli


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'cellloop.sqlite'}"
    migrate.upgrade(url)
    return Database(url)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["evaluate", *arguments])
    return int(left.value.code or 0)


def add_version(database: Database, role: str, active: bool = True) -> int:
    with database.session() as session:
        named = {"config": {}, "manifest": {}, "manifest_sha256": "0" * 64, "environment": {}}
        version = versions.add_version(session, role=role, weights_sha256="0" * 64, **named).id
        if active:
            versions.activate(session, version, kind="first", reasons=[])
        return version


def test_each_thing_missing_is_said(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 1
    assert "cellloop train --role infected" in capsys.readouterr().err
    add_version(database, "infected")
    assert run() == 1
    assert "active version of the other role" in capsys.readouterr().err
    assert run("--version", "99") == 1
    assert "99" in capsys.readouterr().err


def test_numbers_are_shown_with_intervals(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    infected, all_cells = add_version(database, "infected"), add_version(database, "all_cells")
    with database.session() as session:
        pair = versions.pair_of(session, all_cells, infected)
        rows = [
            runs.MetricRow("ap50", 0.5, 12, "ring", low=0.25, high=0.75),
            runs.MetricRow("ap50", None, 0, "leukocyte"),
        ]
        stored = runs.add_evaluation(session, pair.id, "test", "0" * 64, {}, rows).id
    monkeypatch.setattr(evaluating, "evaluate_candidate", lambda loop, version_id, on_progress: stored)
    assert run() == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"infected version {infected} on the frozen test split" in shown
    assert "ap50 ring 0.500 [0.250, 0.750] n = 12" in shown
    assert "ap50 leukocyte - [-, -] n = 0" in shown
    assert run("--json") == 0
    assert [m["value"] for m in json.loads(capsys.readouterr().out)["metrics"]] == [0.5, None]
