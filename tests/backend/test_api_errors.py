"""Errors on the wire: a code, one line of text, and never a traceback or a secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend import errors
from backend.api.errors import STATUS, status_of
from tests.backend.server import Bench


class Exotic(errors.ImageRefused):
    """An error nobody listed."""


def test_the_nearest_listed_class_decides() -> None:
    assert status_of(Exotic("x")) == STATUS[errors.ImageRefused] == 422
    assert status_of(errors.WeightsCorrupt("x")) == 500
    assert status_of(errors.FileStoreUnavailable("x")) == 503


def test_a_failing_database_is_unavailable_not_a_traceback(client: TestClient, bench: Bench) -> None:
    with bench.database.session() as session:
        session.connection().exec_driver_sql("ALTER TABLE model_pairs RENAME TO elsewhere")
    response = client.get("/versions")
    assert response.status_code == 503
    assert "database" in response.json()["error"]
    assert "model_pairs" not in response.text


def test_a_bug_is_a_500_without_its_text(client: TestClient) -> None:
    client.app.state.server = None  # type: ignore[attr-defined]
    response = client.get("/health", headers={"X-Request-ID": "from-a-proxy"})
    assert response.status_code == 500
    assert response.json() == {"error": "GET /health failed; see the backend's log", "request": "from-a-proxy"}
    assert response.headers["x-request-id"] == "from-a-proxy"
    assert "NoneType" not in response.text
    assert "Traceback" not in response.text


@pytest.fixture
def narrow(tmp_path: Path, sqlite_url: str) -> Iterator[TestClient]:
    with Bench(tmp_path / "home", sqlite_url, max_body_bytes=2000).client() as client:
        yield client


def test_large_bodies_are_refused_announced_or_streamed(narrow: TestClient) -> None:
    large = b'{"action": "' + b"A" * 2000 + b'"}'
    announced = narrow.post("/webhook", content=large)
    streamed = narrow.post("/webhook", content=iter([large[:1000], large[1000:]]))
    negative = narrow.post("/webhook", content=b"{}", headers={"Content-Length": "-5"})
    assert [announced.status_code, streamed.status_code, negative.status_code] == [413, 413, 413]
    assert "at most 2000 bytes" in announced.json()["error"]


def test_bodies_within_the_limit_pass_streamed_too(narrow: TestClient) -> None:
    small = b'{"action": "PROJECT_UPDATED"}'
    headers = {"Content-Type": "application/json"}
    assert narrow.post("/webhook", content=small, headers=headers).status_code == 202
    assert narrow.post("/webhook", content=iter([small[:9], small[9:]]), headers=headers).status_code == 202
