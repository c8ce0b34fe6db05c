"""The server as a process: it ends without dropping a request.

Asked to end (SIGTERM, Ctrl-C) it first says that it is not ready, so that whoever stands before it sends no more; after
`drain_s` it closes its door, finishes what it has within `stop_within_s`, and leaves. A second signal skips the rest.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from backend.api.crops_ahead import CropsAhead
from backend.serving import spare_the_collector
from backend.settings import Settings

log = logging.getLogger("cellloop.server")

JOIN_S = 1.0  # threads of the pool that have nothing to do end at once


class _Process(uvicorn.Server):
    """uvicorn's server, with a moment between the signal and the closed door, and 0 as its exit code."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event, drain_s: float) -> None:
        super().__init__(config)
        self.stopping = stopping
        self.drain_s = drain_s
        self._closes_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.stopping.is_set():
            self.should_exit = self.force_exit = True
        self.stopping.set()
        self._closes_at = min(self._closes_at, time.monotonic() + self.drain_s)

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._closes_at:
            self.should_exit = True
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again afterwards: a process that has ended well would look killed.
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def run(app: FastAPI, host: str, port: int, settings: Settings) -> None:
    """Serve until a signal; then stop as above. Logs through our own handlers. For the main thread."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # the Requests middleware logs, without addresses
        server_header=False,
        timeout_graceful_shutdown=settings.stop_within_s,
    )
    CropsAhead(app.state.server).start()
    spare_the_collector()
    process = _Process(config, app.state.server.stopping, settings.drain_s)
    process.run()
    log.info("server stopped")
    others = [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    for thread in others:
        thread.join(JOIN_S)
    if any(thread.is_alive() for thread in others):  # a detection over its time: Python would wait for its thread
        log.warning("a request was still being worked on")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
