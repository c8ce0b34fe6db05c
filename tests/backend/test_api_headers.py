"""What every reply says about itself: the API's, errors of every layer, and crops on Label Studio's pages."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tests.backend.server import Bench

REPLIES = {
    "/health": 200, "/versions": 200, "/health/live": 200, "/webhook": 405, "/api/v1/status": 401, "/nowhere": 404,
    "/crops/x.jpg": 404, "/api/v1/history/metrics?limit=x": 401, "/dashboard/login": 200,
}  # fmt: skip


@pytest.mark.parametrize("path", REPLIES)
def test_every_reply_is_guarded(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == REPLIES[path]
    said = reply.headers
    assert "frame-ancestors 'none'" in said["content-security-policy"]
    assert "unsafe" not in said["content-security-policy"]
    assert (said["x-content-type-options"], said["x-frame-options"]) == ("nosniff", "DENY")
    assert said["referrer-policy"] in ("no-referrer", "same-origin")
    assert said["cache-control"] == "no-store"
    assert "server" not in said


def test_refusals_of_every_layer_are_guarded(client: TestClient, bench: Bench) -> None:
    too_large = client.post("/webhook", content=b"x" * 100_000, headers={"Authorization": "none"}, auth=("", ""))
    deep = client.post("/webhook", content=b"[" * 1000)
    private = client.get("/api/v1/status", **bench.bearer(bench.token))
    client.app.state.server = None  # type: ignore[attr-defined]
    bug = client.get("/versions")
    assert [reply.status_code for reply in (too_large, deep, private, bug)] == [413, 400, 200, 500]
    for reply in (too_large, deep, private, bug):
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
        assert reply.headers["cache-control"] == "no-store"


def test_json_is_stored_nowhere_and_still_costs_nothing_twice(client: TestClient, bench: Bench) -> None:
    given = bench.bearer(bench.token)
    first = client.get("/api/v1/live", **given)
    assert first.headers["cache-control"] == "no-store"
    given["headers"]["If-None-Match"] = first.headers["etag"]
    again = client.get("/api/v1/live", **given)
    assert (again.status_code, again.content) == (304, b"")
