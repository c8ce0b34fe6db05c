"""A made-up history of any size: years of imports, predictions, readings, trainings and decisions, in their order.

Five hundred model versions of both roles, each trained on everything labelled by then and measured as a pair. Time
runs in steps of a few days; those of a long history are a transaction each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from al_loop.made_up_answers import AnswerWriter
from al_loop.made_up_fields import AGAIN, MISSED, Fields, FieldWriter, Reading
from al_loop.made_up_models import VERSIONS, ModelWriter
from al_loop.made_up_rows import Ingest, Pool
from backend.instances import ROLES
from db import migrate
from db.backup import count_on
from db.models import now
from db.session import Database

STEPS = VERSIONS // len(ROLES)
DAYS = 1000.0
ROWS = 30_000  # of a transaction, at least


@dataclass(frozen=True)
class History:
    """What is in the database now, and how fast it got there."""

    fields: Fields
    ingest: Ingest


def build_history(
    url: str, cells: int, on_progress: Callable[[int, int], None] = lambda done, total: None, seed: int = 0
) -> History:
    """Migrate an empty database and fill it with a history of so many cells.

    Foreign keys, triggers and indexes are there from the start. Equal seeds give equal rows but for the moments, which
    end now.
    """
    migrate.upgrade(url)
    database, rng = Database(url), np.random.default_rng(seed)
    ingest = Ingest(database)
    fields = Fields.drawn(cells, rng)
    writer = FieldWriter(fields, Pool(rng), ingest, rng)
    answers = AnswerWriter(writer, ingest, rng)
    models = ModelWriter(fields, ingest, rng)
    start, every = now() - timedelta(days=DAYS), timedelta(days=DAYS / STEPS)
    models.add_versions(0, start)
    images = 1 + np.arange(len(fields.counts))
    ends = np.linspace(0, len(images), STEPS + 1).astype(int)
    looks = np.diff(np.linspace(0, AGAIN * len(images), STEPS + 1).astype(int))
    for step in range(STEPS):
        on_progress(step, STEPS)
        fresh, moment = images[ends[step] : ends[step + 1]], start + step * every
        writer.add_images(fresh, moment)
        writer.add_predictions(fresh, models.serving, moment)
        unseen = images[: ends[step]][writer.pair[: ends[step]] != models.serving]
        again = rng.choice(unseen, min(len(unseen), looks[step]), replace=False)
        writer.add_predictions(again, models.serving, moment, MISSED)
        answers.add_readings(fresh, models.ranking, moment)
        models.note_readings(fresh)
        if step + 1 < STEPS:
            models.add_versions(answers.newest_revision, moment + every)
        ingest.write(least=ROWS)
    answers.add_waiting(rng.permutation(images[fields.reading == Reading.none]), models.ranking, now())
    ingest.write()
    with database.engine.begin() as connection:
        count_on(connection, list(ingest.rows))
    database.dispose()
    on_progress(STEPS, STEPS)
    return History(fields, ingest)
