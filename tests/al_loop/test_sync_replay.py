"""Any sequence of what experts do, with syncs at any moment, ends with SQL's labels equal to Label Studio's truth."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from al_loop.sync import sync
from backend.instances import CLASSES, DIFFICULT
from backend.label_studio.regions import from_regions
from db import labels, projects, reviews
from db.models import ReviewStatus
from db.session import Database
from tests.al_loop.workshop import CONFIG, SIZE, Box, Cells, Workshop, pushed_workshop, region, relabelled
from tests.fake_expert import FakeExpert

ACTIONS = (
    "submit",
    "skip",
    "unskip",
    "relabel",
    "move",
    "drop",
    "add",
    "redraw",
    "delete",
    "draft",
    "sync",
    "overtake",
    "clock back",
)
# Where experts draw: two places where nothing was predicted, so that they may overlook the same cell.
PLACES: tuple[Box, ...] = ((300.0, 100.0, 340.0, 150.0), (400.0, 100.0, 460.0, 160.0))

Event = tuple[str, int, int, str, int]  # action, task, user, label, which region or place
events = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.integers(0, 1),
        st.integers(1, 2),
        st.sampled_from((*CLASSES, DIFFICULT)),
        st.integers(0, 3),
    ),
    max_size=25,
)


def run(workshop: Workshop) -> None:
    sync(workshop, workshop.fake, workshop.project)


def act(workshop: Workshop, event: Event, tasks: Sequence[int], number: int) -> None:
    """Do this where it is possible; otherwise nothing happens."""
    name, task, user, label, which = event
    expert, task_id = FakeExpert(workshop.fake, user), tasks[task]
    mine = [a for a in workshop.fake.annotations_of(task_id) if a.completed_by == user]
    if name == "sync":
        run(workshop)
    elif name == "clock back":
        workshop.fake.clock -= timedelta(hours=1)
    elif name == "overtake":  # what the next sync reads is old before it is written

        def meanwhile(called: str) -> None:
            if called == "users":
                workshop.fake.on_call = lambda name: None
                act(workshop, ("relabel", task, user, label, which), tasks, number)
                run(workshop)

        workshop.fake.on_call = meanwhile
    elif name == "submit" and not mine:
        prediction = next(p for p in workshop.fake.predictions.values() if p.task == task_id)
        expert.submit(task_id, prediction.result, parent_prediction=prediction.id)
    elif name == "skip" and not mine:
        expert.skip(task_id)
    elif mine and mine[0].was_cancelled and name == "unskip":
        expert.unskip(mine[0].id, [region(f"unskip{number}", PLACES[which % 2], label)])
    elif mine and name in ("delete", "draft"):
        (expert.delete if name == "delete" else expert.convert_to_draft)(mine[0].id)
    elif mine and not mine[0].was_cancelled:
        expert.update(mine[0].id, edited(name, mine[0].result, label, which, number))


def edited(name: str, result: list[Any], label: str, which: int, number: int) -> list[Any]:
    """The result after one edit."""
    if name == "add":
        box = PLACES[which % 2]
        taken = [item.box for item in from_regions(result, CONFIG, SIZE).regions]
        near = any(abs(box[0] - other[0]) < 40 for other in taken)
        return result if near else [*result, region(f"byhand{number}", box, label)]
    if not result:
        return result
    at = which % len(result)
    parsed = from_regions([result[at]], CONFIG, SIZE).regions[0]
    if name == "relabel":
        return relabelled(result, at, label)
    if name == "move":
        x1, y1, x2, y2 = parsed.box
        moved = region(parsed.key, (x1 + 3, y1, x2 + 3, y2), parsed.label)
        return [*result[:at], moved, *result[at + 1 :]]
    if name == "redraw":  # erased and drawn once more: another region id, the same cell
        return [*result[:at], region(f"redraw{number}", parsed.box, label), *result[at + 1 :]]
    return [*result[:at], *result[at + 1 :]] if name == "drop" else result


def drawn(result: Sequence[Any]) -> Cells:
    """What an annotation says."""
    return {(r.label, tuple(round(v) for v in r.box)) for r in from_regions(result, CONFIG, SIZE).regions}


def assert_truth(workshop: Workshop) -> None:
    """Every annotation is in SQL as Label Studio holds it; with a single one, so are the image's current labels."""
    fake = workshop.fake
    with workshop.database.session(read_only=True) as session:
        ours = projects.tasks(session, workshop.project.id)
        live = reviews.live_threads(session, workshop.project.ls_project_id)
        said = {
            review.ls_annotation_id: {
                (item.label, tuple(round(v) for v in item.box or ()))
                for item in labels.thread_labels(session, thread)
                if item.label is not None
            }
            for thread, review in live.items()
        }
        skipped = {review.ls_annotation_id for review in live.values() if review.status is ReviewStatus.skipped}
        current: dict[int, Cells] = {task.ls_task_id: set() for task in ours}
        task_of = {task.image_id: task.ls_task_id for task in ours}
        for item in labels.current_labels(session):
            if item.label is not None and item.box is not None:
                current[task_of[item.image_id]].add((item.label, tuple(round(v) for v in item.box)))
    held = fake.annotations.values()
    assert said == {a.id: set() if a.was_cancelled else drawn(a.result) for a in held}
    assert skipped == {a.id for a in held if a.was_cancelled}
    for task_id, found in current.items():
        answers = [drawn(a.result) for a in fake.annotations_of(task_id) if not a.was_cancelled]
        if len(answers) < 2:
            assert found == (answers[0] if answers else set())
        else:  # whoever answered a cell last: nothing that nobody says
            assert found <= answers[0] | answers[1]


