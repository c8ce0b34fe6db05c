"""No secret is seen by other users of the machine, or kept in a log: both servers are run, used and misused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from backend.credentials import Credentials, load_credentials
from backend.crop_address import crop_name
from backend.label_studio.connections import ensure_ml_backend, ensure_webhook
from backend.label_studio.label_config import default_config
from backend.tokens import issue
from db.session import Database
from db.tokens import Scope
from tests.label_studio_fixture import RunningLabelStudio, free_port

REPOSITORY = Path(__file__).resolve().parent.parent
PUBLIC = {"label_studio_email", "basic_user"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def url(home: Path, sqlite_url: str, label_studio: RunningLabelStudio) -> Iterator[str]:
    """`cellloop serve` as a process, saying everything it ever says into `said`."""
    port = free_port()
    settings = {
        "CELLLOOP_HOME": str(home), "CELLLOOP_DATABASE_URL": sqlite_url, "CELLLOOP_PORT": str(port),
        "CELLLOOP_LABEL_STUDIO_URL": label_studio.url, "CELLLOOP_LABEL_STUDIO_TOKEN": label_studio.token,
    }  # fmt: skip
    with (home.parent / "said").open("w") as said:
        command = [sys.executable, "-m", "scripts.cli", "serve"]
        with subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | settings, stdout=said, stderr=said) as process:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while not _up(address):
                assert process.poll() is None, (home.parent / "said").read_text()
                assert time.monotonic() < deadline, "the server did not start within 60 s"
                time.sleep(0.05)
            yield address
            process.terminate()


def _up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/live", timeout=1.0).is_success
    except httpx.HTTPError:
        return False


def test_secrets_stay_secret(home: Path, url: str, sqlite_url: str, label_studio: RunningLabelStudio) -> None:
    credentials, database = load_credentials(home), Database(sqlite_url)
    token = issue(database, "ada", Scope.operate).text
    secrets = {name: value for name, value in asdict(credentials).items() if value and name not in PUBLIC}
    secrets |= {"token": token, "their token": label_studio.token, "their password": label_studio.password}
    secrets |= _use(url, credentials, token)
    _meet(url, credentials, label_studio)
    assert len(secrets) >= 12
    assert _seen(secrets, "\0".join(_command_lines())) == []
    logs = {"serve": home.parent / "said", "Label Studio": label_studio.server.config.log}
    for name, log in logs.items():
        text = log.read_text(errors="replace")
        assert len(text) > 100, name
        assert _seen(secrets, text) == [], name
    for name, value in secrets.items():
        holders = [
            path.name for path in home.parent.rglob("*") if path.is_file() and value.encode() in path.read_bytes()
        ]
        assert set(holders) <= {"credentials.json"}, name
    database.dispose()


def _use(url: str, credentials: Credentials, token: str) -> dict[str, str]:
    """Right and wrong requests of every kind; the secrets of the session they made."""
    basic = (credentials.basic_user, credentials.basic_password)
    crop = crop_name(7, credentials.crop_key)
    with httpx.Client(base_url=url, follow_redirects=True) as http:
        http.post("/dashboard/login", data={"token": f"{token}x"}, headers={"Origin": url})
        http.post("/dashboard/login", data={"token": token}, headers={"Origin": url})
        (cookie,) = http.cookies.jar
        assert cookie.value
        page = http.get("/dashboard").text
        form = page.partition('name="form" value="')[2].partition('"')[0]
        http.post("/dashboard/retrain", data={"form": form}, headers={"Origin": url}).raise_for_status()
        http.post("/dashboard/retrain", data={"form": form}, headers={"Origin": "https://evil.example"})
        for path in ("/crops/" + crop, f"/api/v1/history/cells?cell={token}", "/dashboard/images/x"):
            http.get(path, headers={"Authorization": f"Bearer {token}"})
        http.get("/health", auth=(basic[0], basic[1] + "x"))
        http.post("/predict", auth=basic, content=b'{"tasks": "' + basic[1].encode() + b'"}')
        task = {"id": 1, "data": {"image": "/data/upload/1/missing.png"}}
        body = {"tasks": [task], "project": "1.1", "label_config": default_config(), "params": {}}
        http.post("/predict", auth=basic, json=body)
        http.post("/setup", auth=basic, json={"project": "1.1", "schema": f"<View>{basic[1]}"})
        bearer = {"Authorization": f"Bearer {credentials.webhook_secret}"}
        http.post("/webhook", headers=bearer, json={"action": 7, "token": token})
    return {"session": cookie.value, "form": form, "crop": crop.partition("-")[2].removesuffix(".jpg")}


def _meet(url: str, credentials: Credentials, label_studio: RunningLabelStudio) -> None:
    """Label Studio is told our secrets, and calls us with them; it refuses a broken request that holds them."""
    studio = label_studio.client()
    project = studio.create_project("secrets", default_config()).id
    backend = ensure_ml_backend(studio, project, url, credentials.basic_user, credentials.basic_password)
    ensure_webhook(studio, project, f"{url}/webhook", credentials.webhook_headers)
    (task,) = studio.import_tasks(project, [{"image": "/data/local-files/?d=../credentials.json"}])
    studio.transport.get(f"/api/tasks/{task}/", project=project)
    label_studio.expert().submit(task, [])
    with pytest.raises(Exception, match="refuses"):
        ensure_ml_backend(studio, project, f"{url}/nowhere", credentials.basic_user, credentials.basic_password)
    studio.transport.delete(f"/api/ml/{backend}")
    studio.delete_project(project)


def _command_lines() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue


def _seen(secrets: dict[str, str], text: str) -> list[str]:
    """Names of the secrets in this text."""
    return [name for name, value in secrets.items() if value in text]
