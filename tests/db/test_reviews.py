"""Reviews: every state of every annotation, in order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from db import reviews
from db.models import Review, Way
from db.session import Database
from tests.builders import add_image, add_review, at


def test_states_of_a_thread_are_numbered(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        assert reviews.latest_review(session, "ls:1:1") is None
        first, other, second = (add_review(session, image, thread) for thread in ("ls:1:1", "ls:1:2", "ls:1:1"))
        assert [review.sequence for review in (first, other, second)] == [1, 1, 2]
        assert reviews.latest_review(session, "ls:1:1") is second
        assert reviews.history(session, "ls:1:1") == [first, second]


def test_a_review_is_kept_exactly_as_it_came(database: Database) -> None:
    result = [{"id": "a", "value": {"x": 1.5, "labels": ["ring"]}, "meta": {"text": ["µ"]}}]
    with database.session() as session:
        image = add_image(session)
        add_review(session, image, minute=3, content=result, lead_time_s=12.5, ls_task_id=7, ls_annotation_id=1)
    with database.session() as session:
        review = reviews.latest_review(session, "ls:1:1")
        assert review is not None
        assert (review.content, review.revised_at, review.lead_time_s) == (result, at(3), 12.5)
        assert (review.ls_project_id, review.ls_task_id, review.ls_annotation_id) == (1, 7, 1)
        assert review.content_sha256 == reviews.content_sha256(result)


def test_the_content_hash_ignores_the_order_of_keys_only() -> None:
    assert reviews.content_sha256([{"a": 1, "b": 2}]) == reviews.content_sha256([{"b": 2, "a": 1}])
    assert reviews.content_sha256([{"a": 1}, {"b": 2}]) != reviews.content_sha256([{"b": 2}, {"a": 1}])


def test_four_threads_appending_to_one_annotation_number_every_state(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)

    def append(_worker: int) -> None:
        for _ in range(10):
            with database.session() as session:
                add_review(session, image)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(4)))
    with database.session() as session:
        assert [review.sequence for review in reviews.history(session, "ls:1:1")] == list(range(1, 41))


def test_a_state_cannot_be_recorded_twice(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        review = add_review(session, image)
    facts = {c.name: getattr(review, c.name) for c in Review.__table__.columns if c.name != "id"}
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(Review(**facts))


def test_threads_that_are_not_withdrawn_live(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        add_review(session, image, "ls:1:1")
        latest = add_review(session, image, "ls:1:1", minute=1)
        skipped = add_review(session, image, "ls:1:2", status="skipped")
        add_review(session, image, "ls:1:3")
        add_review(session, image, "ls:1:3", status="withdrawn")
        imported = add_review(session, image, "import:x", expert="import", ls_project_id=None)
        elsewhere = add_review(session, add_image(session), "ls:2:1", ls_project_id=2)
        assert reviews.live_threads(session, 1) == {"ls:1:1": latest, "ls:1:2": skipped}
        assert set(reviews.live_threads(session)) == {"ls:1:1", "ls:1:2", "import:x", "ls:2:1"}
        assert reviews.live_reviews(session, image.id) == [latest, skipped, imported]
        assert elsewhere.image_id != image.id


def test_reviews_of_experts_are_counted_while_they_live(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        assert reviews.expert_reviews_count(session) == 0
        add_review(session, image, "import:x", expert=reviews.IMPORT_EXPERT)
        add_review(session, image, "ls:1:1", lead_time_s=30)
        add_review(session, image, "ls:1:1", lead_time_s=45)
        add_review(session, image, "ls:1:2", status="skipped", lead_time_s=2)
        add_review(session, image, "ls:1:3")
        assert reviews.expert_reviews_count(session) == 2
        add_review(session, image, "ls:2:4", way="cell", lead_time_s=4)
        assert reviews.lead_times(session, Way.field) == [(image.id, 45.0)]
        assert reviews.lead_times(session, Way.cell) == [(image.id, 4.0)]
        assert [reviews.expert_reviews_count(session, way) for way in (None, *Way)] == [3, 2, 1]
        add_review(session, image, "ls:1:3", status="withdrawn")
        assert reviews.expert_reviews_count(session, Way.field) == 1


def test_unfinished_images_were_only_skipped(database: Database) -> None:
    with database.session() as session:
        skipped, answered, taken_back = (add_image(session) for _ in range(3))
        add_review(session, skipped, "ls:1:1", status="skipped")
        add_review(session, answered, "ls:1:2", status="skipped")
        add_review(session, answered, "ls:1:3")
        add_review(session, taken_back, "ls:1:4", status="skipped")
        add_review(session, taken_back, "ls:1:4", status="withdrawn")
        add_review(session, skipped, "ls:2:5", way="cell")  # says nothing of the field
        add_review(session, add_image(session), "ls:2:6", way="cell", status="skipped")
        assert reviews.unfinished(session) == [skipped]


def test_threads_have_names() -> None:
    assert reviews.annotation_thread(3, 14) == "ls:3:14"
    assert reviews.import_thread("abc") == "import:abc"
