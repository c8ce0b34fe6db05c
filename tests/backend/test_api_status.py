"""The status of the loop, for whoever holds the API token."""

from __future__ import annotations

from fastapi.testclient import TestClient

from db import queue, runs
from tests import builders
from tests.backend.server import Bench


def test_only_for_a_token(client: TestClient, bench: Bench) -> None:
    assert client.get("/api/v1/status").status_code == 401, "Basic auth is for Label Studio"
    assert client.get("/api/v1/status", **bench.bearer(bench.credentials.webhook_secret)).status_code == 401
    assert client.get("/api/v1/status", **bench.bearer(bench.token)).status_code == 200


def test_an_empty_home(client: TestClient, bench: Bench) -> None:
    assert client.get("/api/v1/status", **bench.bearer(bench.token)).json() == {
        "pair": None,
        "images": {"train": 0, "validation": 0, "test": 0, "pool": 0},
        "pending_reviews": 0,
        "labels": {},
        "open_runs": [],
    }


def test_counts_what_is_there(client: TestClient, bench: Bench) -> None:
    row = bench.activate_pair()
    with bench.database.session() as session:
        images = [builders.add_image(session) for _ in range(3)]
        ranking = queue.add_ranking(session, row.id, {})
        queue.replace_queue(session, ranking.id, [queue.QueueEntry(images[0].id, 2.0, {})])
        builders.say(session, builders.add_cell(session, images[1]), "ring")
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        runs.start_run(session, run.id, steps=100)
        runs.progress(session, run.id, 40, 100, "loss 0.8")
    found = client.get("/api/v1/status", **bench.bearer(bench.token)).json()
    assert found["pair"] == {"name": row.name, "all_cells": row.all_cells_id, "infected": row.infected_id}
    assert found["images"]["train"] == 3
    assert found["images"]["pool"] == 2
    assert found["pending_reviews"] == 1
    assert found["labels"] == {"ring": 1}
    (open_run,) = found["open_runs"]
    assert {key: open_run[key] for key in ("role", "trigger", "status", "step", "steps", "message")} == {
        "role": "infected", "trigger": "person", "status": "running", "step": 40, "steps": 100, "message": "loss 0.8",
    }  # fmt: skip
