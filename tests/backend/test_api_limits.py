"""Bodies that are meant to hurt: huge, endless, deeply nested, in another encoding. Refused before they are parsed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.api.limits import DEEPEST, STRANGERS_BYTES, nested_too_deep
from tests.backend.server import Bench


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return f"{opening * depth}{closing * depth}".encode()


@pytest.mark.parametrize(
    ("body", "too_deep"),
    [
        (nested(DEEPEST), False),
        (nested(DEEPEST + 1), True),
        (nested(DEEPEST + 1, '{"a":', "}").replace(b":}", b":1}"), True),
        (nested(DEEPEST // 2, '[{"a":', "}]").replace(b":}", b":1}"), False),
        (nested(100_000), True),
        (b"[" * 100_000, True),  # never closed
        (json.dumps([[]] * 10_000).encode(), False),
        (json.dumps(["[" * 100_000, "{[" * 200, '\\"[[' * 200]).encode(), False),  # in strings, they are text
        (json.dumps(["]" * 100, "\\", '"']).encode()[:-1] + b"," + nested(DEEPEST) + b"]", True),  # no hiding
        (nested(DEEPEST + 1).decode().encode("utf-16"), True),
        (b'"a\0b"', True),
        (b"", False),
    ],
)
def test_depth_is_known_without_parsing(body: bytes, too_deep: bool) -> None:
    assert nested_too_deep(body) is too_deep


def test_looking_for_depth_costs_little() -> None:
    cell = {"value": {"x": 1.5, "y": 2.5, "rectanglelabels": ["red blood cell"]}, "meta": {"text": ['"both"']}}
    body = json.dumps({"tasks": [{"annotations": [{"result": [cell] * 100}]}] * 200}).encode()
    began = time.perf_counter()
    assert not nested_too_deep(body)
    looked = time.perf_counter() - began
    began = time.perf_counter()
    json.loads(body)
    assert looked < time.perf_counter() - began, "less than parsing it"


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook", "/api/v1/queue/take"])
def test_deep_json_is_refused_everywhere(client: TestClient, bench: Bench, path: str) -> None:
    ways = [{}, bench.bearer(bench.token)] if path.startswith("/api") else [{}]
    for way in ways:
        for body in (nested(2_000), b'{"action": ' + nested(2_000) + b"}", nested(2_000).decode().encode("utf-16-le")):
            answer = client.post(path, content=body, **{**way, "headers": {**way.get("headers", {}), **JSON}})
            assert answer.status_code == 400, answer.text
            assert "nested at most" in answer.json()["error"]


def test_what_is_echoed_may_be_as_deep_as_allowed(client: TestClient, bench: Bench) -> None:
    bench.activate_pair()
    drawing = json.loads(nested(DEEPEST - 4))
    body = bench.body(bench.add_image(1), params={"context": {"result": drawing}})
    assert client.post("/predict", json=body).json()["results"][0]["result"] == drawing


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/predict", "/webhook", "/dashboard/login", "/api/v1/queue/take", "/nowhere"])
def test_of_strangers_little_is_read(client: TestClient, bench: Bench, path: str) -> None:
    client.auth = None
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100 * STRANGERS_BYTES:
            sent += 4096
            yield b"A" * 4096

    read = 0

    async def ask(headers: dict[str, Any]) -> int:
        """The app over bare ASGI, so that it shows how much was taken."""
        status = 0
        blocks = endless()

        async def receive() -> dict[str, Any]:
            nonlocal read
            block = next(blocks)
            read += len(block)
            return {"type": "http.request", "body": block, "more_body": True}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)

        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "scheme": "http", "http_version": "1.1", "server": ("testserver", 80),
            "client": ("127.0.0.1", 1), "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }  # fmt: skip
        await client.app(scope, receive, send)  # type: ignore[arg-type]
        return status

    assert client.portal is not None
    assert client.portal.call(ask, {}) == 413
    assert read <= STRANGERS_BYTES + 4096
    read = 0
    assert client.portal.call(ask, {"Content-Length": str(10**12)}) == 413
    assert read == 0
    wrong = bench.bearer(bench.credentials.webhook_secret[:-1])["headers"]
    assert client.portal.call(ask, wrong) == 413
    assert read <= STRANGERS_BYTES + 4096


def test_label_studio_may_send_what_it_has(client: TestClient, bench: Bench) -> None:
    payload = {"action": "ANNOTATION_CREATED", "annotation": {"result": ["A" * 100] * 5000}}
    assert client.post("/webhook", json=payload).status_code == 202
    assert client.post("/webhook", json=payload, **bench.bearer(bench.credentials.webhook_secret)).status_code == 202
