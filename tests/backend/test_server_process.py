"""The server as it is run: uvicorn on a free loopback port, spoken to over real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from backend.api.app import create_app
from backend.errors import PortInUse
from backend.ports import require_free_port
from tests.backend.server import Bench, running


@pytest.fixture
def url(bench: Bench) -> Iterator[str]:
    with running(create_app(bench.settings, loader=bench.pairs)) as url:
        yield url


def test_the_protocol_over_the_wire(url: str, bench: Bench) -> None:
    image = bench.add_image(1)
    with httpx.Client(base_url=url, auth=bench.basic, timeout=30) as http:
        assert http.get("/health").json() == {"status": "UP"}
        assert http.post("/setup", json={"project": "7.1", "schema": bench.body()["label_config"]}).json() == {
            "model_version": "cellloop-untrained"
        }
        row = bench.activate_pair()
        (item,) = http.post("/predict", json=bench.body(image)).json()["results"]
        assert (item["model_version"], len(item["result"])) == (row.name, 2)
        assert http.post("/webhook", json={"action": "ANNOTATION_UPDATED"}).status_code == 202
        latest = bench.promote_infected()
        (item,) = http.post("/predict", json=bench.body(image)).json()["results"]
        assert item["model_version"] == latest.name


def test_health_takes_milliseconds(url: str, bench: Bench) -> None:
    with httpx.Client(base_url=url, auth=bench.basic) as http:
        http.get("/health")
        started = time.monotonic()
        for _ in range(20):
            assert http.get("/health").status_code == 200
        assert (time.monotonic() - started) / 20 < 0.1


def test_a_second_server_is_told_that_the_port_is_taken(url: str) -> None:
    with pytest.raises(PortInUse, match="CELLLOOP_PORT"):
        require_free_port("127.0.0.1", int(url.rsplit(":", 1)[1]))
