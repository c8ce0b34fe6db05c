"""Leases: one item per expert, never one they have read, and none in two hands."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from db import assignments, queue
from db.models import ReviewItem, Way, now
from db.queue import QueueEntry
from db.session import Database
from tests.builders import add_active_pair, add_cell, add_image


def fill(session: Session, count: int, **changes: object) -> list[ReviewItem]:
    """So many cells that wait, the first one most valuable."""
    ranking = queue.add_ranking(session, add_active_pair(session).id, {})
    entries = []
    for number in range(count):
        image = add_image(session)
        cell = add_cell(session, image)
        entries.append(QueueEntry(image.id, float(count - number), {}, Way.cell, cell_id=cell.id, **changes))
    return queue.replace_queue(session, ranking.id, entries)


def test_each_expert_gets_the_best_that_is_free_and_keeps_it(database: Database) -> None:
    with database.session() as session:
        first, second, third = fill(session, 3)
        assert assignments.take(session, "ada") is first
        assert assignments.take(session, "ben") is second
        assert assignments.take(session, "ada") is first
        assert assignments.take(session, "cyd", Way.cell) is third
        assert assignments.take(session, "dan") is None
        assert assignments.take(session, "dan", Way.field) is None
        assert (third.assigned_to, third.assigned_until > now()) == ("cyd", True)


@pytest.mark.parametrize("name", ["ada@example.org", 'o"neil\\', "Åsa_%", "a_b"])
def test_what_an_expert_has_read_is_not_for_them(database: Database, name: str) -> None:
    with database.session() as session:
        [item] = fill(session, 1, readers=("somebody", name))
        assert assignments.take(session, name) is None
        assert assignments.take(session, f"{name}x") is item


def test_a_name_that_only_looks_alike_is_another_expert(database: Database) -> None:
    with database.session() as session:
        [item] = fill(session, 1, readers=("axb", "ada"))
        assert assignments.take(session, "a_b") is item
        assignments.release(session, item.id, "a_b")
        assert assignments.take(session, "ad") is item


def test_a_lease_ends_by_itself_and_by_giving_back(database: Database) -> None:
    with database.session() as session:
        [item] = fill(session, 1)
        assert assignments.take(session, "ada", lease=timedelta(seconds=-1)) is item
        assert assignments.take(session, "ben") is item
        assert not assignments.release(session, item.id, "ada")
        assert assignments.release(session, item.id, "ben")
        assert assignments.take(session, "ada") is item


def test_holding_what_another_has_in_hand_is_refused(database: Database) -> None:
    with database.session() as session:
        [item] = fill(session, 1)
        assert assignments.hold(session, item.id, "ada")
        assert assignments.hold(session, item.id, "ada")
        assert not assignments.hold(session, item.id, "ben")
        queue.close_cell(session, item.cell_id or 0, "done")
        assert item.assigned_to is None
        assert not assignments.hold(session, item.id, "ada")


def test_a_fresh_lease_needs_no_renewing(database: Database) -> None:
    with database.session() as session:
        [item] = fill(session, 1)
        assert not assignments.is_held(session, item.id)
        assignments.take(session, "ada")
        assert assignments.is_held(session, item.id)
        item.assigned_until = now() + assignments.LEASE / 3
        session.flush()
        assert not assignments.is_held(session, item.id)


def test_pinned_images_stay_in_their_way(database: Database) -> None:
    with database.session() as session:
        items = fill(session, 2)
        assignments.take(session, "ada")
        ranking = queue.latest_ranking(session)
        assert ranking is not None
        images = [add_image(session).id for _ in range(assignments.HEAD + 2)]
        entries = [QueueEntry(image, 9.0 - n, {}) for n, image in enumerate(images)]
        waiting = [*items, *queue.add_items(session, ranking.id, entries)]
        expected = {image: Way.field for image in images[: assignments.HEAD]} | {items[0].image_id: Way.cell}
        assert assignments.pinned(waiting) == expected


def test_fifty_experts_asking_at_once_get_fifty_items(database: Database) -> None:
    experts = 50
    with database.session() as session:
        best = {item.id for item in fill(session, experts + 10)[:experts]}
    start = threading.Barrier(experts)

    def ask(number: int) -> int:
        start.wait()
        with database.session() as session:
            item = assignments.take(session, f"expert {number}")
            assert item is not None
            return item.id

    with ThreadPoolExecutor(experts) as pool:
        taken = list(pool.map(ask, range(experts)))
    assert len(set(taken)) == experts
    assert set(taken) == best
