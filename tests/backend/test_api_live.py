"""What is asked for all day: cheap, unchanged most of the time, and true."""

from __future__ import annotations

from fastapi.testclient import TestClient

from db import queue, runs
from db.models import Way
from db.queue import QueueEntry
from tests import builders
from tests.backend.server import Bench


def test_only_a_change_is_sent(client: TestClient, bench: Bench) -> None:
    token = bench.bearer(bench.token)
    assert client.get("/api/v1/live").status_code == 401
    first = client.get("/api/v1/live", **token)
    assert first.json() | {"state": ""} == {
        "doing": "No training runs", "runs": [], "workers": [], "waiting": {"field": 0, "cell": 0}, "in_hand": 0,
        "state": "",
    }  # fmt: skip
    token["headers"]["If-None-Match"] = first.headers["etag"]
    assert client.get("/api/v1/live", **token).status_code == 304
    with bench.database.session() as session:
        assert runs.open_run(session, "infected", "person", {}, {}) is not None
    assert client.get("/api/v1/live", **token).json()["doing"] == "infected: queued"


def test_progress_is_no_new_state_and_everything_else_is(client: TestClient, bench: Bench) -> None:
    pair = bench.activate_pair()
    states = []

    def look() -> dict[str, object]:
        found = client.get("/api/v1/live", **bench.bearer(bench.token)).json()
        states.append(found["state"])
        return dict(found)

    look()
    with bench.database.session() as session:
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        runs.start_run(session, run.id, 300)
    look()
    with bench.database.session() as session:
        runs.progress(session, run.id, 30, 300, "loss 0.5")
    found = look()
    assert found["doing"] == "infected: training, 10 %"
    assert states[0] != states[1] == states[2]
    with bench.database.session() as session:
        image = builders.add_image(session)
        cell = builders.add_cell(session, image)
        ranking = queue.add_ranking(session, pair.id, {})
        entries = [QueueEntry(image.id, 1.0, {}), QueueEntry(image.id, 2.0, {}, Way.cell, cell_id=cell.id)]
        queue.replace_queue(session, ranking.id, entries)
    assert look()["waiting"] == {"field": 1, "cell": 1}
    with bench.database.session() as session:
        builders.say(session, cell, "ring")
    look()
    assert len(set(states)) == 4
