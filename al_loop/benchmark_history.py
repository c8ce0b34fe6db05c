"""How fast a record of millions of labels takes rows in, and how fast it answers what people ask it.

The history is made up (`al_loop/made_up_history.py`); the questions are those of the command line, REST and the
dashboard, each asked as they ask it: in a session of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from al_loop.made_up_fields import Fields, Reading
from al_loop.made_up_history import DAYS, build_history
from al_loop.made_up_rows import COMMIT, Ingest
from backend.history.questions import question
from db import cells as identities
from db import labels, migrate, plans
from db.errors import UnusableDatabase
from db.history import Answer
from db.models import now
from db.session import Database, parse_url

# To read any of these from end to end takes longer the longer the history is.
BIG = (
    "cells", "current_labels", "label_revisions", "packed_predictions", "predicted_cells", "predictions",
    "ranked_cells", "review_items", "reviews", "training_images",
)  # fmt: skip
NUMBERS = ("cell_life_p99_ms", "as_of_p99_ms", "metrics_ms", "counts_ms", "dashboard_ms")  # those with a bound
ENGINES = {"sqlite": "sqlite", "postgres": "postgresql"}  # and what SQLAlchemy calls them
ASKED = 1000  # cells and images drawn for a percentile
WARMING = 20  # others, asked before and not timed
REPEATS = 9  # of what is asked about everything; their median counts

Page = Callable[[], object]  # fetches the dashboard's first page
Ask = Callable[[Session, int], object]  # one question, about the cell or image of this number
Progress = Callable[[int, int, str], None]


def _silent(done: int, total: int, note: str = "") -> None:
    """Nobody is watching."""


def benchmark_history(
    url: str,
    engine: str,
    cells: int,
    open_dashboard: Callable[[str], Page],
    on_progress: Progress = _silent,
) -> dict[str, Any]:
    """Build a history of so many cells in an empty database, then ask it. open_dashboard: the page of a server of it.

    "engine", "cells", "ingest_rows_per_s" and `NUMBERS`; beside them "rows" written, "tables" with the rows per second
    of each, "others": more times in ms, and "full_scans": big tables that a question reads from end to end.
    Raises UnusableDatabase when the database is of another engine or not empty.
    """
    if parse_url(url).get_backend_name() != ENGINES[engine]:
        raise UnusableDatabase(f"expected the address of a {engine} database, got another engine's")
    if migrate.current(url) is not None:
        raise UnusableDatabase("expected an empty database, got one with tables of ours; give the address of another")
    history = build_history(url, cells, lambda done, total: on_progress(done, total, "filling the record"))
    database = Database(url)
    plans.settle(database.engine)
    questions = Questions(database, history.fields, ASKED + WARMING)
    answers = ask_all(database, questions, open_dashboard, on_progress)
    database.dispose()
    return {"engine": engine, "cells": cells, **written(history.ingest), **answers}


def remove_history(url: str) -> None:
    """Make the database as empty as it was."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != ENGINES["sqlite"]:
        migrate.downgrade(url, "base")
        return
    for suffix in ("", "-wal", "-shm"):
        Path(f"{parsed.database}{suffix}").unlink(missing_ok=True)


def written(ingest: Ingest) -> dict[str, Any]:
    """What went in, and how fast, commits included."""
    count, seconds = sum(ingest.rows.values()), sum(ingest.seconds.values())
    tables = {name: {"rows": n, "rows_per_s": round(n / ingest.seconds[name])} for name, n in ingest.rows.items()}
    return {
        "ingest_rows_per_s": round(count / seconds),
        "rows": count,
        "tables": tables,
        "commit_s": round(ingest.seconds[COMMIT], 1),
    }


class Questions:
    """What is asked: about so many cells and images drawn at random, and about everything.

    Those about labels are about images that are labelled completely, where there is the most to answer.
    """

    def __init__(self, database: Database, fields: Fields, count: int, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        complete = 1 + np.flatnonzero(np.isin(fields.reading, [Reading.imported, Reading.field]))
        self.count = count
        self.cells = rng.integers(1, len(fields.labels) + 1, count).tolist()
        self.images = rng.choice(complete, count).tolist()
        self.labelled = fields.first[np.array(self.images) - 1].tolist()
        self.moments = [now() - timedelta(days=days) for days in rng.uniform(0, DAYS, count).tolist()]
        with database.session(read_only=True) as session:
            self.regions = [identities.get(session, cell).key for cell in self.labelled]

    def about_one(self) -> dict[str, Ask]:
        """Asked about many, one after the other."""
        return {
            "cell_life": lambda session, n: _answer(session, "cell", cell=str(self.cells[n])),
            "labelled_cell_life": lambda session, n: _answer(session, "cell", cell=str(self.labelled[n])),
            "region_life": lambda session, n: _answer(session, "cell", cell=self.regions[n]),
            "as_of": lambda session, n: _answer(session, "labels", image=str(self.images[n]), as_of=self.moments[n]),
            "as_of_objects": lambda session, n: labels.current_labels(session, [self.images[n]], self.moments[n]),
        }

    @staticmethod
    def about_all() -> dict[str, Ask]:
        """Asked about everything, again and again."""
        return {
            "metrics": lambda session, _n: _answer(session, "metrics"),
            "one_metric": lambda session, _n: _answer(session, "metrics", name="ap50", class_name="ring"),
            "counts": lambda session, _n: labels.class_counts(session),
        }


def _answer(session: Session, name: str, /, **given: Any) -> Answer:
    return question(name).ask(session, given)


def ask_all(
    database: Database, questions: Questions, open_dashboard: Callable[[str], Page], on_progress: Progress = _silent
) -> dict[str, Any]:
    """Ask everything: times in ms, and the big tables that a question reads from end to end."""
    one, whole = questions.about_one(), questions.about_all()
    found: dict[str, float] = {}
    scans: dict[str, list[str]] = {}
    for done, (name, ask) in enumerate({**one, **whole}.items()):
        on_progress(done, len(one) + len(whole) + 1, name)
        numbers = range(questions.count) if name in one else [0] * REPEATS
        times = [_seconds(partial(_asked, database, ask, number)) for number in numbers]
        if name in one:
            found[f"{name}_p99_ms"] = _ms(np.percentile(times[WARMING:], 99))
            found[f"{name}_median_ms"] = _ms(np.median(times[WARMING:]))
        else:
            found[f"{name}_ms"] = _ms(np.median(times))
        scans[name] = full_scans(database, partial(_asked, database, ask, 0))
    page = open_dashboard(database.engine.url.render_as_string(hide_password=False))
    times = [_seconds(page) for _ in range(REPEATS)]  # the first opens connections and reads templates: it counts
    found |= {"dashboard_ms": _ms(times[0]), "dashboard_again_ms": _ms(np.median(times[1:]))}
    scans["dashboard"] = full_scans(database, page)
    return {
        **{name: found[name] for name in NUMBERS},
        "others": {name: value for name, value in found.items() if name not in NUMBERS},
        "full_scans": {name: tables for name, tables in scans.items() if tables},
    }


def full_scans(database: Database, ask: Page) -> list[str]:
    """Big tables that what is asked here reads from end to end."""
    with plans.watched() as statements:
        ask()
    with database.engine.connect() as connection:
        return sorted({table for each in statements for table in plans.full_scans(connection, each, BIG)})


def _asked(database: Database, ask: Ask, number: int) -> object:
    with database.session(read_only=True) as session:
        return ask(session, number)


def _seconds(ask: Page) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


def _ms(seconds: Any) -> float:
    return round(1000 * float(seconds), 2)
