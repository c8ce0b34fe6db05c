"""`cellloop runs` as a person and a program see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from db import run_events, runs, workers
from db.migrate import upgrade
from db.session import Database
from scripts.cli import main
from tests.builders import add_version


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A home with one run that trains on a worker."""
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'cellloop.sqlite'}"
    upgrade(url)
    database = Database(url)
    with database.session() as session:
        add_version(session)
        worker = workers.register(session, "gpu-7", "gpu", 7, ["train"])
        run = runs.open_run(session, "infected", "cron", {"cron": "0 3 * * *"}, {})
        assert run is not None
        runs.take_up(session, run.id, worker.id)
        run_events.add_event(session, run.id, "preparing", level=run_events.STAGE, stage="train", worker_id=worker.id)
        run_events.add_event(session, run.id, "GPU is hot", level="warning", stage="train", worker_id=worker.id)
        runs.progress(session, run.id, 30, 100, "step 30", worker_id=worker.id)
    database.dispose()
    return run.id


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        main(["runs", *arguments])
    return capsys.readouterr().out


def test_a_run_is_listed_shown_cancelled_and_retried(run_id: int, capsys: pytest.CaptureFixture[str]) -> None:
    listed = told(capsys)
    assert all(word in listed for word in ("cron", "running", "30%", "gpu-7", "step 30"))
    shown = json.loads(told(capsys, "show", str(run_id), "--json"))
    assert (shown["step"], shown["worker"], shown["attempts"]) == (30, "gpu-7", 1)
    assert shown["detail"] == {"cron": "0 3 * * *"}
    assert shown["stages"][0].startswith("train from")
    assert "gpu-7 train: warning: GPU is hot" in told(capsys, "log", str(run_id))
    assert json.loads(told(capsys, "cancel", str(run_id), "--reason", "too hot", "--json"))["status"] == "cancelled"
    again = json.loads(told(capsys, "retry", str(run_id), "--json"))
    assert (again["retry_of"], again["status"]) == (run_id, "queued")
    [newest, _] = json.loads(told(capsys, "--json"))["runs"]
    assert (newest["run"], newest["trigger"]) == (again["run"], "person")
    with pytest.raises(SystemExit, match="1"):
        main(["runs", "retry", str(run_id)])
    assert "one is queued or running" in capsys.readouterr().err
