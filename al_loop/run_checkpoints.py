"""A training run's checkpoints: in a folder of its worker's home, and where machines share their files, there as well.

So a worker on another machine goes on where a dead one stopped. A retried run goes on from the first one's.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from al_loop.context import Loop
from al_loop.train import CHECKPOINT
from backend.errors import FileStoreUnavailable, StoredFileCorrupt
from backend.store import file_of
from db import runs

log = logging.getLogger("cellloop.train")


def _stored(sha256: str) -> str:
    """Where the store keeps the checkpoint with this sha256."""
    return file_of("checkpoints", sha256, Path(CHECKPOINT).suffix)


class Checkpoints:
    """Those of one run. worker_id: who shares them, if several machines may work on it."""

    def __init__(self, loop: Loop, run_id: int, worker_id: int | None = None) -> None:
        self._loop = loop
        self._run_id = run_id
        self._worker_id = worker_id
        with loop.database.session(read_only=True) as session:
            run = runs.get(session, run_id)
        self._folder = loop.run_folder(run.retry_of or run.id)
        self._shared = run.checkpoint_sha256

    def bring(self) -> Path:
        """The folder to train in, with the newest checkpoint there is. Without any, a training begins anew."""
        here = self._folder / CHECKPOINT
        if self._shared is not None:
            try:
                source = self._loop.store.verify(_stored(self._shared), self._shared)
                self._folder.mkdir(parents=True, exist_ok=True)
                partial = here.with_suffix(".fetched")
                shutil.copyfile(source, partial)
                partial.replace(here)
            except (FileStoreUnavailable, StoredFileCorrupt) as error:
                log.warning("the checkpoint of run %d cannot be fetched: %s", self._run_id, error)
        return self._folder

    def share(self, path: Path) -> None:
        """Give the checkpoint at `path` to the other machines, if there are any. Raises TakenOver.

        A store that is away stops no training: then the run can only go on here.
        """
        if self._loop.store.far is None or self._worker_id is None:
            return
        try:
            stored = self._loop.store.put_file("checkpoints", path)
        except FileStoreUnavailable as error:
            log.warning("the checkpoint of run %d is not shared: %s", self._run_id, error)
            return
        with self._loop.database.session() as session:
            before = runs.set_checkpoint(session, self._run_id, stored.sha256, self._worker_id)
        self._shared = stored.sha256
        if before not in (None, stored.sha256):
            self._discard(before)

    def remove(self) -> None:
        """Remove them all, here and in the store."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._shared is not None:
            self._discard(self._shared)

    def _discard(self, sha256: str | None) -> None:
        try:
            if sha256 is not None:
                self._loop.store.remove(_stored(sha256))
        except FileStoreUnavailable as error:
            log.warning("an old checkpoint of run %d stays in the store: %s", self._run_id, error)
