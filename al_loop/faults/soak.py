"""Does the server keep what it should let go of? Its memory and open files over a thousand requests."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from al_loop.faults.installation import Installation
from al_loop.faults.violation import Violation
from backend.crop_address import crop_name
from db import images, queue
from db.models import Split, Way

REQUESTS = 1000
WARM_UP = 300  # pools fill, caches fill, the pair is loaded
MORE_MB, MORE_FILES = 12.0, 4  # what still counts as flat: an allocator's pages, a connection that comes and goes


@dataclass(frozen=True)
class Soaked:
    """What a server took before and after: MB of memory, open files.

    failed: requests that were not answered well. example: one of them.
    """

    requests: int
    megabytes: tuple[float, float]
    files: tuple[int, int]
    failed: int
    example: str

    @property
    def violations(self) -> list[Violation]:
        """What is not flat."""
        found = []
        if self.megabytes[1] - self.megabytes[0] > MORE_MB:
            found.append(
                Violation("wrong", "the server's memory went from {:.0f} to {:.0f} MB".format(*self.megabytes))
            )
        if self.files[1] - self.files[0] > MORE_FILES:
            found.append(Violation("wrong", "the server's open files went from {} to {}".format(*self.files)))
        if self.failed:
            found.append(
                Violation(
                    "wrong", f"{self.failed} of {self.requests} requests failed without any fault: {self.example}"
                )
            )
        return found


def soak(installation: Installation, requests: int = REQUESTS) -> Soaked:
    """Ask the server for everything it is asked for while people work, again and again."""
    pid = installation.server.pid
    with httpx.Client(base_url=f"http://127.0.0.1:{installation.port}", timeout=30.0, trust_env=False) as client:
        calls = itertools.cycle(_calls(installation))
        for _ in range(WARM_UP):
            client.request(**next(calls))
        before = taken(pid)
        answers = [client.request(**next(calls)) for _ in range(requests)]
        after = taken(pid)
    bad = [answer for answer in answers if not answer.is_success]
    example = (
        f"{bad[0].request.method} {bad[0].request.url.path}: {bad[0].status_code} {bad[0].text[:200]}" if bad else ""
    )
    return Soaked(requests, (before[0], after[0]), (before[1], after[1]), len(bad), example)


def taken(pid: int) -> tuple[float, int]:
    """MB of memory and open files of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


def _calls(installation: Installation) -> list[dict[str, Any]]:
    loop = installation.loop
    config = next(project.label_config for project in installation.projects if project.way == Way.field)
    with loop.database.session(read_only=True) as session:
        pool = images.by_split(session, Split.train)
        cells = queue.pending(session, Way.cell)
    secret, login = loop.credentials.webhook_headers, (loop.credentials.basic_user, loop.credentials.basic_password)
    calls: list[dict[str, Any]] = [{"method": "GET", "url": "/health", "auth": login}]
    for image in pool:
        task = {"id": image.id, "data": {"image": f"/data/local-files/?d={image.file}"}}
        body = {"tasks": [task], "project": "1.1", "label_config": config, "params": {}}
        calls.append({"method": "POST", "url": "/predict", "json": body, "auth": login})
    for number, item in enumerate(cells):
        calls.append({"method": "GET", "url": f"/crops/{crop_name(item.id, loop.credentials.crop_key)}"})
        event = {"action": "ANNOTATION_UPDATED", "project": {"id": 1}, "annotation": {"id": number}}
        calls.append({"method": "POST", "url": "/webhook", "json": event, "headers": secret})
    return calls
