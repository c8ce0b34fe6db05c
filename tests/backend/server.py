"""A server over real rows and real files in one temporary home, with detectors that need no training."""

from __future__ import annotations

import base64
import functools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert

from backend.api.app import create_app
from backend.api.deps import Server
from backend.credentials import Credentials, load_credentials
from backend.fuse import FusionConfig
from backend.label_studio.label_config import default_config
from backend.preannotate import Pair
from backend.serving import Served, predict_and_store
from backend.settings import Settings
from backend.store import FileStore
from backend.tokens import issue
from db import images, versions
from db.answers import ServingPair, serving_pair
from db.models import Cell, Image, PredictedCell, Prediction
from db.session import Database
from db.tokens import Scope
from tests import builders
from tests.backend.smears import HEIGHT, WIDTH, DiscDetector, png
from tests.label_studio_fixture import free_port

LABEL_STUDIO = "http://127.0.0.1:8999"


@dataclass
class DiscPairs:
    """A pair loader that builds disc detectors, and remembers which pairs it loaded."""

    loaded: list[str] = field(default_factory=list)

    def __call__(self, row: ServingPair) -> Pair:
        self.loaded.append(row.name)
        tint = 0.01 * (row.infected_id % 50)  # ids go on counting on PostgreSQL
        return Pair(row.name, DiscDetector("all_cells", tint), DiscDetector("infected", tint), FusionConfig())


class Bench:
    """A home with a migrated database, a file store and credentials, and clients of the server on it."""

    def __init__(self, home: Path, database_url: str, **changes: Any) -> None:
        row = {"home": home, "database_url": database_url, "label_studio_url": LABEL_STUDIO}
        self.settings = Settings(**{**row, **changes})
        self.database = Database(database_url)
        self.store = FileStore(self.settings.files)
        self.credentials: Credentials = load_credentials(home)
        self.pairs = DiscPairs()
        self.basic = (self.credentials.basic_user, self.credentials.basic_password)

    @functools.cached_property
    def token(self) -> str:
        """A token that may do everything."""
        return self.token_for(Scope.operate)

    def token_for(self, scope: Scope) -> str:
        """Another token, with this scope."""
        return issue(self.database, scope.value, scope).text

    def client(self) -> TestClient:
        """A client that knows the ML backend's Basic auth, as Label Studio does after connecting."""
        client = TestClient(create_app(self.settings, loader=self.pairs), raise_server_exceptions=False)
        client.auth = self.basic
        return client

    @property
    def basic_header(self) -> dict[str, str]:
        """The ML backend's Basic auth as a header."""
        return {"Authorization": f"Basic {base64.b64encode(':'.join(self.basic).encode()).decode()}"}

    def bearer(self, token: str) -> dict[str, Any]:
        """Arguments of a request with this token instead of Basic auth."""
        return {"headers": {"Authorization": f"Bearer {token}"}, "auth": _NoAuth()}

    def add_image(self, seed: int, cells: int = 2) -> Image:
        """A stored smear of the pool."""
        stored = self.store.put_bytes("images", png(seed, cells), ".png")
        with self.database.session() as session:
            return images.add_image(
                session, sha256=stored.sha256, file=stored.file, name=f"smear {seed}.png", width=WIDTH, height=HEIGHT,
                group=f"slide {seed}", split="train", dataset="rendered",
            )[0]  # fmt: skip

    def activate_pair(self) -> ServingPair:
        """Two new versions that serve, and their pair."""
        with self.database.session() as session:
            builders.add_active_pair(session)
        return self.active()

    def promote_infected(self) -> ServingPair:
        """A new `infected` version that serves, as the gate promotes it: a change of rows, nothing else."""
        with self.database.session() as session:
            version = builders.add_version(session, "infected")
            versions.activate(session, version.id, kind="gate", reasons=["better"])
            versions.active_pair(session)
        return self.active()

    def active(self) -> ServingPair:
        """The row of the pair that serves."""
        with self.database.session(read_only=True) as session:
            row = serving_pair(session)
        assert row is not None
        return row

    def predict(self, *found: Image) -> list[int]:
        """Store the active pair's predictions, as the worker does; their ids."""
        row = self.active()
        served = Served(row, self.pairs(row))
        return [predict_and_store(self.database, self.store, served, image) for image in found]

    def add_predicted_rows(self, pair_id: int, *, images: int, cells: int) -> list[str]:
        """Many images with stored predictions, as rows alone (in bulk, without files); their paths in the store."""
        hashes = [builders.sha256(f"row {number}") for number in range(images)]
        columns = {"width": WIDTH, "height": HEIGHT, "group": "g", "split": "train", "dataset": "rendered"}
        place = {"x1": 1.0, "y1": 1.0, "x2": 9.0, "y2": 9.0, "label": "ring", "score": 0.5, "source": "both"}
        with self.database.session() as session:
            files = [f"images/{digest[:2]}/{digest}.png" for digest in hashes]
            rows = [{"sha256": d, "file": f, "name": f, **columns} for d, f in zip(hashes, files, strict=True)]
            image_ids = list(session.scalars(insert(Image).returning(Image.id), rows))
            seen = [{"image_id": image_id, "pair_id": pair_id, "seconds": 1.0} for image_id in image_ids]
            predicted = list(session.execute(insert(Prediction).returning(Prediction.id, Prediction.image_id), seen))
            keys = [(p, {"image_id": image, "key": f"{image}-{n}"}) for p, image in predicted for n in range(cells)]
            cell_ids = session.scalars(
                insert(Cell).returning(Cell.id, sort_by_parameter_order=True), [k for _, k in keys]
            )
            found = [
                {"prediction_id": p, "cell_id": cell_id, "probabilities": [0.5], "disputed": False, **place}
                for cell_id, (p, _) in zip(cell_ids, keys, strict=True)
            ]
            session.execute(insert(PredictedCell), found)
        return files

    def server(self, client: TestClient) -> Server:
        """The collaborators of the server behind this client."""
        server = client.app.state.server  # type: ignore[attr-defined]
        assert isinstance(server, Server)
        return server

    def body(self, *tasks: Image | str, **changes: Any) -> dict[str, Any]:
        """A /predict body as Label Studio sends it."""
        urls = [t if isinstance(t, str) else f"/data/local-files/?d={t.file}" for t in tasks]
        return {
            "tasks": [
                {"id": 100 + number, "data": {"image": url}, "project": 7, "annotations": [], "predictions": []}
                for number, url in enumerate(urls)
            ],
            "project": "7.1700000000",
            "label_config": default_config(),
            "params": {"login": None, "password": None, "context": None},
            **changes,
        }


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The app under a real uvicorn on a free loopback port; its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server ended while starting"
        assert time.monotonic() < deadline, "the server did not start within 30 s"
        thread.join(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive(), "the server did not stop"


class _NoAuth:
    def __call__(self, request: Any) -> Any:
        return request
