"""What every stage of the loop works with: one installation's settings, record, files and Label Studio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.credentials import Credentials, load_credentials
from backend.label_studio.client import LabelStudio
from backend.locks import Occupied, exclusive
from backend.settings import Settings
from backend.store import FileStore
from db.advisory import advisory, holds
from db.session import Database


@dataclass(frozen=True)
class Loop:
    """One installation. Built once per process by the command line; stages receive it, none reads the environment."""

    settings: Settings
    database: Database
    store: FileStore
    credentials: Credentials

    @property
    def label_studio_token(self) -> str:
        """The token from the environment, or else the generated one as it is now: it may be rotated while we run."""
        return self.settings.label_studio_token or load_credentials(self.settings.home).label_studio_token

    def label_studio(self) -> LabelStudio:
        """A client for the Label Studio we serve."""
        settings = self.settings
        return LabelStudio(
            settings.label_studio_url,
            self.label_studio_token,
            settings.label_studio_timeout_s,
            rotated=lambda: self.label_studio_token,
        )

    @property
    def embedded(self) -> bool:
        """Whether the record is a SQLite file of this machine; else several machines may share it."""
        return self.database.engine.dialect.name == "sqlite"

    @property
    def features(self) -> Path:
        """Where a shared trunk's maps of training views are kept, for retrainings to come (`trunk_features.py`)."""
        return self.settings.home / "cache" / "trunk-features"

    def run_folder(self, run_id: int) -> Path:
        """Where a training run keeps its checkpoints until its weights are in the store."""
        return self.settings.home / "runs" / str(run_id)

    @contextmanager
    def alone(self, name: str, *, wait: bool = True) -> Iterator[Callable[[], bool]]:
        """Hold the installation's lock of this name inside the block, against all its machines, processes and threads.

        wait: until it is free; otherwise raises Occupied when somebody holds it. Gives a function that says whether it
        is still held: PostgreSQL lets go when the connection breaks. The lock goes with the process, however it dies.
        """
        if self.embedded:
            with exclusive(self.settings.home / f"{name}.lock", wait=wait):
                yield lambda: True
            return
        with advisory(self.database.engine, name, wait=wait) as connection:
            if connection is None:
                raise Occupied(f"{name}: expected a free lock, another process of this installation holds it")
            yield lambda: holds(connection)
