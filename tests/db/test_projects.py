"""Projects and tasks: what Label Studio holds, so that every push can be repeated."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import projects
from db.errors import NotFound, RecordError
from db.models import Project
from db.session import Database
from tests.builders import NOBODY, add_active_pair, add_image, add_prediction, at

URL = "http://127.0.0.1:8080"


def add_project(session: Session, ls_project_id: int = 1, url: str = URL) -> Project:
    return projects.upsert_project(
        session, url=url, ls_project_id=ls_project_id, title="cellloop", label_config="<View/>"
    )


def test_a_project_is_known_once_and_kept_up_to_date(database: Database) -> None:
    with database.session() as session:
        assert projects.project(session) is None
        first = add_project(session)
        projects.set_cursor(session, first.id, at(5))
        again = projects.upsert_project(session, url=URL, ls_project_id=1, title="new", label_config="<View> </View>")
        assert (again.id, again.title, again.label_config) == (first.id, "new", "<View> </View>")
        assert again.synced_until == at(5)
        elsewhere = add_project(session, url="http://elsewhere:8080")
        assert projects.project(session) is elsewhere
        assert projects.project(session, URL) is first
        assert projects.project(session, URL, ls_project_id=2) is None
        assert projects.projects(session) == [first, elsewhere]
        assert projects.projects(session, URL) == [first]
        assert projects.get(session, first.id) is first
        with pytest.raises(NotFound, match="label-studio connect"):
            projects.set_cursor(session, NOBODY, at(0))


def test_adding_tasks_again_changes_nothing(database: Database) -> None:
    with database.session() as session:
        project = add_project(session)
        one, two = add_image(session), add_image(session)
        first = projects.add_tasks(session, project.id, [(20, two.id), (10, one.id)])
        again = projects.add_tasks(session, project.id, [(10, one.id), (20, two.id)])
        assert [task.id for task in again] == [first[1].id, first[0].id]
        assert [task.ls_task_id for task in projects.tasks(session, project.id)] == [10, 20]
        assert projects.task_of(session, project.id, image_id=two.id) is first[0]
        assert projects.task_of(session, project.id, ls_task_id=10) is first[1]
        assert projects.task_of(session, project.id, ls_task_id=30) is None
        with pytest.raises(RecordError, match="either"):
            projects.task_of(session, project.id)


def test_a_second_task_for_the_same_image_is_refused(database: Database) -> None:
    with database.session() as session:
        project, image = add_project(session), add_image(session)
        projects.add_tasks(session, project.id, [(10, image.id)])
        with pytest.raises(RecordError, match="task 10 already, got 11"):
            projects.add_tasks(session, project.id, [(11, image.id)])


def test_two_images_cannot_share_a_task(database: Database) -> None:
    with database.session() as session:
        project_id, one, two = add_project(session).id, add_image(session).id, add_image(session).id
    with pytest.raises(IntegrityError), database.session() as session:
        projects.add_tasks(session, project_id, [(10, one), (10, two)])


def test_a_deleted_task_may_come_back_and_holds_nothing_of_ours_then(database: Database) -> None:
    with database.session() as session:
        project, image, other = add_project(session), add_image(session), add_image(session)
        task, staying = projects.add_tasks(session, project.id, [(10, image.id), (11, other.id)])
        prediction = add_prediction(session, image, add_active_pair(session))
        projects.mark_pushed(session, task.id, prediction.id, 77, 0.25)
        assert (task.pushed_prediction_id, task.pushed_ls_prediction_id) == (prediction.id, 77)
        assert task.pushed_score == 0.25
        assert projects.mark_deleted(session, [task.id, NOBODY]) == 1
        assert projects.mark_deleted(session, [task.id]) == 0
        assert projects.tasks(session, project.id) == [staying]
        assert projects.tasks(session, project.id, deleted=True) == [task, staying]
        (back,) = projects.add_tasks(session, project.id, [(12, image.id)])
        assert (back.id, back.ls_task_id, back.deleted_at) == (task.id, 12, None)
        assert (back.pushed_prediction_id, back.pushed_ls_prediction_id, back.pushed_score) == (None, None, None)


def test_pushing_to_an_unknown_task_is_refused(database: Database) -> None:
    with database.session() as session:
        prediction = add_prediction(session, add_image(session), add_active_pair(session))
        with pytest.raises(NotFound, match=str(NOBODY)):
            projects.mark_pushed(session, NOBODY, prediction.id, 1, None)


def test_pushes_are_recorded(database: Database) -> None:
    with database.session() as session:
        project, pair = add_project(session), add_active_pair(session)
        push = projects.add_push(session, project.id, pair.id, None, predictions=20, rescored=3)
        assert projects.pushes(session, project.id) == [push]
        assert (push.predictions, push.rescored, push.ranking_id) == (20, 3, None)
