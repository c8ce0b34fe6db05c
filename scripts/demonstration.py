"""The demonstration: every part started in order on loopback, and ended together.

Everything it makes lies in the home folder (CELLLOOP_HOME), so that a second start finds it and takes seconds.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from al_loop import (
    calibrate_pair,
    connect,
    import_images,
    preannotate_pool,
    push,
    rank,
    rendered,
    starter_install,
)
from al_loop.context import Loop
from backend.errors import CellloopError, UnusableAnnotations
from backend.home import prepare_home
from backend.instances import ROLES
from backend.label_studio.server import LabelStudioServer
from backend.pairs import CARD, STARTER
from backend.ports import free_port, require_free_port
from backend.tokens import issue
from db import images, projects, runs, tokens, versions
from db.migrate import upgrade
from db.models import Project, Way
from scripts import console
from scripts.composition import label_studio_config, open_loop, read_settings
from scripts.demonstration_expert import scripted_reviews
from scripts.processes import Child
from scripts.summary import print_addresses, print_summary

RENDERED_FIELDS = 48
LABEL_SHARE = 0.4  # of the train images come labelled, for the first models; the rest are the pool to review
# A demonstration has some 20 images to review: half of their infected cells are enough for a retraining.
# 200 steps take under four minutes of one processor: enough for pre-annotations worth correcting.
DEFAULTS = {
    "CELLLOOP_TRAIN_STEPS": "200",
    "CELLLOOP_RETRAIN_AFTER": "20",
    "CELLLOOP_RETRAIN_COOLDOWN_S": "60",
    "CELLLOOP_POLL_S": "5",
}
TOKEN = "demonstration"
FEW_PROCESSORS = 4  # here, a second thread of a training only takes the time of those who answer experts


@dataclass(frozen=True)
class Wishes:
    """What the command line asked for."""

    data: Path | None
    scripted: bool
    once: bool
    steps: int | None
    port: int | None
    label_studio_port: int | None
    train_first: bool = False


def demonstrate(wishes: Wishes) -> None:
    """Bring everything up, let the scripted expert work if asked for, stay until Ctrl-C or `once` is done."""
    if wishes.data is not None and not wishes.data.exists():
        raise UnusableAnnotations(f"--data: expected a folder or zip, {wishes.data} is not there")
    _decide_environment(wishes)
    settings = read_settings()
    upgrade(settings.database_url)
    loop = open_loop()
    with ExitStack() as stack:
        studio = _label_studio(stack)
        source = _smears(loop, wishes)
        _first_models(loop, wishes)
        studio.join()
        _backend(stack, loop)
        project = _project(loop)
        worker = _child(stack, loop, "worker")
        print_addresses(loop, project, _token(loop))
        if wishes.scripted:
            run = scripted_reviews(loop, project, source, worker)
            if wishes.once:
                print_summary(loop, project, run)
                return
        try:
            print("Ctrl-C ends everything that was started here.", flush=True)
            while True:
                worker.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            print("stopping", flush=True)


def _decide_environment(wishes: Wishes) -> None:
    """Ports and pace, for this process and its children. Ports are kept with the home: addresses stay good."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if wishes.steps is not None:
        os.environ["CELLLOOP_TRAIN_STEPS"] = str(wishes.steps)
    home = read_settings().home
    note = home / "ports.json"
    kept = json.loads(note.read_text()) if note.exists() else {}
    ports = {
        "backend": wishes.port or kept.get("backend") or free_port("127.0.0.1", 9090),
        "label_studio": wishes.label_studio_port or kept.get("label_studio") or free_port("127.0.0.1", 8080),
    }
    for port in ports.values():
        require_free_port("127.0.0.1", port)
    prepare_home(home)
    note.write_text(json.dumps(ports))
    os.environ["CELLLOOP_HOME"] = str(home)
    os.environ["CELLLOOP_PORT"] = str(ports["backend"])
    os.environ["CELLLOOP_LABEL_STUDIO_URL"] = f"http://127.0.0.1:{ports['label_studio']}"


class _Starting(threading.Thread):
    """Label Studio's first start takes half a minute: meanwhile smears come in and models train."""

    def __init__(self, server: LabelStudioServer) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.server.start()
        except CellloopError as error:
            self.error = error

    def join(self, timeout: float | None = None) -> None:
        with console.told("waiting for Label Studio"):
            super().join(timeout)
        if self.error is not None:
            raise self.error


