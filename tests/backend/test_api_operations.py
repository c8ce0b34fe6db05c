"""What machines ask: alive, ready and why not, and numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from backend import doctor_machine
from backend.api import operations
from backend.credentials import load_credentials
from backend.last_backup import note_backup
from db import inbox, predictions, projects, runs, versions
from db.models import Worker, now
from tests import builders
from tests.backend.server import Bench

NOBODY: dict[str, Any] = {"auth": ("nobody", "guess")}


def scrape(client: TestClient, bench: Bench) -> dict[tuple[str, ...], float]:
    """(name, label values sorted by label) -> value."""
    response = client.get("/metrics", **bench.bearer(bench.token))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_alive_for_anybody(client: TestClient) -> None:
    response = client.get("/health/live", **NOBODY)
    assert (response.status_code, response.json()) == (200, {"status": "UP"})


def test_ready_says_why_not_to_who_is_known(client: TestClient, bench: Bench) -> None:
    def why() -> str:
        unknown, known = client.get("/health/ready", **NOBODY), client.get("/health/ready")
        assert unknown.json() == {"ready": unknown.status_code == 200}
        assert unknown.status_code == known.status_code
        return "; ".join(known.json()["reasons"])

    assert why() == "", "before there is a model, Label Studio is told so task by task"
    bench.activate_pair()  # rows only: their files are not there
    assert "weights" in why()
    with bench.database.session() as session:
        for role in ("all_cells", "infected"):
            stored = bench.store.put_bytes("weights", role.encode(), ".safetensors")
            version = builders.add_version(session, role, weights_sha256=stored.sha256)
            versions.activate(session, version.id, kind="gate", reasons=["better"])
        versions.active_pair(session)
    assert why() == ""
    bench.store.path(stored.file).unlink()
    assert why() == "", "verified once is enough"
    with bench.database.session() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
    assert "cellloop migrate" in why()
    with bench.database.session() as session:
        session.connection().exec_driver_sql("DROP TABLE alembic_version")
    assert "migrate" in why()


def test_not_ready_on_a_full_disk_or_while_stopping(
    client: TestClient, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MIN_FREE_BYTES", 2**80)
    assert "free some space" in client.get("/health/ready").json()["reasons"][0]
    monkeypatch.setattr(operations, "MIN_FREE_BYTES", doctor_machine.MIN_FREE_BYTES)
    assert client.get("/health/ready").status_code == 200
    bench.server(client).stopping.set()
    response = client.get("/health/ready")
    assert (response.status_code, response.json()["reasons"]) == (503, ["the server is stopping"])
    assert client.get("/health/live").status_code == 200


def test_a_loaded_pair_is_ready_whatever_became_of_its_files(client: TestClient, bench: Bench) -> None:
    image = bench.add_image(1)
    bench.activate_pair()
    assert client.get("/health/ready").status_code == 503
    client.post("/predict", json=bench.body(image))
    assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("secret", ["", "guess"])
def test_numbers_want_a_token(client: TestClient, bench: Bench, secret: str) -> None:
    assert client.get("/metrics", **bench.bearer(secret)).status_code == 401


def test_requests_and_tasks_are_counted(client: TestClient, bench: Bench) -> None:
    stored, fresh = bench.add_image(1), bench.add_image(2)
    bench.activate_pair()
    bench.predict(stored)
    client.post("/predict", json=bench.body(stored, fresh, "http://elsewhere/x.png", stored))
    client.post("/predict", json=bench.body(stored), auth=("x", "y"))
    found = scrape(client, bench)
    assert found["cellloop_requests_total", "POST", "/predict", "200"] == 1
    assert found["cellloop_requests_total", "POST", "/predict", "401"] == 1
    assert found["cellloop_request_seconds_count", "/predict"] == 2
    assert found["cellloop_requests_in_flight",] == 1, "this one"
    tasks = {source: found["cellloop_predicted_tasks_total", source] for source in ("stored", "detected", "refused")}
    assert tasks == {"stored": 2, "detected": 1, "refused": 1}
    assert found["cellloop_predicted_tasks_total", "left"] == 0
    assert found["process_resident_memory_bytes",] > 0
    other = scrape(TestClient(bench.client().app), bench)
    assert ("cellloop_requests_total", "POST", "/predict", "200") not in other, "each application counts for itself"


@pytest.fixture
def served(database_url: str, tmp_path: Any) -> Iterator[tuple[Bench, TestClient]]:
    """A server over either engine."""
    bench = Bench(tmp_path / "home", database_url)
    with bench.client() as client:
        yield bench, client
    bench.database.dispose()


def test_what_the_record_knows_is_read_at_each_scrape(served: tuple[Bench, TestClient]) -> None:
    bench, client = served
    found = scrape(client, bench)
    assert (found["cellloop_record_up",], found["cellloop_inbox_waiting",]) == (1, 0)
    pair = bench.activate_pair()
    with bench.database.session() as session:
        image = builders.add_image(session)
        inbox.receive(session, "ANNOTATION_CREATED", {})
        predictions.request(session, image.id)
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        runs.start_run(session, run.id)
        runs.progress(session, run.id, 1, 2, "on its way")
        builders.add_projects(session)
        projects.mark_synced(session, projects.projects(session)[0].id)
        refused = builders.add_version(session)
        versions.reject(session, refused.id, reasons=["worse"])
        builders.say(session, builders.add_cell(session, image), "ring")
        beats = {"queues": ["train", "sync"], "host": "here", "pid": 1}
        session.add_all([Worker(name="a", **beats), Worker(name="b", **beats, beat_at=builders.at(0))])
        session.add(Worker(name="c", **beats, ended="stopped", ended_at=now()))
    note_backup(bench.settings.home, builders.at(0))
    found = scrape(client, bench)
    assert found["cellloop_inbox_waiting",] == found["cellloop_prediction_requests",] == 1
    assert 0 <= found["cellloop_inbox_oldest_seconds",] < 60
    assert 0 <= found["cellloop_open_run_silent_seconds", "infected", "", "running"] < 60
    assert 0 <= found["cellloop_sync_age_seconds", "cell"] < 60
    assert 0 <= found["cellloop_sync_age_seconds", "field"] < 60
    assert found["cellloop_active_version_info", "infected", str(pair.infected_id)] == 1
    assert found["cellloop_active_pair_info", pair.name] == 1
    assert found["cellloop_decisions_total", "gate", "no", "infected"] == 1
    assert found["cellloop_decisions_total", "first", "yes", "all_cells"] == 1
    assert found["cellloop_reviews_total",] >= 1
    assert found["cellloop_label_revisions_total",] >= 1
    assert found["cellloop_workers_alive", "train"] == 1
    assert found["cellloop_workers_alive", "predict"] == 0
    assert found["cellloop_backup_age_seconds",] > 86400
    assert found["cellloop_disk_free_bytes",] > 0


def test_without_the_record_the_rest_is_told(client: TestClient, bench: Bench) -> None:
    with bench.database.session() as session:
        session.connection().exec_driver_sql("ALTER TABLE model_pairs RENAME TO elsewhere")
    found = scrape(client, bench)
    assert found["cellloop_record_up",] == 0
    assert ("cellloop_inbox_waiting",) not in found
    assert found["cellloop_disk_free_bytes",] > 0


def test_no_secret_is_among_the_numbers(client: TestClient, bench: Bench) -> None:
    text = client.get("/metrics", **bench.bearer(bench.token)).text
    secrets = vars(load_credentials(bench.settings.home))
    assert [name for name, value in secrets.items() if value and value in text] == []
