"""Syncs that overtake each other, that people overtake, and that die: Label Studio's present state wins."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from al_loop.sync import sync
from db import projects
from db.models import LabelRevision, Review, ReviewStatus
from db.session import Database
from tests import builders
from tests.al_loop.test_sync import NEW, run, states
from tests.al_loop.workshop import Workshop, pushed_workshop, region, relabelled, said, submit_next
from tests.fake_expert import FakeExpert


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return pushed_workshop(tmp_path, sqlite_database, 2)


@pytest.fixture
def on_both(tmp_path: Path, database: Database) -> Workshop:
    """The same, once per engine."""
    return pushed_workshop(tmp_path, database, 2)


@pytest.mark.parametrize("overtaken_at", ["users", "task_ids"])
def test_two_syncs_interleaved_add_nothing_twice(on_both: Workshop, overtaken_at: str) -> None:
    submit_next(on_both)
    overtake(on_both, overtaken_at, lambda: None)
    first = run(on_both)
    assert first.reviews["submitted"] == (0 if overtaken_at == "users" else 1)
    with on_both.database.session(read_only=True) as session:
        assert session.query(Review).count() == 1
        assert session.query(LabelRevision).count() == 3


def overtake(workshop: Workshop, name: str, meanwhile: object) -> None:
    """When the client next calls `name`, something happens and another sync runs from start to end."""

    def interrupt(called: str) -> None:
        if called == name:
            workshop.fake.on_call = lambda name: None
            meanwhile()  # type: ignore[operator]
            run(workshop)

    workshop.fake.on_call = interrupt


def test_what_was_read_before_an_update_does_not_undo_it(workshop: Workshop) -> None:
    annotation = submit_next(workshop)
    overtake(workshop, "users", lambda: workshop.expert.update(annotation.id, relabelled(annotation.result, 0, "ring")))
    run(workshop)
    assert ("ring", (20, 20, 60, 60)) in said(workshop)
    assert states(workshop, annotation.id) == [ReviewStatus.submitted]


def test_what_was_read_before_a_deletion_does_not_bring_it_back(workshop: Workshop) -> None:
    annotation = submit_next(workshop)
    run(workshop)
    workshop.expert.update(annotation.id, relabelled(annotation.result, 0, "ring"))
    overtake(workshop, "users", lambda: workshop.expert.delete(annotation.id))
    run(workshop)
    assert said(workshop) == set()
    assert states(workshop, annotation.id) == [ReviewStatus.submitted, ReviewStatus.withdrawn]


def test_what_was_read_before_a_second_annotation_does_not_withdraw_it(workshop: Workshop) -> None:
    annotation = submit_next(workshop)
    added = [region("byhand0001", NEW)]
    overtake(workshop, "users", lambda: FakeExpert(workshop.fake, 2).submit(annotation.task or 0, added))
    run(workshop)
    assert len(said(workshop)) == 4
    with workshop.database.session(read_only=True) as session:
        assert {review.status for review in session.query(Review)} == {ReviewStatus.submitted}


def test_a_task_pushed_while_the_sweep_looks_is_not_taken_for_deleted(workshop: Workshop) -> None:
    submit_next(workshop)

    def push_one() -> None:
        ids = workshop.fake.import_tasks(workshop.project.ls_project_id, [{"image": "x"}])
        with workshop.database.session() as session:
            projects.add_tasks(session, workshop.project.id, [(ids[0], builders.add_image(session).id)])

    living = workshop.fake.task_ids

    def late(project_id: int) -> set[int]:
        found = living(project_id)
        push_one()
        return found

    workshop.fake.task_ids = late  # type: ignore[method-assign]
    run(workshop)
    with workshop.database.session(read_only=True) as session:
        assert len(projects.tasks(session, workshop.project.id)) == 3


def test_a_task_that_changes_while_later_ones_are_read_is_read_next_time(workshop: Workshop) -> None:
    first, second = submit_next(workshop), submit_next(workshop)
    tasks = sorted([first, second], key=lambda annotation: annotation.task or 0)
    seconds = iter([0.0, 300.0])

    def change(task_id: int) -> None:
        workshop.fake.on_task = lambda task_id: None
        assert task_id == tasks[0].task
        workshop.expert.update(tasks[0].id, relabelled(tasks[0].result, 0, "ring"))
        workshop.fake.clock += timedelta(seconds=290)  # a long reading, at the end of which somebody else submits
        workshop.expert.update(tasks[1].id, relabelled(tasks[1].result, 0, "schizont"))

    workshop.fake.on_task = change
    sync(workshop, workshop.fake, workshop.project, clock=lambda: next(seconds))
    run(workshop)
    assert {label for label, box in said(workshop) if box == (20, 20, 60, 60)} == {"ring", "schizont"}


def test_a_sync_that_dies_halfway_is_finished_by_the_next(workshop: Workshop) -> None:
    submit_next(workshop)
    submit_next(workshop)
    workshop.fake.on_call = lambda name: setattr(workshop.fake, "down", name == "task_ids")
    with pytest.raises(Exception, match="nobody listens"):
        run(workshop)
    assert workshop.project.synced_until is None, "the cursor waits for everything before it"
    workshop.fake.on_call = lambda name: None
    workshop.fake.down = False
    run(workshop)
    assert len(said(workshop)) == 3
    assert workshop.project.synced_until is not None
    with workshop.database.session(read_only=True) as session:
        assert session.query(LabelRevision).count() == 6
