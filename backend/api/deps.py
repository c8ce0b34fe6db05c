"""What every route works with, built once by `create_app`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from backend.api.metrics import Metrics
from backend.api.task_images import TaskImages
from backend.api.throttle import Throttle
from backend.credentials import Credentials
from backend.crop_cache import CropCache
from backend.decoded_images import DecodedImages
from backend.rotation import CurrentCredentials
from backend.serving import PairCache
from backend.settings import Settings
from backend.store import FileStore
from db.session import Database

WAIT_TO_DETECT = 7  # requests, of the 40 that have a thread at a time


@dataclass(frozen=True)
class Server:
    """The server's collaborators; shared by all threads, so each of them is thread-safe."""

    settings: Settings
    secrets: CurrentCredentials
    database: Database
    store: FileStore
    pairs: PairCache
    images: TaskImages
    crops: CropCache
    decoded: DecodedImages
    metrics: Metrics = field(default_factory=Metrics)
    throttle: Throttle = field(default_factory=Throttle)
    detecting: threading.Lock = field(default_factory=threading.Lock)  # one request detects, others wait for it
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1 + WAIT_TO_DETECT))
    stopping: threading.Event = field(default_factory=threading.Event)  # somebody asked the process to end

    @property
    def credentials(self) -> Credentials:
        """Today's secrets: they may be rotated while we serve."""
        return self.secrets.read()


async def server_of(request: Request) -> Server:
    """The running server. A coroutine on purpose: FastAPI would send a plain function to the thread pool."""
    server: Server = request.app.state.server
    return server


ServerDep = Annotated[Server, Depends(server_of)]
