"""The expert who knows the truth, at work on what Label Studio serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from al_loop.formats.opener import FolderOpener
from al_loop.formats.records import SourceImage, SourceObject
from al_loop.revise import Answer
from al_loop.scripted_expert import SECONDS, answer_with_truth, review_next
from al_loop.sync import sync
from db import labels
from db.models import Action
from db.session import Database
from tests.al_loop.workshop import BOXES, CONFIG, Workshop, pushed_workshop, said

RED, RING = "red blood cell", "ring"
FAR = (300.0, 100.0, 340.0, 150.0)


def shifted(box: tuple[float, float, float, float], by: float) -> tuple[float, float, float, float]:
    return (box[0] + by, box[1], box[2] + by, box[3])


def test_the_truth_is_said_as_corrections_of_what_is_shown() -> None:
    predicted = [Answer("kept", BOXES[0], RED), Answer("wrong", BOXES[1], RED), Answer("none", FAR, RED)]
    truth = [
        SourceObject(RED, shifted(BOXES[0], 2)),  # fits well enough: a person leaves the box alone
        SourceObject(RING, shifted(BOXES[1], 10)),  # IoU .6: the same cell, another box
        SourceObject(RING, BOXES[2]),
    ]
    opinion = answer_with_truth(truth, predicted)
    assert opinion.answers[:2] == [Answer("kept", BOXES[0], RED), Answer("wrong", truth[1].box, RING)]
    assert (opinion.answers[2].box, opinion.answers[2].label) == (BOXES[2], RING)
    assert opinion.answers[2].key not in {"kept", "wrong", "none"}
    assert opinion.lead_time_s == pytest.approx(
        SECONDS["accepted"] + SECONDS["relabelled"] + SECONDS["moved"] + SECONDS["added"] + SECONDS["deleted"]
    )


def test_nothing_shown_or_nothing_there() -> None:
    assert [a.label for a in answer_with_truth([SourceObject(RING, FAR)], []).answers] == [RING]
    assert answer_with_truth([], [Answer("none", FAR, RED)]).answers == []
    assert answer_with_truth([], []).lead_time_s == 0


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return pushed_workshop(tmp_path / "home", sqlite_database, 2)


def source(workshop: Workshop, folder: Path, *objects: SourceObject) -> dict[str, SourceImage]:
    """The truth of the image whose task comes next, by its sha256."""
    task = workshop.expert.next_task(workshop.project.ls_project_id)
    assert task is not None
    folder.mkdir(exist_ok=True)
    return {task.data["sha256"]: SourceImage("x.png", None, FolderOpener(folder), 640, 480, objects=objects)}


def review(workshop: Workshop, truth: dict[str, SourceImage]) -> int | None:
    return review_next(workshop.expert, workshop.project, CONFIG, truth)


def test_its_reviews_make_sql_hold_the_truth(workshop: Workshop, tmp_path: Path) -> None:
    objects = [SourceObject(RED, BOXES[0]), SourceObject(RING, BOXES[1]), SourceObject(RING, FAR)]
    task_id = review(workshop, source(workshop, tmp_path / "source", *objects))
    [annotation] = workshop.fake.annotations.values()
    assert annotation.task == task_id
    assert annotation.lead_time == pytest.approx(0.15 + 2.0 + 4.0 + 1.0)
    sync(workshop, workshop.fake, workshop.project)
    assert said(workshop) == {(o.label, tuple(round(v) for v in o.box)) for o in objects}
    with workshop.database.session(read_only=True) as session:
        found = {live.action for live in labels.current_labels(session)}
    assert found == {Action.accepted, Action.relabelled, Action.added, Action.deleted}


def test_an_image_it_does_not_know_is_skipped_and_then_nothing_is_left(workshop: Workshop, tmp_path: Path) -> None:
    truth = source(workshop, tmp_path / "source", SourceObject(RED, BOXES[0]))
    assert review(workshop, truth) is not None
    assert review(workshop, truth) is not None
    assert review(workshop, truth) is None
    assert [annotation.was_cancelled for annotation in workshop.fake.annotations.values()] == [False, True]
