"""How long it takes to rank a large pool, from SQL to the written queue, and to follow one new label.

The pool is made up, in the shape of real ones: 67 cells to a field, 97 of 100 surely red, the rest of any class and
certainty. Building it is not measured; each measurement is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from al_loop.rank import rank
from al_loop.rerank import rerank
from backend.instances import CLASSES
from db import labels, migrate, queue, reviews, versions
from db.models import Action, Cell, Image, PackedPrediction, PredictedCell, Prediction, Project, Split, Way, now
from db.packed import EMBEDDING, cell_dtype
from db.session import Database

CELLS_PER_FIELD = 1_000_000 / 15_000
FIELDS_PER_SLIDE = 50
LABELS = 20  # new labels that are timed; their median counts
DIMENSIONS = 32


def benchmark_rank(
    sizes: Sequence[int], database_url: str | None = None, on_progress: Callable[[int, int], None] = lambda d, t: None
) -> list[dict[str, float]]:
    """Rank pools of these many cells into a batch of 200: {"cells", "images", "seconds", "peak_mb", "one_label_ms"}.

    database_url: an empty database to build the last and largest pool in; SQLite files of our own by default.
    """
    found = []
    for number, cells in enumerate(sizes):
        on_progress(number, len(sizes))
        with tempfile.TemporaryDirectory() as folder:
            url = database_url or f"sqlite:///{Path(folder) / 'pool.db'}"
            _apart(build_pool, url, cells)
            measured = _apart(measure, url)
            found.append({"cells": cells, "images": fields_of(cells), **measured})
    on_progress(len(sizes), len(sizes))
    return found


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def fields_of(cells: int) -> int:
    """Images of a pool of so many cells."""
    return max(1, round(cells / CELLS_PER_FIELD))


def measure(url: str) -> dict[str, float]:
    """Rank the pool of this database, then give it one label after the other. Seconds, peak MB, milliseconds."""
    database = Database(url)
    began = time.perf_counter()
    rank(database)
    seconds = time.perf_counter() - began
    times = []
    for _ in range(LABELS):
        with database.session() as session:
            item = next(item for item in queue.pending(session) if item.way == Way.cell)
            assert item.cell_id is not None
            _answer(session, item.image_id, item.cell_id)
        began = time.perf_counter()
        if rerank(database) is None:
            rank(database)  # as the worker does when a new batch is due
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    database.dispose()
    return {
        "seconds": round(seconds, 3),
        "peak_mb": round(peak, 1),
        "one_label_ms": round(float(np.median(times)) * 1000, 1),
    }


def _answer(session: Any, image_id: int, cell_id: int) -> None:
    review = reviews.add_review(
        session,
        thread=f"bench:{cell_id}",
        image_id=image_id,
        status="submitted",
        expert="bench",
        revised_at=now(),
        content=[],
        way=Way.cell,
    )
    row = labels.revision(review, cell_id, Action.relabelled, "ring", (0.0, 0.0, 9.0, 9.0))
    labels.add_revisions(session, [row])
    queue.close_cell(session, cell_id, "done")


def build_pool(url: str, cells: int, seed: int = 0) -> None:
    """Fill an empty database with predictions of one pair in a pool of so many cells."""
    migrate.upgrade(url)
    database, rng = Database(url), np.random.default_rng(seed)
    fields = fields_of(cells)
    counts = np.diff(np.linspace(0, cells, fields + 1).astype(int))
    with database.session() as session:
        for role in ("all_cells", "infected"):
            version = versions.add_version(
                session,
                role=role,
                weights_sha256=role.ljust(64, "0"),
                config={},
                manifest={"images": []},
                manifest_sha256="0" * 64,
                environment={},
            )
            versions.activate(session, version.id, kind="first", reasons=["to measure"])
        pair = versions.active_pair(session)
        assert pair is not None
        for number, way in enumerate(Way, start=1):
            session.add(Project(url="bench", ls_project_id=number, way=way, title=way.value, label_config=""))
        pair_id = pair.id
    first = 1
    for start in range(0, fields, 500):
        block = counts[start : start + 500]
        with database.session() as session:
            first = _add_fields(session, pair_id, start, block, first, rng)
    database.dispose()


def _add_fields(session: Any, pair_id: int, start: int, counts: Any, first: int, rng: np.random.Generator) -> int:
    moment, ids = now(), range(start + 1, start + 1 + len(counts))
    session.execute(
        insert(Image),
        [
            {
                "id": i,
                "sha256": f"{i:064x}",
                "file": f"{i}.png",
                "name": f"{i}.png",
                "width": 1600,
                "height": 1200,
                "group": f"slide {i // FIELDS_PER_SLIDE}",
                "split": Split.train,
                "dataset": "rendered",
                "created_at": moment,
            }
            for i in ids
        ],
    )
    session.execute(
        insert(Prediction),
        [{"id": i, "image_id": i, "pair_id": pair_id, "seconds": 0.1, "created_at": moment} for i in ids],
    )
    cells, predicted, packs = [], [], []
    for image, count in zip(ids, counts.tolist(), strict=True):
        packed = made_up(first, count, rng)
        numbers = range(first, first + count)
        first += count
        cells += [{"id": n, "image_id": image, "key": f"{n:x}", "created_at": moment} for n in numbers]
        predicted += [_row(image, number, row) for number, row in zip(numbers, packed, strict=True)]
        vectors = rng.normal(size=(count, DIMENSIONS))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        content = {"cells": packed.tobytes(), "embeddings": vectors.astype(EMBEDDING).tobytes()}
        packs.append({"prediction_id": image, "count": count, **content})
    for model, rows in ((Cell, cells), (PredictedCell, predicted), (PackedPrediction, packs)):
        session.execute(insert(model), rows)
    return first


def made_up(first: int, count: int, rng: np.random.Generator) -> Any:
    """(count,) packed cells with ids from `first`."""
    packed = np.zeros(count, dtype=cell_dtype(len(CLASSES)))
    packed["predicted_cell_id"] = packed["cell_id"] = np.arange(first, first + count)
    packed["code"] = rng.integers(0, 1024, count)
    shares = rng.dirichlet([60, *[0.1] * len(CLASSES)], count)[:, : len(CLASSES)]
    odd = rng.random(count) < 0.03
    shares[odd] = rng.dirichlet([0.4] * (len(CLASSES) + 1), int(odd.sum()))[:, : len(CLASSES)]
    packed["probabilities"] = shares
    packed["score_all_cells"] = shares.sum(axis=1)
    infected = 1 - shares[:, 0]
    packed["score_infected"] = np.where(odd, rng.random(count), np.where(infected > 0.2, infected, np.nan))
    packed["pair_iou"] = np.where(np.isnan(packed["score_infected"]), np.nan, rng.uniform(0.6, 1, count))
    packed["disputed"] = odd & (rng.random(count) < 0.2)
    return packed


def _row(prediction: int, number: int, packed: Any) -> dict[str, Any]:
    x = float(number % 40) * 40
    return {
        "id": number,
        "prediction_id": prediction,
        "cell_id": number,
        "x1": x,
        "y1": 10.0,
        "x2": x + 30,
        "y2": 40.0,
        "label": CLASSES[int(packed["probabilities"].argmax())],
        "score": 0.5,
        "probabilities": [],
        "source": "all_cells",
        "disputed": bool(packed["disputed"]),
    }
