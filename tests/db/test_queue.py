"""The review queue: the newest ranking's images wait, each at most once."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import assignments, predictions, queue
from db.errors import IllegalTransition
from db.models import ITEM_TRANSITIONS, ItemStatus, ReviewItem, Slot, Way
from db.queue import CellRank, QueueEntry
from db.session import Database
from tests.builders import BOX, add_active_pair, add_cell, add_image, add_prediction

FAR = (200.0, 200.0, 240.0, 240.0)


def waiting(session: Session) -> list[tuple[int, float]]:
    return [(item.image_id, item.score) for item in queue.pending(session)]


def test_the_most_valuable_image_comes_first(database: Database) -> None:
    with database.session() as session:
        ranking = queue.add_ranking(session, add_active_pair(session).id, {"top": 5})
        low, high, middle = (add_image(session).id for _ in range(3))
        entries = [QueueEntry(low, 0.1, {"a": 1}), QueueEntry(high, 9.0, {}), QueueEntry(middle, 0.5, {})]
        queue.replace_queue(session, ranking.id, entries)
        assert waiting(session) == [(high, 9.0), (middle, 0.5), (low, 0.1)]
        assert queue.pending(session)[2].terms == {"a": 1}
        assert queue.latest_ranking(session) is ranking


def test_a_new_ranking_keeps_supersedes_and_adds(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        one, two, three, four = (add_image(session).id for _ in range(4))
        old = queue.add_ranking(session, pair.id, {})
        items = queue.replace_queue(session, old.id, [QueueEntry(i, 1.0, {}) for i in (one, two, three)])
        queue.close(session, two, "done")
        new = queue.add_ranking(session, pair.id, {})
        entries = [QueueEntry(three, 2.0, {"b": 1}, reason="r" * 300), QueueEntry(four, 1.5, {})]
        again, fresh = queue.replace_queue(session, new.id, entries)
        assert waiting(session) == [(three, 2.0), (four, 1.5)]
        assert [item.status.value for item in items] == ["superseded", "done", "pending"]
        assert again is items[2]
        assert (again.ranking_id, again.terms, len(again.reason)) == (new.id, {"b": 1}, 255)
        assert fresh.id > again.id


def test_what_an_expert_has_in_hand_is_never_taken_away(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        one, two = (add_image(session).id for _ in range(2))
        old = queue.add_ranking(session, pair.id, {})
        queue.replace_queue(session, old.id, [QueueEntry(one, 1.0, {}), QueueEntry(two, 0.5, {})])
        item = assignments.take(session, "ada@example.org")
        assert item is not None
        assert item.image_id == one
        queue.replace_queue(session, old.id, [])
        assert waiting(session) == [(one, 1.0)]
        assert assignments.release(session, item.id, "ada@example.org")
        queue.replace_queue(session, old.id, [])
        assert waiting(session) == []


def test_closing_takes_an_image_off_the_queue_once(database: Database) -> None:
    with database.session() as session:
        ranking = queue.add_ranking(session, add_active_pair(session).id, {})
        image = add_image(session)
        queue.replace_queue(session, ranking.id, [QueueEntry(image.id, 1.0, {})])
        item = queue.close(session, image.id, ItemStatus.skipped)
        assert item is not None
        assert item.status is ItemStatus.skipped
        assert queue.close(session, image.id, ItemStatus.done) is None
        assert waiting(session) == []


@pytest.mark.parametrize(("before", "after"), list(itertools.product(ItemStatus, ItemStatus)))
def test_only_listed_steps_are_taken(sqlite_database: Database, before: ItemStatus, after: ItemStatus) -> None:
    with sqlite_database.session() as session:
        ranking = queue.add_ranking(session, add_active_pair(session).id, {})
        image = add_image(session)
        (item,) = queue.replace_queue(session, ranking.id, [QueueEntry(image.id, 1.0, {})])
        item.status = before
        session.flush()
        if before is not ItemStatus.pending:
            assert queue.close(session, image.id, after) is None
            assert item.status is before
        elif after in ITEM_TRANSITIONS[before]:
            assert queue.close(session, image.id, after) is item
            assert item.status is after
        else:
            with pytest.raises(IllegalTransition):
                queue.close(session, image.id, after)


def test_the_engine_itself_lets_an_image_wait_once(database: Database) -> None:
    with database.session() as session:
        ranking = queue.add_ranking(session, add_active_pair(session).id, {})
        image = add_image(session)
        queue.replace_queue(session, ranking.id, [QueueEntry(image.id, 1.0, {})])
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(ReviewItem(ranking_id=ranking.id, image_id=image.id, score=2.0, terms={}))


def test_reasons_are_those_of_the_newest_ranking_that_saw_the_cells(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        prediction = add_prediction(session, add_image(session), pair, [BOX, FAR])
        other = add_prediction(session, add_image(session), pair, [BOX])
        (near, _), (far, _) = predictions.predicted_cells(session, prediction.id)
        ((elsewhere, _),) = predictions.predicted_cells(session, other.id)
        assert queue.reasons(session, prediction.id) == {}
        first, second, third = (queue.add_ranking(session, pair.id, {}) for _ in range(3))
        queue.add_ranked_cells(session, first.id, [CellRank(near.id, 0.1, {}, "old"), CellRank(far.id, 0.2, {}, "old")])
        ranks = [CellRank(near.id, 0.3, {"margin": 0.3}, "models disagree"), CellRank(far.id, 0.9, {}, "rare")]
        assert queue.add_ranked_cells(session, second.id, ranks) == 2
        queue.add_ranked_cells(session, third.id, [CellRank(elsewhere.id, 1.0, {}, "not of this image")])
        assert queue.reasons(session, prediction.id) == {
            near.cell_id: (0.3, "models disagree"),
            far.cell_id: (0.9, "rare"),
        }
        assert [row.predicted_cell_id for row in queue.ranked_cells(session, second.id)] == [far.id, near.id]
        assert queue.ranked_cells(session, second.id)[1].terms == {"margin": 0.3}


def test_a_long_reason_is_cut(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        prediction = add_prediction(session, add_image(session), pair)
        ((cell, _),) = predictions.predicted_cells(session, prediction.id)
        ranking = queue.add_ranking(session, pair.id, {})
        queue.add_ranked_cells(session, ranking.id, [CellRank(cell.id, 1.0, {}, "x" * 300)])
        assert queue.add_ranked_cells(session, ranking.id, []) == 0
        ((_, reason),) = queue.reasons(session, prediction.id).values()
        assert (len(reason), reason[-1]) == (255, "…")


def test_what_waits_by_way_and_slot(database: Database) -> None:
    with database.session() as session:
        ranking = queue.add_ranking(session, add_active_pair(session).id, {})
        images = [add_image(session) for _ in range(3)]
        cell = add_cell(session, images[0])
        entries = [QueueEntry(images[0].id, 3.0, {}), QueueEntry(images[1].id, 2.0, {})]
        entries.append(QueueEntry(images[2].id, 4.0, {}, Way.cell, Slot.random, cell_id=cell.id))
        items = queue.replace_queue(session, ranking.id, entries)
        assignments.hold(session, items[1].id, "ada")
        found = queue.waiting(session)
        assert [(row.way, row.slot, row.items, row.in_hand) for row in found] == [
            (Way.field, Slot.acquisition, 2, 1), (Way.cell, Slot.random, 1, 0),
        ]  # fmt: skip
        assert found[0].since == min(item.created_at for item in items[:2])
        assert [item.image_id for item in queue.pending(session, most=2)] == [images[2].id, images[0].id]
