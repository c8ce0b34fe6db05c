"""An expert at the browser: a real headless Chromium in front of a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from db import labels, projects, queue
from db.models import Action, Way
from tests.browser import log_in, open_page
from tests.label_studio_fixture import RunningLabelStudio
from tests.story import Story, assert_same_truth, pushed_story

pytestmark = [pytest.mark.alone, pytest.mark.label_studio, pytest.mark.browser]

IN_SQL_WITHIN_S = 2.0


@pytest.fixture(scope="module")
def story(
    label_studio: RunningLabelStudio, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """Everything pushed, backend and worker up, and what a worker does at its start behind it."""
    with pushed_story(label_studio, prepared, tmp_path_factory.mktemp("browser"), "in the browser") as story:
        story.start("worker")
        log = story.logs / "worker.log"
        story.wait_for(lambda: "everything follows the serving pair" in log.read_text(), 60, "the worker")
        yield story


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a fresh Chromium that reaches loopback only."""
    with open_page() as page:
        yield page


def test_an_expert_corrects_one_class_and_it_is_in_sql_within_two_seconds(
    story: Story, page: Page, label_studio: RunningLabelStudio
) -> None:
    project = story.project
    with story.loop.database.session(read_only=True) as session:
        first = queue.pending(session, Way.field)[0]
        task = projects.task_of(session, project.id, image_id=first.image_id)
        assert task is not None
    log_in(page, label_studio)
    page.goto(f"{label_studio.url}/projects/{project.ls_project_id}/data")
    page.get_by_role("button", name="Label All Tasks").click()
    submit = page.get_by_test_id("bottombar-submit-button")
    submit.wait_for()
    opened = page.locator(".lsf-current-task__task-id").evaluate("element => element.firstChild.textContent")
    assert opened.lstrip("#") == str(task.ls_task_id)  # the most valuable smear comes first
    regions = page.locator(".lsf-outliner-item")
    expect(regions.first).to_be_visible()
    shown = regions.first.inner_text().splitlines()
    wrong, hotkey = ("schizont", "4") if "schizont" not in shown else ("ring", "3")

    regions.first.click()
    page.keyboard.press(hotkey)
    expect(regions.first).to_contain_text(wrong)
    submit.click()

    def in_sql() -> bool:
        with story.loop.database.session(read_only=True) as session:
            return bool(labels.current_labels(session, [first.image_id]))

    seconds = story.wait_for(in_sql, 60, "the revision")
    with story.loop.database.session(read_only=True) as session:
        found = labels.current_labels(session, [first.image_id])
    relabelled = [label for label in found if label.action is Action.relabelled]
    assert [label.label for label in relabelled] == [wrong]
    assert {label.expert for label in found} == {label_studio.email}
    assert seconds <= IN_SQL_WITHIN_S
    assert_same_truth(story)
