"""The running sync of a load test, as the worker does it, in a process of its own: woken by webhooks or by the clock.

Not the worker itself: a retraining in the middle would be measured, too.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time

from al_loop.context import Loop
from al_loop.sync import pause_after, sync
from backend.credentials import load_credentials
from backend.errors import CellloopError
from backend.serving import spare_the_collector
from backend.settings import Settings
from backend.store import FileStore
from db import inbox, projects
from db.session import Database


def run(loop: Loop, stop: threading.Event) -> dict[str, float]:
    """Sync until `stop`, and once more: {"syncs", "seconds", "errors"}."""
    studio = loop.label_studio()
    told = {"syncs": 0.0, "seconds": 0.0, "errors": 0.0}
    next_poll = 0.0
    while True:
        woke, last = time.monotonic(), stop.is_set()
        with loop.database.session(read_only=True) as session:
            events = [event.id for event in inbox.unhandled(session)]
            known = projects.projects(session, studio.url)
        if events or last or time.monotonic() >= next_poll:
            began = time.monotonic()
            try:
                for project in known:
                    sync(loop, studio, project, sweep=False)
            except CellloopError as error:
                told["errors"] += 1
                print(error, file=sys.stderr, flush=True)
            with loop.database.session() as session:
                inbox.handle(session, events)
            told["syncs"] += 1
            told["seconds"] += time.monotonic() - began
            next_poll = time.monotonic() + loop.settings.poll_s
        if last:
            return told
        stop.wait(pause_after(time.monotonic() - woke))


def main(arguments: str) -> None:
    """Run until SIGTERM, then print the report. arguments: settings as JSON."""
    settings = Settings(**json.loads(arguments))
    database, credentials = Database(settings.database_url), load_credentials(settings.home)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    spare_the_collector()
    print("ready", flush=True)
    print(json.dumps(run(Loop(settings, database, FileStore(settings.files), credentials), stop)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
