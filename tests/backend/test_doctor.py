"""The doctor on a healthy installation, and on one with each thing broken in turn."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from backend import doctor_label_studio, doctor_machine
from backend.credentials import credentials_file, load_credentials
from backend.doctor import diagnose
from backend.findings import Finding
from backend.label_studio.connections import ensure_webhook
from backend.label_studio.label_config import default_config
from backend.last_backup import note_backup
from backend.settings import Settings
from backend.store import FileStore
from db import images, migrate, projects, runs, versions
from db.models import ApiToken, TrainingRun, Worker, now
from db.session import Database
from tests.label_studio_fixture import RunningLabelStudio

BACKEND = "http://127.0.0.1:9090"


class LabelStudioStandIn:
    """Answers the five addresses the doctor asks, from a table that a test may change."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.recover()
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers.get(self.path.split("?")[0], (404, {"detail": "Not found."}))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                """Nothing: the test's own output is enough."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def recover(self) -> None:
        """Healthy again, whatever a test made of it."""
        self.answers.clear()
        self.answers |= {
            "/api/current-user/whoami": (200, {"email": "expert@cellloop.local"}),
            "/api/projects/5/": (200, {"title": "cellloop", "sampling": "Uncertainty sampling"}),
            "/api/ml/": (200, [{"url": BACKEND, "state": "CO"}]),
            "/api/webhooks/": (200, [{"url": BACKEND + "/webhook", "is_active": True}]),
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def stand_in_server() -> Iterator[LabelStudioStandIn]:
    running = LabelStudioStandIn()
    yield running
    running.close()


@pytest.fixture
def stand_in(stand_in_server: LabelStudioStandIn) -> LabelStudioStandIn:
    stand_in_server.recover()
    return stand_in_server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def healthy_home(tmp_path_factory: pytest.TempPathFactory, stand_in_server: LabelStudioStandIn) -> Path:
    """A healthy installation: migrated, one image, both models, one connected project."""
    made = Settings(home=tmp_path_factory.mktemp("healthy") / "home")
    load_credentials(made.home)
    migrate.upgrade(made.database_url)
    store, database = FileStore(made.files), Database(made.database_url)
    image = store.put_bytes("images", b"a smear", ".png")
    with database.session() as session:
        named = {"sha256": image.sha256, "file": image.file, "name": "a.png", "group": "a", "dataset": "d"}
        images.add_image(session, **named, width=4, height=4, split="train")
        for role in ("all_cells", "infected"):
            weights = store.put_bytes("weights", role.encode(), ".safetensors")
            made_of = {"config": {}, "manifest": {}, "manifest_sha256": "0" * 64, "environment": {}}
            version = versions.add_version(session, role=role, weights_sha256=weights.sha256, **made_of)
            versions.activate(session, version.id, kind="first", reasons=["first"])
        projects.upsert_project(
            session, url=stand_in_server.url, ls_project_id=5, title="cellloop", label_config="<View/>"
        )
    database.dispose()
    return made.home


@pytest.fixture
def settings(tmp_path: Path, healthy_home: Path, stand_in: LabelStudioStandIn) -> Settings:
    """A copy of the healthy installation, for a test to spoil."""
    home = shutil.copytree(healthy_home, tmp_path / "home")
    note_backup(home, now())
    with Database(f"sqlite:///{home / 'cellloop.sqlite'}").session() as session:
        session.add(Worker(name="w", host="here", pid=1, queues=["train", "predict", "sync"]))
    return Settings(home=home, port=free_port(), label_studio_url=stand_in.url, backend_url=BACKEND, device="cpu")


def examine(settings: Settings) -> dict[str, Finding]:
    return {finding.about: finding for finding in diagnose(settings, Path("label-studio"))}


def test_healthy_installation(settings: Settings) -> None:
    found = examine(settings)
    assert {about: f.found for about, f in found.items() if f.state == "broken"} == {}
    assert {about for about, f in found.items() if f.state == "notice"} <= {"home"}
    assert "1 train" in found["images"].found
    assert "expert@cellloop.local" in found["label studio"].found
    assert {"model all_cells", "model infected", "project 5 backend", "project 5 webhook"} <= set(found)


def test_what_runs_unattended_and_has_stopped(settings: Settings) -> None:
    long_ago = now() - timedelta(days=9)
    note_backup(settings.home, long_ago)
    database = Database(settings.database_url)
    with database.session() as session:
        session.query(Worker).one().beat_at = long_ago
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        session.add(ApiToken(name="grafana", scope="read", token_sha256="0" * 64, expires_at=now() + timedelta(days=3)))
    with database.session() as session:
        session.execute(update(TrainingRun).values(updated_at=long_ago))
    database.dispose()
    found = examine(settings)
    said = {about: found[about].found for about in ("workers", "runs", "tokens", "backup")}
    assert said == {
        "workers": "none takes from train, predict, sync",
        "runs": f"run {run.id} of infected has waited for 9 d",
        "tokens": "'grafana' ends in 3 d",
        "backup": "of 9 d ago",
    }
    assert {found[about].state for about in said} == {"notice"}
    assert all(found[about].mend for about in said)


def test_untouched_home_is_told_what_to_do_and_stays_untouched(tmp_path: Path) -> None:
    home = tmp_path / "home"
    found = examine(Settings(home=home, port=free_port()))
    assert found["database"].state == "broken"
    assert found["database"].mend == "run: cellloop migrate"
    assert "images" not in found
    assert found["label studio"].state == "notice"
    assert not home.exists()


def test_older_tables(settings: Settings) -> None:
    migrate.downgrade(settings.database_url, "base")
    found = examine(settings)
    assert found["database"].state == "broken"
    assert "cellloop migrate" in found["database"].mend


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://somewhere/x", "expected SQLite or PostgreSQL"),
        ("postgresql://nobody:geheim@127.0.0.1:1/x", "does not answer"),
    ],
)
def test_unusable_database_is_named_without_its_password(tmp_path: Path, url: str, said: str) -> None:
    found = examine(Settings(home=tmp_path, database_url=url, port=free_port()))["database"]
    assert found.state == "broken"
    assert said in found.found
    assert "geheim" not in found.found + found.mend


def test_damaged_weights_are_found_by_their_bytes(settings: Settings) -> None:
    for file in (settings.files / "weights").rglob("*.safetensors"):
        file.write_bytes(b"something else")
    found = examine(settings)
    assert found["model infected"].state == "broken"
    assert "cellloop rollback --role infected" in found["model infected"].mend


def test_missing_image_file(settings: Settings) -> None:
    for file in (settings.files / "images").rglob("*.png"):
        file.unlink()
    assert examine(settings)["images"].state == "broken"


def test_credentials_that_others_can_read(settings: Settings) -> None:
    credentials_file(settings.home).chmod(0o644)
    found = examine(settings)["credentials"]
    assert found.state == "broken"
    assert "chmod 600" in found.mend


def test_port_held_by_a_stranger(settings: Settings, stand_in: LabelStudioStandIn) -> None:
    taken = settings.model_copy(update={"port": stand_in.server.server_port})
    found = examine(taken)["port"]
    assert found.state == "broken"
    assert "CELLLOOP_PORT" in found.mend


def test_backend_of_this_home_may_hold_the_port(settings: Settings, stand_in: LabelStudioStandIn) -> None:
    stand_in.answers["/health"] = (200, {"status": "UP"})
    found = examine(settings.model_copy(update={"port": stand_in.server.server_port}))["port"]
    assert found.state == "ok"


def test_listening_beyond_loopback_is_said(settings: Settings) -> None:
    assert examine(settings.model_copy(update={"host": "0.0.0.0"}))["exposure"].state == "notice"


@pytest.mark.parametrize(
    ("path", "answer", "about", "in_mend"),
    [
        (
            "/api/current-user/whoami",
            (401, {"detail": "Invalid token."}),
            "label studio",
            "CELLLOOP_LABEL_STUDIO_TOKEN",
        ),
        ("/api/current-user/whoami", (500, {}), "label studio", "label-studio start"),
        ("/api/projects/5/", (404, {}), "project 5", "label-studio connect"),
        ("/api/projects/5/", (200, {"title": "x", "sampling": "Sequential sampling"}), "project 5", "connect"),
        ("/api/ml/", (200, []), "project 5 backend", "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS"),
        ("/api/ml/", (200, [{"url": BACKEND, "state": "ER"}]), "project 5 backend", "BANNED_SUBNETS"),
    ],
)
def test_label_studio_trouble(
    settings: Settings, stand_in: LabelStudioStandIn, path: str, answer: tuple[int, Any], about: str, in_mend: str
) -> None:
    stand_in.answers[path] = answer
    found = examine(settings)[about]
    assert found.state == "broken"
    assert in_mend in found.mend


def test_no_webhook_is_worth_knowing(settings: Settings, stand_in: LabelStudioStandIn) -> None:
    stand_in.answers["/api/webhooks/"] = (200, [{"url": BACKEND + "/webhook", "is_active": False}])
    assert examine(settings)["project 5 webhook"].state == "notice"


def test_label_studio_may_be_down_before_anything_is_connected(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, label_studio_url=f"http://127.0.0.1:{free_port()}", label_studio_token="0" * 40)
    states = [f.state for f in doctor_label_studio.check(settings, None, None, []) if f.about == "label studio"]
    assert states == ["notice"]
    states = [f.state for f in doctor_label_studio.check(settings, None, None, [5]) if f.about == "label studio"]
    assert states == ["broken"]


def test_real_label_studio_answers_what_the_doctor_asks(tmp_path: Path, label_studio: RunningLabelStudio) -> None:
    studio = label_studio.client()
    project = studio.create_project("for the doctor", default_config())
    hook = BACKEND + "/webhook"
    ensure_webhook(studio, project.id, hook, {"Authorization": "Bearer x"})
    settings = Settings(
        home=tmp_path, label_studio_url=label_studio.url, label_studio_token=label_studio.token, backend_url=BACKEND
    )
    found = {f.about: f for f in doctor_label_studio.check(settings, None, None, [project.id])}
    assert label_studio.email in found["label studio"].found
    assert found[f"project {project.id}"].state == "ok"
    assert found[f"project {project.id} backend"].state == "broken"
    assert found[f"project {project.id} webhook"].found == hook
    studio.delete_project(project.id)
    (_, _, gone) = doctor_label_studio.check(settings, None, None, [project.id])
    assert "deleted" in gone.found
    refused = settings.model_copy(update={"label_studio_token": "f" * 40})
    assert [f.state for f in doctor_label_studio.check(refused, None, None, [])] == ["notice", "broken"]


def test_machine_checks_say_how_to_mend(tmp_path: Path) -> None:
    assert doctor_machine.check_python((3, 10, 4)).state == "broken"
    assert doctor_machine.check_python((3, 12, 1)).state == "ok"
    file = tmp_path / "file"
    file.touch()
    assert doctor_machine.check_home(file / "home").state == "broken"
    assert doctor_machine.check_torch("mps").state == "broken"


def test_whatever_is_broken_comes_with_a_mend() -> None:
    with pytest.raises(ValueError, match="how to mend"):
        Finding("port", "broken", "taken", "")
