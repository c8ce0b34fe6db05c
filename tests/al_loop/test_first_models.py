"""A training in the foreground: who serves afterwards, and what happens when it does not end well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from al_loop import first_models as module
from al_loop.context import Loop
from al_loop.first_models import train_here
from backend.credentials import load_credentials
from backend.errors import NotEnoughData, WorkerRunning
from backend.settings import Settings
from backend.store import FileStore
from db import migrate, runs, versions
from db.models import RunStatus, VersionStatus
from db.session import Database


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    settings = Settings(home=tmp_path)
    migrate.upgrade(settings.database_url)
    return Loop(settings, Database(settings.database_url), FileStore(settings.files), load_credentials(tmp_path))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training itself, without the gradient steps: a version row per run."""

    def retrain(loop: Loop, run_id: int, on_progress: Callable[..., None]) -> int:
        with loop.database.session() as session:
            named = {"config": {}, "manifest": {}, "manifest_sha256": "0" * 64, "environment": {}}
            role = runs.get(session, run_id).role
            return versions.add_version(session, role=role, weights_sha256=f"{run_id:064d}", **named).id

    monkeypatch.setattr(module, "retrain", retrain)


@pytest.mark.usefixtures("quick")
def test_first_version_serves_and_the_second_waits(loop: Loop) -> None:
    first, second = (train_here(loop, "infected") for _ in range(2))
    assert (first.status, second.status) == (VersionStatus.active, VersionStatus.candidate)
    with loop.database.session() as session:
        serving = versions.active(session, "infected")
        assert serving is not None
        assert serving.id == first.id
        assert [run.status for run in runs.runs(session)] == [RunStatus.succeeded] * 2
        assert [decision.kind for decision in versions.decisions(session)] == ["first"]


def test_without_labels_the_run_fails_and_the_next_may_start(loop: Loop) -> None:
    for _ in range(2):
        with pytest.raises(NotEnoughData):
            train_here(loop, "all_cells")
    with loop.database.session() as session:
        assert [run.status for run in runs.runs(session)] == [RunStatus.failed] * 2


def test_interrupted_run_is_continued(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def interrupted(_loop: Loop, run_id: int, _on_progress: Callable[..., None]) -> int:
        seen.append(run_id)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "retrain", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_here(loop, "infected")
    assert seen[0] == seen[1]


def test_run_of_the_worker_is_left_alone(loop: Loop) -> None:
    with loop.database.session() as session:
        run = runs.open_run(session, "infected", "reviews", {}, {})
        assert run is not None
    with pytest.raises(WorkerRunning, match="cellloop worker"):
        train_here(loop, "infected")
    with loop.database.session() as session:
        assert runs.get(session, run.id).status == RunStatus.queued
