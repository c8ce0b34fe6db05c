"""Drift is checked when there is reason to, on the fields that came since the pair began to serve."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from al_loop.watch_drift import EVERY, NEW_IMAGES, check_drift_when_due
from backend.serving import active_pair
from db import drift, predictions
from db.models import DriftCheck, now
from db.session import Database
from tests import builders
from tests.al_loop.workshop import Workshop, open_workshop
from tests.backend.smears import HEIGHT, WIDTH, png
from tests.builders import add_active_pair, add_image, dated

BEFORE, SINCE = range(0, 10), range(50, 60)


def add(
    workshop: Workshop, pair_id: int, seeds: Iterable[int], moment: datetime, *, sure: float = 0.9, cells: int = 2
) -> None:
    """Smears that came at this moment, and that the pair has predicted."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        stored = workshop.store.put_bytes("images", png(seed, cells), ".png")
        with workshop.database.session() as session, dated(session, moment):
            size = {"width": WIDTH, "height": HEIGHT}
            image = add_image(session, f"{seed}.png", sha256=stored.sha256, file=stored.file, **size)
            rows = [builders.cell_row(probabilities=[sure + rng.normal(0, 0.01), 0.0, 0.0, 0.0, 0.0, 0.0])]
            predictions.add_prediction(session, image.id, pair_id, rows, 0.1)


def opened(home: Path, database: Database) -> tuple[Workshop, int]:
    """Ten fields and a pair that was accepted on them."""
    workshop = open_workshop(home, database)
    with database.session() as session:
        pair_id = add_active_pair(session).id
    add(workshop, pair_id, BEFORE, now() - timedelta(days=2))
    return workshop, pair_id


def checked(workshop: Workshop) -> bool:
    """Whether a check was due, once all stains are known."""
    return any(check_drift_when_due(workshop) for _ in range(4))


def newest(workshop: Workshop) -> DriftCheck:
    pair = active_pair(workshop.database)
    assert pair is not None
    with workshop.database.session(read_only=True) as session:
        check = drift.newest_check(session, pair.id)
    assert check is not None
    return check


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"sure": 0.6}, ["how sure the pair is of its cells"]),
        ({"cells": 0}, ["the stain (optical density)"]),
    ],
)
def test_what_changed_is_named(tmp_path: Path, database: Database, changes: dict[str, float], words: list[str]) -> None:
    workshop, pair_id = opened(tmp_path, database)
    add(workshop, pair_id, SINCE, now(), **changes)  # type: ignore[arg-type]
    assert not check_drift_when_due(workshop), "stains of earlier times are looked up first"
    assert checked(workshop)
    check = newest(workshop)
    assert check.drifted == bool(words)
    assert [reason.split(":")[0] for reason in check.reasons if check.drifted] == words
    assert [each["recent"] for each in check.numbers["looks"]] == [10, 10, 10, 0]


def test_a_check_is_due_after_a_day_or_many_images(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = open_workshop(tmp_path, sqlite_database)
    assert not check_drift_when_due(workshop), "nobody serves"
    with sqlite_database.session() as session:
        add_active_pair(session)
    assert check_drift_when_due(workshop)
    first = newest(workshop)
    assert not first.drifted
    assert "fewer than 8" in first.reasons[0]
    assert not check_drift_when_due(workshop, first.created_at + EVERY - timedelta(seconds=1))
    assert check_drift_when_due(workshop, first.created_at + EVERY)
    with sqlite_database.session() as session:
        for _ in range(NEW_IMAGES - 1):
            add_image(session)
    assert not check_drift_when_due(workshop)
    with sqlite_database.session() as session:
        add_image(session)
    assert check_drift_when_due(workshop)
    assert not check_drift_when_due(workshop)


def test_an_image_that_cannot_be_read_is_left_out(tmp_path: Path, sqlite_database: Database) -> None:
    workshop, pair_id = opened(tmp_path, sqlite_database)
    add(workshop, pair_id, SINCE, now())
    next(iter(workshop.store.path("images").rglob("*.png"))).write_bytes(b"no image any more")
    assert checked(workshop)
    stain = newest(workshop).numbers["looks"][1]
    assert stain["before"] + stain["recent"] == 19
