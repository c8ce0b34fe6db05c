"""The harness sees what is wrong: an installation at rest has no violation, and whatever breaks is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from al_loop.faults.diary import DiaryExpert
from al_loop.faults.invariants import violations
from al_loop.push import push, task_data
from al_loop.rank import rank
from al_loop.sync import sync
from backend.errors import LabelStudioUnavailable, StoredFileCorrupt
from backend.store import FileStore
from db import images, inbox, labels, projects, reviews, runs
from db.models import CurrentLabel, Project
from db.session import Database
from tests.al_loop.workshop import Workshop, pushed_workshop


class Rested:
    """What invariants look at: an installation at rest, and an expert who has said something."""

    def __init__(self, loop: Workshop) -> None:
        self.loop, self.studio, self.client = loop, self, loop.fake
        self.expert = DiaryExpert(loop.expert, loop.fake, user=1)
        self.expert.rng = random.Random(5)

    @property
    def projects(self) -> list[Project]:
        return [self.loop.project]

    def settle(self) -> None:
        """What a worker would do."""
        sync(self.loop, self.loop.fake, self.loop.project)
        rank(self.loop.database)
        push(self.loop, self.loop.fake, self.loop.project)

    def kinds(self) -> set[str]:
        """Kinds of what is wrong."""
        found: Any = violations(self, self.expert.diary)  # type: ignore[arg-type]
        return {violation.kind for violation in found}


@pytest.fixture
def rested(tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Rested:
    monkeypatch.setattr(FileStore, "verify", lambda store, file, sha256: store.path(file))  # rows without files
    rested = Rested(pushed_workshop(tmp_path, sqlite_database, 6))
    for _ in range(12):
        rested.expert.act(rested.loop.project, 3)
    rested.settle()
    return rested


def test_an_installation_at_rest_has_none(rested: Rested) -> None:
    diary = rested.expert.diary
    assert max(len(entry.states) for entry in diary.entries.values()) > 1, "answers were changed"
    assert any(entry.gone for entry in diary.entries.values()), "and deleted"
    assert rested.kinds() == set()


def submit_unseen(rested: Rested) -> None:
    rested.expert.act(rested.loop.project, 9)


def remember_another_state(rested: Rested) -> None:
    entry = next(entry for entry in rested.expert.diary.entries.values() if not entry.gone)
    entry.states.append([{"id": "never"}])


def forget_a_state(rested: Rested) -> None:
    entry = next(e for e in rested.expert.diary.entries.values() if not e.gone and e.states[-1] is not None)
    rested.loop.expert.update(rested.expert.diary.live(rested.loop.project.ls_project_id)[0], [])
    rested.settle()
    entry.states[:] = entry.states[-1:]


def double_a_task(rested: Rested) -> None:
    with rested.loop.database.session(read_only=True) as session:
        image = images.pool(session)[0]
    rested.loop.fake.import_tasks(rested.loop.project.ls_project_id, [task_data(image)])


def double_a_prediction(rested: Rested) -> None:
    held = next(iter(rested.loop.fake.predictions.values()))
    item = {"task": held.task, "model_version": held.model_version, "score": held.score, "result": []}
    rested.loop.fake.import_predictions(rested.loop.project.ls_project_id, [item])


def forget_a_current_label(rested: Rested) -> None:
    with rested.loop.database.session() as session:
        session.execute(delete(CurrentLabel).where(CurrentLabel.revision_id == labels.newest_revision_id(session)))


def leave_a_run_open(rested: Rested) -> None:
    with rested.loop.database.session() as session:
        runs.open_run(session, "infected", "person", {}, {})


def leave_an_event(rested: Rested) -> None:
    with rested.loop.database.session() as session:
        inbox.receive(session, "ANNOTATION_CREATED", {})


def lose_an_annotation(rested: Rested) -> None:
    number = rested.expert.diary.live(rested.loop.project.ls_project_id)[0]
    rested.loop.expert.delete(number)


def spoil_a_score(rested: Rested) -> None:
    with rested.loop.database.session(read_only=True) as session:
        task = next(t for t in projects.tasks(session, rested.loop.project.id) if t.image_id in waiting(rested))
    rested.loop.fake.set_scores({task.pushed_ls_prediction_id or 0: 0.123})


def waiting(rested: Rested) -> set[int]:
    with rested.loop.database.session(read_only=True) as session:
        return {image.id for image in images.pool(session)}


@pytest.mark.parametrize(
    ("spoil", "kinds"),
    [
        (submit_unseen, {"lost"}),
        (remember_another_state, {"lost"}),
        (forget_a_state, {"doubled"}),
        (double_a_task, {"doubled", "lost"}),
        (double_a_prediction, {"doubled"}),
        (forget_a_current_label, {"wrong"}),
        (leave_a_run_open, {"stuck"}),
        (leave_an_event, {"stuck"}),
        (lose_an_annotation, {"lost", "doubled"}),
        (spoil_a_score, {"stuck"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_spoilt_is_named(rested: Rested, spoil: Callable[[Rested], None], kinds: set[str]) -> None:
    spoil(rested)
    assert kinds <= rested.kinds()


def test_a_damaged_file_is_named(rested: Rested, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> Path:
        raise StoredFileCorrupt("expected other bytes")

    monkeypatch.setattr(FileStore, "verify", damaged)
    assert rested.kinds() == {"wrong"}


def test_an_expert_tries_again_and_says_nothing_twice(rested: Rested, monkeypatch: pytest.MonkeyPatch) -> None:
    expert, submit = rested.expert, rested.loop.expert.submit
    expert.rng = random.Random(2)
    before = len(expert.diary.entries)

    def lose_the_answer(*args: Any, **kwargs: Any) -> None:
        submit(*args, **kwargs)
        raise LabelStudioUnavailable("the connection broke")

    monkeypatch.setattr(expert._expert, "submit", lose_the_answer)
    while not expert.unfinished:
        expert.act(rested.loop.project, 99)
    assert expert.finish()
    assert len(expert.diary.entries) == before + 1
    rested.settle()
    assert rested.kinds() == set()
    with rested.loop.database.session(read_only=True) as session:
        assert len(reviews.live_threads(session)) == len(expert.diary.live(rested.loop.project.ls_project_id))
