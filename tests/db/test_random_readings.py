"""What chance put before experts, and what the models had said of it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from db import predictions, queue, versions
from db.evaluations import MetricRow, add_evaluation
from db.models import Cell, ModelPair, Slot, Way
from db.queue import QueueEntry
from db.random_readings import learning_curve, random_readings
from db.session import Database
from tests.builders import add_active_pair, add_image, add_version, cell_row, say

FAR = (200.0, 10.0, 240.0, 50.0)


def predicted(session: Session, pair: ModelPair, count: int = 1) -> list[tuple[int, Cell]]:
    """(predicted cell, cell) of a new image with one or two cells."""
    image = add_image(session)
    rows = [cell_row(box) for box in ((10.0, 10.0, 50.0, 50.0), FAR)[:count]]
    stored = predictions.add_prediction(session, image.id, pair.id, rows, 0.1)
    found = predictions.predicted_cells(session, stored.id)
    return [(row.id, session.get_one(Cell, row.cell_id)) for row, _ in found]


def test_only_answered_random_items_count_with_what_was_said_first(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        ranking = queue.add_ranking(session, pair.id, {})
        singles = [predicted(session, pair)[0] for _ in range(3)]
        whole = predicted(session, pair, 2)
        slots = (Slot.random, Slot.random, Slot.acquisition)
        entries = [
            QueueEntry(cell.image_id, 1.0, {}, Way.cell, slot, cell_id=cell.id, predicted_cell_id=row)
            for slot, (row, cell) in zip(slots, singles, strict=True)
        ]
        entries.append(QueueEntry(whole[0][1].image_id, 1.0, {}, slot=Slot.random))
        items = queue.replace_queue(session, ranking.id, entries)
        assert random_readings(session) == []
        for number, label in ((0, "ring"), (2, "trophozoite")):
            cell = singles[number][1]
            say(session, cell, label, f"ls:2:{number}", way=Way.cell)
            queue.close_cell(session, cell.id, "done")
        say(session, singles[0][1], None, "ls:2:9", 5, expert="ben@example.org", way=Way.cell)
        for _, cell in whole:
            say(session, cell, "red blood cell", "ls:1:7")
        queue.close(session, whole[0][1].image_id, "done")
        found = random_readings(session)
        assert [(r.cell_id, r.label, r.draw) for r in found] == [
            (singles[0][1].id, "ring", items[0].id),
            *((cell.id, "red blood cell", items[3].id) for _, cell in whole),
        ]
        assert all(r.probabilities is not None and r.probabilities[0] == 0.9 for r in found)


def test_the_curve_has_one_point_per_version_on_the_newest_split(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        assert learning_curve(session, "test", "ap") == []
        add_evaluation(session, pair.id, "test", "1" * 64, {}, [MetricRow("ap", 0.9, 9, "", 0.8, 1.0)])
        for labels, value in ((2, 0.5), (5, 0.6)):
            manifest = {"images": [{"sha256": "0" * 64, "cells": [{}] * labels}]}
            version = add_version(session, manifest=manifest)
            versions.activate(session, version.id, kind="person", reasons=[])
            new = versions.active_pair(session)
            assert new is not None
            rows = [MetricRow("ap", value, 9, "", value - 0.1, value + 0.1), MetricRow("ap", 0.1, 9, "ring", 0.0, 0.2)]
            add_evaluation(session, new.id, "test", "2" * 64, {}, rows)
        assert learning_curve(session, "test", "ap") == [(2, 0.5, 0.4, 0.6), (5, 0.6, 0.5, 0.7)]
