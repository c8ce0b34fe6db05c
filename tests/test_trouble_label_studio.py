"""Trouble with Label Studio: down, refusing, failing, or with a project we cannot use. No label is lost by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from al_loop.worker import Worker
from backend.label_studio.cell_config import default_cell_config
from backend.label_studio.label_config import default_config
from db import images, labels, predictions, projects, reviews, versions
from db.session import Database
from scripts import composition
from tests.trouble import Run, answering, assert_one_line, damage


def connected(database: Database, url: str) -> None:
    """As if `cellloop label-studio connect` had been there."""
    with database.session() as session:
        projects.upsert_project(session, url=url, ls_project_id=1, title="cellloop", label_config=default_config())


def known(database: Database) -> tuple[int, int, int]:
    """How many labels, reviews and predictions there are: what trouble may not lessen."""
    with database.session(read_only=True) as session:
        pair = versions.active_pair(session)
        assert pair is not None
        stored = predictions.by_pair(session, pair.id)
        return labels.newest_revision_id(session), len(reviews.live_threads(session)), len(stored)


NEEDS_LABEL_STUDIO = (["label-studio", "connect"], ["push"], ["sync"])


@pytest.mark.parametrize("command", NEEDS_LABEL_STUDIO, ids=" ".join)
def test_label_studio_is_down(run: Run, installed: Database, command: list[str]) -> None:
    connected(installed, "http://127.0.0.1:9")
    before = known(installed)
    assert_one_line(run(*command), "cannot be reached", "cellloop label-studio start")
    assert known(installed) == before


@pytest.mark.parametrize("command", NEEDS_LABEL_STUDIO, ids=" ".join)
@pytest.mark.parametrize(
    ("status", "words"), [(401, "CELLLOOP_LABEL_STUDIO_TOKEN"), (500, "failed with 500")], ids=["refuses", "fails"]
)
def test_label_studio_refuses_or_fails(
    run: Run, installed: Database, monkeypatch: pytest.MonkeyPatch, command: list[str], status: int, words: str
) -> None:
    with answering(lambda method, path: (status, {"detail": "no"})) as url:
        monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", url)
        connected(installed, url)
        before = known(installed)
        assert_one_line(run(*command), url, words)
        assert known(installed) == before


def project(label_config: str) -> dict[str, Any]:
    return {"id": 1, "title": "cellloop", "label_config": label_config, "model_version": "", "sampling": ""}


def test_a_project_without_a_usable_control(run: Run, installed: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, Any]:
        asked.append(method)
        choices = '<View><Image name="i" value="$image"/><Choices name="c" toName="i"><Choice value="x"/></Choices>'
        choices += "</View>"
        return 200, {"results": [project(choices)], "next": None, "count": 1}

    with answering(answer) as url:
        monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", url)
        assert_one_line(run("label-studio", "connect"), "project cellloop", "RectangleLabels")
    assert set(asked) == {"GET"}, "nothing in the project was touched"


def test_our_backend_is_down_while_connecting(run: Run, installed: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(method: str, path: str) -> tuple[int, Any]:
        if path.startswith("/api/projects"):
            found = project(default_config())
            if method == "POST":
                return 201, {**found, "id": 2, "title": "cellloop · cells", "label_config": default_cell_config()}
            return 200, found if path.strip("/").endswith("1") else {"results": [found], "next": None, "count": 1}
        if method == "GET":
            return 200, []
        return (400, {"detail": "health check failed"}) if path.startswith("/api/ml") else (201, {"id": 1})

    with answering(answer) as url:
        monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", url)
        assert_one_line(run("label-studio", "connect"), "cellloop serve", "connect again", "health check failed")
    with installed.session(read_only=True) as session:
        titles = {found.way.value: found.title for found in projects.projects(session)}
    assert titles == {"field": "cellloop", "cell": "cellloop · cells"}, "the rest is set up"


def test_the_worker_outlives_trouble(
    home: Path, installed: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Label Studio away and a serving model's weights gone: one warning each, and what works goes on."""
    monkeypatch.setenv("CELLLOOP_POLL_S", "0.001")
    connected(installed, "http://127.0.0.1:9")
    damage(home, installed, 2, None)
    with installed.session() as session:
        asked = images.pool(session)[0].id
        predictions.request(session, asked)
        versions.activate(session, 3, kind="person", reasons=["for a test"])
        versions.active_pair(session)
    damage(home, installed, 3, None)
    before = known(installed)[:2]
    worker = Worker(composition.open_loop())
    monkeypatch.setattr(worker, "_look_after_runs", lambda: None)
    monkeypatch.setattr(worker, "_follow_pair", lambda: False)
    for _ in range(20):
        worker.tick()
        worker._rests_until.clear()
    told = [record.getMessage() for record in caplog.records if record.name == "cellloop.worker"]
    assert len([line for line in told if "cannot be reached" in line]) == 1
    assert len([line for line in told if ".safetensors" in line]) == 1
    assert known(installed)[:2] == before
    with installed.session(read_only=True) as session:
        assert [image.id for image in predictions.requests(session)] == [asked], "still owed"