def _label_studio(stack: ExitStack) -> _Starting:
    server = LabelStudioServer(label_studio_config(read_settings()))
    stack.callback(server.stop)
    starting = _Starting(server)
    starting.start()
    return starting


def _smears(loop: Loop, wishes: Wishes) -> Path:
    """Import what was asked for, once; where it lies."""
    source = (wishes.data or loop.settings.home / "rendered").resolve()
    with loop.database.session(read_only=True) as session:
        known = any(row.source == str(source) for row in images.imports(session))
    if known:
        return source
    if wishes.data is None:
        with console.told(f"rendering {RENDERED_FIELDS} smears"), console.progress("rendering") as advance:
            rendered.write_coco_folder(
                source, RENDERED_FIELDS, on_progress=lambda done, total: advance(done, total, "")
            )
    with console.told(f"importing {source.name}"), console.progress("importing") as advance:
        report = import_images.import_images(
            loop.database, loop.store, source, label_share=LABEL_SHARE, on_progress=advance
        )
    print(*report.lines(), sep="\n", flush=True)
    return source


def _first_models(loop: Loop, wishes: Wishes) -> None:
    """The starter weights, where they came along; else train both roles side by side, one processor each."""
    with loop.database.session(read_only=True) as session:
        missing = [role for role in ROLES if versions.active(session, role) is None]
    if missing and not wishes.train_first and (STARTER / CARD).exists():
        with console.told("installing the starter weights"):
            starter_install.install_starter(loop)
        missing = []
    with ExitStack() as stack:
        children = {}
        for role in missing:
            children[role] = _child(stack, loop, "train", "--role", role)
        if children:
            with console.told(f"training the first {' and '.join(missing)}"):
                _watch_training(loop, children)
    calibrate_pair.ensure_pair(loop)
    with console.told("pre-annotating"), console.progress("pre-annotating") as advance:
        preannotate_pool.preannotate_pool(loop, lambda done, total: advance(done, total, ""))
    rank.rank(loop.database)


def _watch_training(loop: Loop, children: dict[str, Child]) -> None:
    with ExitStack() as stack:
        bars = {role: stack.enter_context(console.progress(role)) for role in list(children)[:1]}
        while any(child.process.poll() is None for child in children.values()):
            with loop.database.session(read_only=True) as session:
                found = [runs.latest(session, role) for role in children]
            done, total = sum(run.step for run in found if run), sum(run.steps for run in found if run)
            for advance in bars.values():
                advance(done, total, " | ".join(f"{run.role}: {run.message}" for run in found if run))
            time.sleep(0.5)
    for child in children.values():
        child.check()


def _child(stack: ExitStack, loop: Loop, verb: str, *arguments: str) -> Child:
    environment = {"OMP_NUM_THREADS": "1"} if (os.cpu_count() or 1) <= FEW_PROCESSORS else {}
    name = "-".join([verb, *(part for part in arguments if not part.startswith("-"))])
    child = Child(name, [verb, *arguments], environment, loop.settings.home / "logs" / f"{name}.log")
    stack.callback(child.stop)
    return child


def _backend(stack: ExitStack, loop: Loop) -> None:
    child = _child(stack, loop, "serve")
    login = (loop.credentials.basic_user, loop.credentials.basic_password)

    def up() -> bool:
        try:
            return httpx.get(f"{loop.settings.backend_url}/health", auth=login, timeout=1.0).is_success
        except httpx.HTTPError:
            return False

    child.wait(up, timeout_s=60)


def _token(loop: Loop) -> str:
    """A token to sign in with. Its text is kept nowhere, so every start makes one, and ends the one before."""
    with loop.database.session() as session:
        tokens.revoke_named(session, TOKEN)
    return issue(loop.database, TOKEN, tokens.Scope.operate).text


def _project(loop: Loop) -> Project:
    studio = loop.label_studio()
    project = connect.connect(loop, studio)
    with console.told("pushing predictions and order"), console.progress("pushing") as advance:
        report = push.push(loop, studio, project, lambda done, total: advance(done, total, ""))
    print(f"pushed {report.predictions} predictions of {report.model_version}, {report.tasks} new tasks", flush=True)
    with loop.database.session(read_only=True) as session:
        cells = projects.project(session, project.url, way=Way.cell)
    if cells is not None:
        waiting = push.push(loop, studio, cells)
        print(f"pushed {waiting.tasks} cells to be reviewed one by one", flush=True)
    return project
