"""The webhook: whoever knows the secret is written down before the answer, and nobody else."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from db import inbox
from tests.backend.server import Bench

EVENT = {
    "action": "ANNOTATION_CREATED",
    "annotation": {"id": 5, "result": [{"id": "abc"}], "was_cancelled": False},
    "project": {"id": 7, "token": "an invitation"},
    "task": {"id": 100},
}
KEPT = {"project": 7, "tasks": [100], "annotations": [5]}


def stored(bench: Bench) -> list[tuple[str, dict[str, Any]]]:
    with bench.database.session(read_only=True) as session:
        return [(event.action, event.payload) for event in inbox.unhandled(session)]


def test_what_an_event_is_about_is_stored(client: TestClient, bench: Bench) -> None:
    response = client.post("/webhook", json=EVENT, **bench.bearer(bench.credentials.webhook_secret))
    assert (response.status_code, response.json()) == (202, {"received": True})
    assert stored(bench) == [("ANNOTATION_CREATED", KEPT)]


def test_start_training_comes_with_the_ml_backends_basic_auth(client: TestClient, bench: Bench) -> None:
    event = {"action": "START_TRAINING", "project": {"id": 7}}
    assert client.post("/webhook", json=event).status_code == 202
    assert stored(bench) == [("START_TRAINING", {"project": 7, "tasks": [], "annotations": []})]


@pytest.mark.parametrize("given", ["none", "wrong", "api token", "wrong basic", "as password"])
def test_nobody_else_is_written_down(client: TestClient, bench: Bench, given: str) -> None:
    secret = bench.credentials.webhook_secret
    headers = {
        "wrong": f"Bearer {secret[:-1]}",
        "api token": f"Bearer {bench.token}",
        "wrong basic": "Basic " + base64.b64encode(b"label-studio:guess").decode(),
        "as password": secret,
    }
    arguments = bench.bearer("x")
    arguments["headers"] = {"Authorization": headers[given]} if given in headers else {}
    response = client.post("/webhook", json=EVENT, **arguments)
    assert response.status_code == 401
    assert secret not in response.text
    assert stored(bench) == []


@pytest.mark.parametrize(
    "body", [{}, {"action": 7}, {"action": ""}, {"action": "A" * 65}, {"action": "A\n"}, {"action": "\0"}]
)
def test_an_event_without_an_action_is_refused(client: TestClient, bench: Bench, body: dict[str, Any]) -> None:
    response = client.post("/webhook", json=body)
    assert response.status_code == 422
    assert "action" in response.json()["error"]
    assert stored(bench) == []


def test_answers_well_within_label_studios_second(client: TestClient, bench: Bench) -> None:
    large = {**EVENT, "annotation": {"id": 5, "result": [{"id": str(n), "value": {"x": 0.1}} for n in range(300)]}}
    client.post("/webhook", json=large)
    started = time.monotonic()
    for _ in range(10):
        assert client.post("/webhook", json=large).status_code == 202
    assert (time.monotonic() - started) / 10 < 0.5
    assert len(stored(bench)) == 11
