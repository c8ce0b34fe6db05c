"""Many experts ask for their next item at the same moment: how long each waits, and whether any two get the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from al_loop.benchmark_rank import build_pool
from al_loop.rank import rank
from db import assignments, queue
from db.models import ItemStatus
from db.session import Database

CELLS = 10_000


def benchmark_queue(
    url: str, experts: int, rounds: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Experts ask all at once, answer, and ask again, `rounds` times. url: an empty database.

    {"experts", "asked", "double", "p50_ms", "p99_ms", "worst_ms"}: waiting times of asking; double: items that two
    had in hand, which must be 0. The answers are not timed.
    """
    build_pool(url, CELLS)
    database = Database(url)
    rank(database)
    times: list[float] = []
    double = 0
    for number in range(rounds + 1):
        taken = _ask_at_once(database, experts)
        on_progress(number, rounds)
        with database.session() as session:
            for _, way, place in {item for _, item in taken if item is not None}:
                (queue.close_cell if way == "cell" else queue.close)(session, place, ItemStatus.done)
            few = len(queue.pending(session)) < experts
        if few:
            rank(database)
        if number:  # the first round opens the connections
            times += [seconds for seconds, _ in taken]
            items = [item for _, item in taken if item is not None]
            double += len(items) - len(set(items))
    database.dispose()
    p50, p99, worst = (float(v) * 1000 for v in np.percentile(times, [50, 99, 100]))
    return {
        "experts": experts,
        "asked": len(times),
        "double": double,
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "worst_ms": round(worst, 1),
    }


def _ask_at_once(database: Database, experts: int) -> list[tuple[float, tuple[int, str, int] | None]]:
    """(seconds, (item id, way, cell or image)) of each expert."""
    barrier = threading.Barrier(experts)
    found: list[tuple[float, tuple[int, str, int] | None]] = []

    def ask(number: int) -> None:
        barrier.wait()
        began = time.perf_counter()
        with database.session() as session:
            item = assignments.take(session, f"expert {number}")
            got = None if item is None else (item.id, item.way.value, item.cell_id or item.image_id)
        found.append((time.perf_counter() - began, got))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(experts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