def check_replay(database: Database, history: Sequence[Event]) -> None:
    home = Path(tempfile.mkdtemp())
    try:
        workshop = pushed_workshop(home, database, 2)
        with workshop.database.session(read_only=True) as session:
            tasks = [task.ls_task_id for task in projects.tasks(session, workshop.project.id)]
        for number, event in enumerate(history):
            act(workshop, event, tasks, number)
        run(workshop)
        workshop.fake.on_call = lambda name: None
        run(workshop)
        assert_truth(workshop)
        with database.session() as session:
            before = labels.newest_revision_id(session), len(reviews.live_threads(session))
            projects.get(session, workshop.project.id).synced_until = None
        run(workshop)
        with database.session(read_only=True) as session:
            assert (labels.newest_revision_id(session), len(reviews.live_threads(session))) == before
    finally:
        shutil.rmtree(home)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=events)
def test_labels_are_label_studios_truth_whenever_we_looked(sqlite_url: str, history: list[Event]) -> None:
    migrated = Path(sqlite_url.removeprefix("sqlite:///"))
    database = Database(f"sqlite:///{shutil.copy(migrated, migrated.with_name('replay.db'))}")
    try:
        check_replay(database, history)
    finally:
        database.dispose()
        for file in migrated.parent.glob("replay.db*"):
            file.unlink()


def test_labels_are_label_studios_truth_on_both_engines(database: Database) -> None:
    check_replay(
        database,
        [
            ("submit", 0, 1, "ring", 0),
            ("sync", 0, 1, "ring", 0),
            ("add", 0, 1, "ring", 0),
            ("submit", 0, 2, "ring", 0),
            ("redraw", 0, 2, "schizont", 1),
            ("overtake", 0, 1, "gametocyte", 2),
            ("sync", 0, 1, "ring", 0),
            ("skip", 1, 1, "ring", 0),
            ("sync", 0, 1, "ring", 0),
            ("unskip", 1, 1, "trophozoite", 1),
            ("draft", 0, 1, "ring", 0),
            ("clock back", 0, 1, "ring", 0),
            ("relabel", 1, 1, "schizont", 0),
        ],
    )
