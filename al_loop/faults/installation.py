"""One installation under test: a home, two models trained for a moment, our processes, and proxies on every way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.engine import make_url

from al_loop.connect import connect
from al_loop.context import Loop
from al_loop.faults.children import Child, Run, any_port, command, wait_until
from al_loop.faults.http_proxy import HttpProxy
from al_loop.faults.studio import Studio
from al_loop.faults.tcp_proxy import TcpProxy
from al_loop.first_models import train_here
from al_loop.import_images import import_images
from al_loop.preannotate_pool import preannotate_pool
from al_loop.push import push
from al_loop.rank import rank
from al_loop.rendered import write_coco_folder
from backend.credentials import load_credentials
from backend.label_studio.transport import trusted
from backend.settings import Settings
from backend.store import FileStore
from db import projects
from db.migrate import upgrade
from db.models import Project
from db.session import Database

UP_S, COMMAND_S = 180.0, 120.0
FIELDS, SIZE, CELLS = 24, (96, 128), 6

# Detectors trained for a moment differ by chance: the gate lets them pass, so that promotions happen.
TINY: dict[str, Any] = {
    "device": "cpu",
    "short_side": 96,
    "train_crop": 64,
    "train_batch": 2,
    "train_steps": 3,
    "gate_delta": 1.0,
    "gate_most_wrong": 1.0,
    "retrain_after": 1e6,
    "retrain_cooldown_s": 0.0,
    "poll_s": 0.3,
    "label_studio_timeout_s": 4.0,
}


class Installation:
    """loop: the harness's own view, past every proxy but that to Label Studio's address (projects go by it).

    restart_database: the command that restarts PostgreSQL, if anybody said.
    """

    def __init__(
        self, folder: Path, database_url: str, studio: Studio, run: Run, restart_database: Sequence[str] = ()
    ) -> None:
        self.folder, self.studio, self._run = folder, studio, run
        self.restart_database = restart_database
        self.home = folder / "home"
        self.source = folder / "source"
        self.port = any_port()
        self.to_studio = HttpProxy(studio.port)
        self.to_backend = HttpProxy(self.port)
        self.to_database = _proxy_before(database_url)
        self.settings = Settings(
            home=self.home,
            database_url=database_url,
            port=self.port,
            backend_url=self.to_backend.url,
            label_studio_url=self.to_studio.url,
            label_studio_token=studio.token,
            **TINY,
        )
        self.home.mkdir(parents=True, exist_ok=True)
        credentials = load_credentials(self.home)
        self.loop = Loop(self.settings, Database(database_url), FileStore(self.settings.files), credentials)
        self.server = self.child("serve", ["serve"])
        names = ["worker"] if self.embedded else ["worker", "second-worker"]
        self.workers = [self.child(name, ["worker"]) for name in names]
        self.others: list[Child] = []

    @property
    def embedded(self) -> bool:
        """Whether the record is SQLite's."""
        return self.to_database is None

    def child(self, name: str, arguments: Sequence[str], **environment: str) -> Child:
        """A `cellloop` command of this installation, not started yet."""
        return command(self._run, name, self.folder, arguments, {**self.environment(), **environment})

    def environment(self) -> Mapping[str, str]:
        """What our processes are told."""
        told = {
            "home": self.home,
            "database_url": _through(self.settings.database_url, self.to_database),
            "port": self.port,
            "backend_url": self.to_backend.url,
            "label_studio_url": self.to_studio.url,
            "label_studio_token": self.studio.token,
            **TINY,
        }
        return {f"CELLLOOP_{name.upper()}": str(value) for name, value in told.items()}

    def prepare(self, on_step: Callable[[str], None] = lambda step: None) -> None:
        """Smears, both models, predictions and an order in Label Studio; our processes up."""
        on_step("preparing an installation")
        loop = self.loop
        upgrade(self.settings.database_url)
        write_coco_folder(self.source, FIELDS, size=SIZE, cells=CELLS, infected=0.5)
        import_images(loop.database, loop.store, self.source, label_share=0.3)
        for role in ("all_cells", "infected"):
            train_here(loop, role)
        preannotate_pool(loop)
        rank(loop.database)
        self.studio.start()
        self.server.start()
        wait_until(self.serves, UP_S, "the server answers")
        client = loop.label_studio()
        push(loop, client, connect(loop, client))
        self.start()

    def start(self) -> list[str]:
        """Start whatever does not run, as a supervisor would; which of our processes did not."""
        self.studio.start()
        return [child.name for child in (self.server, *self.workers) if child.start()]

    def clocks_right(self) -> None:
        """Put every clock right."""
        for child in (self.server, *self.workers):
            child.disarm("clock_s")
        self.studio.jump(0.0)

    def serves(self, port: int | None = None) -> bool:
        """Whether the server, or the one on this port, says that it is up."""
        login = (self.loop.credentials.basic_user, self.loop.credentials.basic_password)
        address = f"http://127.0.0.1:{port or self.port}/health"
        try:
            answer = httpx.get(address, auth=login, timeout=2.0, trust_env=False, verify=trusted())
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def command(self, *arguments: str) -> str:
        """Run a `cellloop` command to its end; what it printed."""
        child = self.child(f"command-{len(list(self.folder.glob('command-*.log')))}", arguments)
        child.start()
        child.join(COMMAND_S)
        return child.tail()

    def doctor(self) -> dict[str, str]:
        """The doctor's advice by what it is about; of what is broken only."""
        report = json.loads(self.command("doctor", "--json"))
        return {found["about"]: found["mend"] for found in report["findings"] if found["state"] == "broken"}

    @property
    def projects(self) -> Sequence[Project]:
        """The projects we serve."""
        with self.loop.database.session(read_only=True) as session:
            return projects.projects(session, self.to_studio.url)

    def files(self, kind: str) -> list[Path]:
        """Stored files of this kind."""
        return sorted(path for path in (self.settings.files / kind).glob("*/*") if not path.name.startswith("."))

    def close(self) -> None:
        """End everything that was started."""
        for child in (*self.others, *self.workers, self.server):
            child.kill()
        self.studio.kill()
        for proxy in (self.to_studio, self.to_backend, self.to_database):
            if proxy is not None:
                proxy.down()
        self.loop.database.dispose()


def _proxy_before(database_url: str) -> TcpProxy | None:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return None
    host, port = str(url.query.get("host") or url.host or "127.0.0.1"), url.port or 5432
    return TcpProxy(os.path.join(host, f".s.PGSQL.{port}") if host.startswith("/") else (host, port))


def _through(database_url: str, proxy: TcpProxy | None) -> str:
    """The address of the database behind the proxy."""
    if proxy is None:
        return database_url
    url = make_url(database_url).difference_update_query(["host"])
    return url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)


@contextmanager
def backed_up(path: Path) -> Iterator[Path]:
    """A copy of a file beside its folder, as a backup has it, gone after the block."""
    copy = path.with_name(f".backup-{path.name}")
    shutil.copyfile(path, copy)
    try:
        yield copy
    finally:
        copy.unlink(missing_ok=True)
