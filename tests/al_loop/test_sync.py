"""Everything an expert does ends in SQL, once, whatever happens to the sync."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from al_loop.push import push
from al_loop.rank import rank
from al_loop.record_review import SyncReport
from al_loop.sync import pause_after, sync
from backend.errors import LabelStudioUnavailable
from db import cells, labels, projects, queue, reviews
from db.models import Action, LabelRevision, Review, ReviewStatus
from db.session import Database
from tests.al_loop.workshop import (
    BOXES,
    Workshop,
    new_pair,
    newest_revision,
    pushed_workshop,
    region,
    relabelled,
    said,
    submit_next,
)
from tests.fake_expert import FakeExpert

ALL_RED = {("red blood cell", (20, 20, 60, 60)), ("red blood cell", (100, 20, 140, 60)),
           ("red blood cell", (180, 20, 220, 60))}  # fmt: skip
NEW = (300.0, 100.0, 340.0, 150.0)


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return pushed_workshop(tmp_path, sqlite_database, 2)


@pytest.fixture
def on_both(tmp_path: Path, database: Database) -> Workshop:
    """The same, once per engine."""
    return pushed_workshop(tmp_path, database, 2)


def run(workshop: Workshop) -> SyncReport:
    return sync(workshop, workshop.fake, workshop.project)


def actions(workshop: Workshop) -> dict[str, int]:
    """Live revisions by action."""
    with workshop.database.session(read_only=True) as session:
        found = [live.action.value for live in labels.current_labels(session)]
    return {action: found.count(action) for action in set(found)}


def states(workshop: Workshop, annotation_id: int) -> list[ReviewStatus]:
    with workshop.database.session(read_only=True) as session:
        thread = reviews.annotation_thread(workshop.project.ls_project_id, annotation_id)
        return [review.status for review in reviews.history(session, thread)]


def test_it_notes_when_it_last_read_to_the_end(workshop: Workshop) -> None:
    run(workshop)
    first = workshop.project.synced_at
    run(workshop)  # nobody has changed anything
    assert first is not None
    assert workshop.project.synced_at is not None
    assert workshop.project.synced_at > first
    workshop.fake.down = True
    before = workshop.project.synced_at
    with pytest.raises(LabelStudioUnavailable):
        run(workshop)
    assert workshop.project.synced_at == before


def test_submit_answers_every_cell_shown(on_both: Workshop) -> None:
    def change(result: list[dict]) -> list[dict]:
        return [*relabelled(result, 0, "ring")[:2], region("byhand0001", NEW, "schizont")]

    annotation = submit_next(on_both, change)
    report = run(on_both)
    assert dict(report.reviews) == {"submitted": 1}
    assert report.revisions == {"relabelled": 1, "accepted": 1, "deleted": 1, "added": 1}
    assert said(on_both) == {
        ("ring", (20, 20, 60, 60)), ("red blood cell", (100, 20, 140, 60)), ("schizont", (300, 100, 340, 150)),
    }  # fmt: skip
    with on_both.database.session(read_only=True) as session:
        review = session.query(Review).one()
        assert review.expert == "ada@example.org"
        assert review.content == on_both.fake.annotations[annotation.id].result
        assert review.prediction_id is not None
        assert session.query(LabelRevision).filter(LabelRevision.predicted_cell_id.is_not(None)).count() == 3
        assert len(queue.pending(session)) == 1


def test_update_records_only_what_changed(workshop: Workshop) -> None:
    annotation = submit_next(workshop)
    run(workshop)
    workshop.expert.update(annotation.id, relabelled(annotation.result, 1, "trophozoite"))
    report = run(workshop)
    assert report.revisions == {"relabelled": 1}
    assert said(workshop) == ALL_RED - {("red blood cell", (100, 20, 140, 60))} | {("trophozoite", (100, 20, 140, 60))}


def test_skip_says_nothing_and_unskip_everything(workshop: Workshop) -> None:
    task = workshop.expert.next_task(workshop.project.ls_project_id)
    assert task is not None
    annotation = workshop.expert.skip(task.id)
    report = run(workshop)
    assert (dict(report.reviews), dict(report.revisions)) == ({"skipped": 1}, {})
    assert said(workshop) == set()
    workshop.expert.unskip(annotation.id, task.predictions[0].result)
    run(workshop)
    assert states(workshop, annotation.id) == [ReviewStatus.skipped, ReviewStatus.submitted]
    assert said(workshop) == ALL_RED


@pytest.mark.parametrize("gone", ["delete", "convert_to_draft"])
def test_an_annotation_that_goes_away_takes_its_labels_along(workshop: Workshop, gone: str) -> None:
    annotation = submit_next(workshop)
    run(workshop)
    getattr(workshop.expert, gone)(annotation.id)
    report = run(workshop)
    assert (dict(report.reviews), dict(report.revisions)) == ({"withdrawn": 1}, {"withdrawn": 3})
    assert said(workshop) == set()
    assert states(workshop, annotation.id) == [ReviewStatus.submitted, ReviewStatus.withdrawn]
    again = workshop.expert.submit(annotation.task or 0, annotation.result)
    run(workshop)
    assert said(workshop) == ALL_RED
    assert again.id != annotation.id


def test_the_newest_of_two_experts_counts_until_it_is_taken_back(on_both: Workshop) -> None:
    first = submit_next(on_both)
    second = FakeExpert(on_both.fake, 2)
    other = second.submit(
        first.task or 0, relabelled(first.result, 0, "ring"), parent_prediction=first.parent_prediction
    )
    run(on_both)
    assert ("ring", (20, 20, 60, 60)) in said(on_both)
    assert len(said(on_both)) == 3
    with on_both.database.session(read_only=True) as session:
        assert {live.expert for live in labels.current_labels(session)} == {"ben@example.org"}
    second.delete(other.id)
    run(on_both)
    assert said(on_both) == ALL_RED


def test_a_deleted_task_is_found_by_the_sweep_only(workshop: Workshop) -> None:
    annotation = submit_next(workshop)
    run(workshop)
    workshop.fake.delete_task(annotation.task or 0)
    assert not sync(workshop, workshop.fake, workshop.project, sweep=False).changed
    assert said(workshop) == ALL_RED
    assert dict(run(workshop).reviews) == {"withdrawn": 1}
    assert said(workshop) == set()
    assert not run(workshop).changed
    with workshop.database.session(read_only=True) as session:
        assert len(projects.tasks(session, workshop.project.id)) == 1
        assert len(projects.tasks(session, workshop.project.id, deleted=True)) == 2


def test_a_region_nobody_understands_spoils_no_other(workshop: Workshop) -> None:
    broken = region("broken0001", NEW) | {"value": {"x": "left", "rectanglelabels": ["ring"]}}
    annotation = submit_next(workshop, lambda result: [*result, broken])
    report = run(workshop)
    assert len(report.problems) == 1
    assert f"annotation {annotation.id}" in report.problems[0]
    assert said(workshop) == ALL_RED
    with workshop.database.session(read_only=True) as session:
        assert broken in session.query(Review).one().content


def test_without_a_parent_prediction_regions_of_ours_are_still_answers(workshop: Workshop) -> None:
    task = workshop.expert.next_task(workshop.project.ls_project_id)
    assert task is not None
    kept = [item | {"origin": "prediction"} for item in task.predictions[0].result[:2]]
    workshop.expert.submit(task.id, kept)
    assert run(workshop).revisions == {"accepted": 2, "deleted": 1}


def test_drawn_from_nothing_everything_is_added_and_nothing_deleted(workshop: Workshop) -> None:
    task = workshop.expert.next_task(workshop.project.ls_project_id)
    assert task is not None
    workshop.expert.submit(task.id, [region("byhand0001", NEW)])
    assert run(workshop).revisions == {"added": 1}


def test_an_answer_to_an_older_pairs_prediction_is_compared_with_that(workshop: Workshop) -> None:
    task = workshop.expert.next_task(workshop.project.ls_project_id)
    assert task is not None
    shown = task.predictions[0]
    with workshop.database.session(read_only=True) as session:
        image_ids = [t.image_id for t in projects.tasks(session, workshop.project.id)]
    new_pair(workshop, image_ids, [*BOXES[:2], NEW])
    rank(workshop.database)
    push(workshop, workshop.fake, workshop.project)
    workshop.expert.submit(task.id, shown.result, parent_prediction=shown.id)
    # The newer pair's extra cell was not on the screen: it is neither deleted nor accepted.
    assert run(workshop).revisions == {"accepted": 3}
    with workshop.database.session(read_only=True) as session:
        assert session.query(Review).one().prediction_id is not None


def test_a_cell_redrawn_by_hand_keeps_its_identity(on_both: Workshop) -> None:
    def redraw(result: list[dict]) -> list[dict]:
        return [region("byhand0001", (22.0, 21.0, 61.0, 62.0)), *result[1:]]

    annotation = submit_next(on_both, redraw)
    report = run(on_both)
    assert report.revisions == {"relabelled": 1, "accepted": 2}
    with on_both.database.session(read_only=True) as session:
        shown = {item["id"] for item in on_both.fake.predictions[annotation.parent_prediction or 0].result}
        assert {live.key for live in labels.current_labels(session)} == shown
    second = FakeExpert(on_both.fake, 2)
    for expert, key in ((on_both.expert, "overlooked"), (second, "overlooke2")):
        expert.submit(annotation.task or 0, [region(key, NEW)])
    run(on_both)
    assert [box for _, box in said(on_both)].count((300, 100, 340, 150)) == 1


def test_a_corner_dragged_again_and_again_is_noticed(workshop: Workshop) -> None:
    annotation = submit_next(workshop)
    run(workshop)
    for drag in (0.7, 1.4):  # either step alone is within the editor's rounding
        moved = [region(annotation.result[0]["id"], (20.0 + drag, 20.0, 60.0, 60.0), "red blood cell")]
        workshop.expert.update(annotation.id, [*moved, *annotation.result[1:]])
        run(workshop)
    with workshop.database.session(read_only=True) as session:
        live = next(live for live in labels.current_labels(session) if live.action is Action.moved)
    assert live.box is not None
    assert live.box[0] == pytest.approx(21.4, abs=1e-3)


def test_syncing_again_or_after_losing_the_cursor_adds_nothing(on_both: Workshop) -> None:
    submit_next(on_both)
    submit_next(on_both, lambda result: relabelled(result, 0, "ring"))
    run(on_both)
    before = newest_revision(on_both)
    assert not run(on_both).changed
    with on_both.database.session() as session:
        projects.get(session, on_both.project.id).synced_until = None
    assert not run(on_both).changed
    assert newest_revision(on_both) == before


def test_a_task_that_is_none_of_ours_is_left_alone(workshop: Workshop) -> None:
    [foreign] = workshop.fake.import_tasks(workshop.project.ls_project_id, [{"image": "https://example.org/x.png"}])
    workshop.expert.submit(foreign, [region("byhand0001", NEW)])
    report = run(workshop)
    assert not report.changed
    assert said(workshop) == set()
    with workshop.database.session(read_only=True) as session:
        assert all(not cells.cells_by_key(session, image_id).get("byhand0001") for image_id in (1, 2))


def test_what_a_wrong_clock_stamped_between_two_readings_is_found_by_the_next_sweep(workshop: Workshop) -> None:
    fake = workshop.fake
    first = submit_next(workshop)
    fake.clock += timedelta(hours=2)
    workshop.expert.update(first.id, relabelled(first.result, 0, "ring"))  # the cursor is here
    run(workshop)
    before = said(workshop)
    assert before
    fake.clock -= timedelta(hours=1)
    workshop.expert.delete(first.id)
    submit_next(workshop)
    fake.clock += timedelta(hours=1)
    assert not sync(workshop, fake, workshop.project, sweep=False).changed, "no polling by time finds it"
    assert said(workshop) == before
    fake.calls.clear()
    assert run(workshop).reviews == {"submitted": 1, "withdrawn": 1}
    assert said(workshop) == ALL_RED
    assert fake.calls.count("tasks_since") == 2
    fake.calls.clear()
    assert not run(workshop).changed
    assert fake.calls.count("tasks_since") == 1, "what was read once is known"


def test_the_pause_between_readings_follows_their_length() -> None:
    assert [pause_after(seconds) for seconds in (0.0, 0.2, 60.0)] == [0.2, 0.4, 0.5]
