"""Many experts at once: how long the server makes them wait, and whether anything is lost; beside the plain way.

The real server runs as a process, a sync as another, and this one is the experts and Label Studio. Afterwards the same
fields are opened and submitted at three servers in turn: ours, and an ML backend as HumanSignal's template makes it,
with the detector run at each request, and with answers kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from al_loop.context import Loop
from al_loop.load_experts import Client, Expert, Pace, Seen, experts
from al_loop.load_home import LoadPlan, prepare
from al_loop.load_plain_backend import THREADS, WORKERS
from al_loop.load_studio import StandIn
from backend.credentials import load_credentials
from backend.errors import CellloopError
from backend.ports import free_port
from backend.settings import Settings
from backend.store import FileStore
from db import inbox, reviews
from db.migrate import upgrade
from db.models import Way
from db.session import Database

START_S = 120.0
OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Load:
    """How much of it. fields: rendered ones of `size` (h, w) px with `cells` cells; other fields are rows like them.

    compared_s: seconds at each of the three servers; 0: not compared.
    """

    experts: int = 64
    seconds: float = 60.0
    compared_s: float = 30.0
    fields: int = 16
    size: tuple[int, int] = (1200, 1600)
    cells: int = 80
    pace: Pace = field(default_factory=Pace)

    @property
    def up_s(self) -> float:
        """How long the server has been up when experts come."""
        return min(10.0, self.seconds / 6)

    @property
    def copies(self) -> int:
        """Fields enough for all of them, even if none thinks long."""
        return int(self.experts * self.seconds / self.pace.field_s) + self.experts


def benchmark_serve(
    home: Path, database_url: str, weights: Path, load: Load, on_progress: OnProgress = lambda done, total, note: None
) -> dict[str, Any]:
    """Put a new installation in `home` under load. weights: folder of the pair that serves.

    {"errors", "lost", "predict_p99_ms", "webhook_p99_ms", "crop_p99_ms", "ratio_vs_per_request", "ratio_vs_tuned"}, and
    what they were measured on. A ratio is the other's p99 of /predict by ours, fields only. Raises CellloopError.
    """
    settings = Settings(
        home=home, port=free_port("127.0.0.1", 9090), device="cpu",
        label_studio_url=f"http://127.0.0.1:{free_port('127.0.0.1', 8080)}", database_url=database_url,
    )  # fmt: skip
    upgrade(settings.database_url)
    loop = Loop(settings, Database(settings.database_url), FileStore(settings.files), load_credentials(home))
    plan = prepare(loop, weights, home / "scratch", load.fields, load.size, load.cells, load.copies, on_progress)
    busy = os.getloadavg()[0]
    seen, synced = asyncio.run(_under_load(loop, plan, load, on_progress))
    lost = _lost(loop, seen)
    sides = ("ours", "per request", "tuned") if load.compared_s else ()
    compared = {side: asyncio.run(_compared(loop, plan, load, weights, side)) for side in sides}
    loop.database.dispose()
    errors = seen.errors + (compared["ours"].errors if compared else [])
    return {
        "errors": len(errors) + int(synced["errors"]),
        "lost": lost,
        **{f"{kind}_p99_ms": _ms(seen.seconds[kind], 99) for kind in ("predict", "webhook", "crop")},
        "ratio_vs_per_request": _ratio(compared, "per request"),
        "ratio_vs_tuned": _ratio(compared, "tuned"),
        "experts": load.experts,
        "seconds": load.seconds,
        "load_average_before": round(busy, 2),
        "requests": {kind: _told(seconds) for kind, seconds in sorted(seen.seconds.items())},
        "submitted": len(seen.submitted),
        "sync": {name: round(value, 1) for name, value in synced.items()},
        "predict_only": {side: _told(found.seconds["predict"]) for side, found in compared.items()},
        "what_went_wrong": errors[:5],
    }


async def _under_load(loop: Loop, plan: LoadPlan, load: Load, on_progress: OnProgress) -> tuple[Seen, dict[str, float]]:
    settings, seen, studio = loop.settings, Seen(), StandIn()
    await studio.start(int(settings.label_studio_url.rsplit(":", 1)[1]))
    with _server(settings), _syncing(settings) as syncing:
        client = Client(settings.port, loop.credentials, plan.token, seen)
        await asyncio.sleep(load.up_s)
        clock = asyncio.get_running_loop()
        until = clock.time() + load.seconds
        work = [
            asyncio.create_task(expert.work(until)) for expert in experts(load.experts, client, plan, studio, load.pace)
        ]
        while clock.time() < until:
            on_progress(int(load.seconds - (until - clock.time())), int(load.seconds), "experts at work")
            await asyncio.sleep(1)
        await asyncio.gather(*work)
        syncing.send_signal(signal.SIGTERM)
        told = await asyncio.to_thread(syncing.communicate)
    await studio.stop()
    return seen, json.loads(told[0].decode().splitlines()[-1])


def _lost(loop: Loop, seen: Seen) -> int:
    """Webhooks that were answered and are not in the inbox, and annotations that are no review."""
    with loop.database.session(read_only=True) as session:
        received = inbox.annotation_ids(session)
        known = set(reviews.live_threads(session))
    threads = {reviews.annotation_thread(project, annotation) for project, annotation in seen.submitted}
    return len(seen.webhooks - received) + len(threads - known)


async def _compared(loop: Loop, plan: LoadPlan, load: Load, weights: Path, side: str) -> Seen:
    """The same experts, on fields alone, at one of the three servers."""
    seen, studio = Seen(), StandIn()
    serving = _server(loop.settings) if side == "ours" else _plain(loop.settings, weights, side == "tuned")
    with serving as port:
        client = Client(port, loop.credentials, plan.token, seen)
        team = [Expert(n, Way.field, client, plan, studio, load.pace) for n in range(1, load.experts + 1)]
        if side == "tuned":  # each field once, for its answer to be kept
            for task in plan.real:
                await team[0].open(task)
            seen.seconds.clear()

        async def work(expert: Expert) -> None:
            await asyncio.sleep(expert.chance.uniform(0, expert.think_s))
            while True:
                task = expert.chance.choice(plan.real)
                await expert.open(task)
                await asyncio.sleep(expert.think_s * expert.chance.uniform(0.5, 1.5))
                await expert.submit(task)

        tasks = [asyncio.create_task(work(expert)) for expert in team]
        await asyncio.sleep(load.compared_s)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return seen


@contextmanager
def _process(
    command: list[str], log: Path, environment: Mapping[str, str], **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stderr=output, **{"stdout": output, **more}
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


@contextmanager
def _server(settings: Settings) -> Iterator[int]:
    """The real server; its port."""
    environment = {
        "CELLLOOP_HOME": str(settings.home),
        "CELLLOOP_DATABASE_URL": settings.database_url,
        "CELLLOOP_LABEL_STUDIO_URL": settings.label_studio_url,
        "CELLLOOP_PORT": str(settings.port),
        "CELLLOOP_DEVICE": settings.device,
    }
    log = settings.home / "serve.log"
    with _process([sys.executable, "-m", "scripts.cli", "serve"], log, environment) as process:
        _wait(process, f"http://127.0.0.1:{settings.port}/health/ready", log)
        yield settings.port


@contextmanager
def _plain(settings: Settings, weights: Path, tuned: bool) -> Iterator[int]:
    """The other backend under gunicorn, as the template's container starts it; its port."""
    port, log = free_port("127.0.0.1", 9191), settings.home / "plain.log"
    application = f"al_loop.load_plain_backend:create({str(weights)!r}, {str(settings.files)!r}, {tuned})"
    command = [
        *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)),
        *("--threads", str(THREADS), "--timeout", "0", application),
    ]
    with _process(command, log, {}) as process:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield port


@contextmanager
def _syncing(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    said = {"home": str(settings.home), "database_url": settings.database_url}
    arguments = json.dumps({**said, "label_studio_url": settings.label_studio_url})
    command = [sys.executable, "-m", "al_loop.load_sync", arguments]
    with _process(command, settings.home / "sync.log", {}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise CellloopError(f"the sync did not start; see {settings.home / 'sync.log'}")
        yield process


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise CellloopError(f"{url}: expected a server within {START_S:.0f} s, found none; see {log}")


def _ratio(compared: Mapping[str, Seen], side: str) -> float | None:
    if not compared:
        return None
    return round(_ms(compared[side].seconds["predict"], 99) / _ms(compared["ours"].seconds["predict"], 99), 2)


def _ms(seconds: list[float], percentile: float) -> float:
    return round(float(np.percentile(seconds, percentile)) * 1000, 1) if seconds else float("nan")


def _told(seconds: list[float]) -> dict[str, float]:
    facts = {"n": len(seconds), "p50_ms": _ms(seconds, 50), "p99_ms": _ms(seconds, 99)}
    return facts | {"worst_ms": _ms(seconds, 100)}
