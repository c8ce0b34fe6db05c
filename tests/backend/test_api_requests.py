"""Every request has an id, one line in the log without its address, and is counted."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.crop_address import crop_name
from backend.logs import set_up
from tests.backend.server import Bench


class Told:
    """The log of this process, as JSON lines."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        set_up("json", logging.DEBUG, self.stream)

    @property
    def text(self) -> str:
        return "".join(
            line for line in self.stream.getvalue().splitlines(True) if '"cellloop.' in line or "backend." in line
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def told(root_logger: logging.Logger) -> Told:
    return Told()


def test_an_id_is_made_or_kept_and_told_in_answers_and_errors(client: TestClient) -> None:
    made = client.get("/health").headers["x-request-id"]
    assert len(made) == 16
    assert client.get("/health").headers["x-request-id"] != made
    assert client.get("/health", headers={"X-Request-ID": "proxy-1.2_3"}).headers["x-request-id"] == "proxy-1.2_3"
    for bad in ("a b", "x" * 65, "", "a\tb"):
        assert client.get("/health", headers={"X-Request-ID": bad}).headers["x-request-id"] != bad
    refused = client.get("/health", auth=("x", "y"), headers={"X-Request-ID": "mine"})
    assert (refused.status_code, refused.json()["request"]) == (401, "mine")
    assert "mine" in client.get("/dashboard/nowhere", headers={"X-Request-ID": "mine"}).text


def test_what_a_request_logs_carries_its_id_and_no_address(client: TestClient, bench: Bench, told: Told) -> None:
    crop = crop_name(5, bench.credentials.crop_key)
    client.get(f"/crops/{crop}?token=hush", headers={"X-Request-ID": "first"})
    client.post("/webhook", json={"action": "PING"}, headers={"X-Request-ID": "second"})
    client.get("/hush/hush")
    client.request("HUSH", "/health")
    first = told.lines[0]
    assert (first["request"], first["method"], first["route"], first["status"]) == (
        "first",
        "GET",
        "/crops/{name}",
        404,
    )
    webhook, answered = told.lines[1:3]
    assert (webhook["message"], webhook["request"]) == ("webhook PING", "second"), "logged in a thread of the pool"
    assert (answered["route"], answered["status"], answered["request"]) == ("/webhook", 202, "second")
    assert [(line["method"], line["route"]) for line in told.lines[3:]] == [("GET", "other"), ("other", "/health")]
    for secret in (crop, "hush", "HUSH", bench.credentials.basic_password):
        assert secret not in told.text


def test_a_bug_is_logged_once_with_its_traceback_and_id(client: TestClient, told: Told) -> None:
    client.app.state.server = None  # type: ignore[attr-defined]
    assert client.get("/versions", headers={"X-Request-ID": "mine"}).status_code == 500
    failed, answered = told.lines
    assert "Traceback" in failed["error"]
    assert (failed["request"], answered["request"], answered["status"]) == ("mine", "mine", 500)
