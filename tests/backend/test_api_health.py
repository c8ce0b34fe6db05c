"""What Label Studio waits one and three seconds for: up, and which version; no model, no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.api.app import create_app
from backend.api.deps import WAIT_TO_DETECT
from backend.errors import CredentialsUnusable, DatabaseNotMigrated
from backend.label_studio.label_config import default_config
from backend.settings import Settings
from tests.backend.server import Bench

SETUP = {
    "project": "7.1700000000",
    "schema": default_config(),
    "hostname": "http://127.0.0.1:8080",
    "access_token": "0" * 40,
    "extra_params": None,
}


def test_up(client: TestClient) -> None:
    response = client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "UP"})


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("POST", "/setup"), ("POST", "/predict")])
@pytest.mark.parametrize("given", ["none", "wrong password", "no base64", "bearer"])
def test_basic_auth_guards_the_protocol(client: TestClient, bench: Bench, method: str, path: str, given: str) -> None:
    client.auth = (bench.credentials.basic_user, "guess") if given == "wrong password" else None
    headers = {"no base64": "Basic %%%", "bearer": f"Bearer {bench.token}"}
    json_body = None if method == "GET" else {**SETUP, **bench.body()}
    sent = {"Authorization": headers[given]} if given in headers else {}
    response = client.request(method, path, headers=sent, json=json_body)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Basic")
    assert "connect" in response.json()["error"]


def test_setup_names_the_serving_pair_and_follows_a_promotion(client: TestClient, bench: Bench) -> None:
    assert client.post("/setup", json=SETUP).json() == {"model_version": "cellloop-untrained"}
    assert client.get("/versions").json() == {"versions": []}
    first = bench.activate_pair()
    assert client.post("/setup", json=SETUP).json() == {"model_version": first.name}
    second = bench.promote_infected()
    assert client.post("/setup", json=SETUP).json() == {"model_version": second.name}
    assert client.get("/versions").json() == {"versions": [second.name]}
    assert first.name != second.name
    assert bench.pairs.loaded == [], "no model was loaded for it"


def test_setup_refuses_a_configuration_that_cannot_carry_cells(client: TestClient) -> None:
    response = client.post("/setup", json={**SETUP, "schema": '<View><Image name="i" value="$image"/></View>'})
    assert response.status_code == 422
    assert "project 7" in response.json()["error"]
    assert "RectangleLabels" in response.json()["error"]


def test_health_answers_while_every_thread_is_busy(client: TestClient, bench: Bench) -> None:
    # Hold the lock that detecting needs, and let more requests wait for it than the pool has threads.
    image = bench.add_image(1)
    bench.activate_pair()
    server = bench.server(client)
    answers: list[int] = []
    with server.detecting:
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/predict", json=bench.body(image)).status_code))
            for _ in range(45)
        ]
        for thread in threads:
            thread.start()
        assert client.get("/health").json() == {"status": "UP"}
        # A few wait for their turn; the others are told at once that the worker will do it, and free their threads.
        deadline = time.monotonic() + 30
        while len(answers) < 45 - 1 - WAIT_TO_DETECT and time.monotonic() < deadline:
            time.sleep(0.01)
        assert client.get("/versions").status_code == 200, "a route that needs a thread"
        assert len(answers) == 45 - 1 - WAIT_TO_DETECT
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 45
    assert len(bench.pairs.loaded) == 1


def test_starting_and_answering_needs_no_torch(bench: Bench) -> None:
    image = bench.add_image(1)
    bench.activate_pair()
    bench.predict(image)
    program = """
import json, sys
from fastapi.testclient import TestClient
from backend.api.app import create_app
from backend.api.deps import WAIT_TO_DETECT
from backend.settings import Settings
client = TestClient(create_app(Settings()))
user, password, setup, predict = json.load(sys.stdin)
client.auth = (user, password)
answers = [client.get("/health"), client.post("/setup", json=setup), client.post("/predict", json=predict)]
heavy = sorted({"torch", "torchvision", "timm"} & set(sys.modules))
regions = answers[2].json()["results"][0]["result"]
print(json.dumps({"codes": [a.status_code for a in answers], "heavy": heavy, "regions": len(regions)}))
"""
    environment = {
        **os.environ,
        "CELLLOOP_HOME": str(bench.settings.home),
        "CELLLOOP_DATABASE_URL": bench.settings.database_url,
        "CELLLOOP_LABEL_STUDIO_URL": bench.settings.label_studio_url,
    }
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps([*bench.basic, SETUP, bench.body(image)]), env=environment,
        capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"codes": [200, 200, 200], "heavy": [], "regions": 2}


def test_no_start_on_a_database_without_tables(tmp_path: Path) -> None:
    with pytest.raises(DatabaseNotMigrated, match="cellloop migrate"):
        create_app(Settings(home=tmp_path / "new"))


def test_no_start_with_secrets_that_others_can_read(bench: Bench) -> None:
    (bench.settings.home / "credentials.json").chmod(0o644)
    with pytest.raises(CredentialsUnusable, match="chmod 600"):
        bench.client()


def test_nothing_else_is_published(client: TestClient) -> None:
    for path in ("/docs", "/openapi.json", "/redoc", "/", "/train"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json()["error"] == "Not Found"
