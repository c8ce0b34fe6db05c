"""An expert at the keyboard: ten cells, one key each, in a real headless Chromium before a real Label Studio."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from backend.label_studio.cell_config import LETTERS, NOT_A_CELL, default_cell_config, parse_cells
from db import labels, queue
from db.models import ReviewItem, Way
from tests.browser import log_in, open_page
from tests.label_studio_fixture import RunningLabelStudio
from tests.two_ways import TwoWays, open_two_ways

pytestmark = [pytest.mark.label_studio, pytest.mark.browser]

ANSWERS = tuple(parse_cells(default_cell_config()).answers.values())
KEYS = dict(zip(ANSWERS, LETTERS, strict=True))
SAID = ("ring", "red blood cell", "schizont", NOT_A_CELL, "trophozoite", "gametocyte", "difficult", "leukocyte", "ring")
NEXT_WITHIN_S = 5.0  # the next crop on the screen; 1 s on idle processors


@pytest.fixture(scope="module")
def ways(label_studio: RunningLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoWays]:
    """Ten cells wait."""
    with open_two_ways(label_studio, tmp_path_factory.mktemp("keyboard"), "at the keyboard") as ways:
        ways.wait(*ways.pool()[:3], count=4)
        yield ways


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a fresh Chromium."""
    with open_page() as page:
        yield page


def wait_for_crop(page: Page, before: str) -> str:
    """The task that is shown with its crop, once it is another one than before."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        shown = page.evaluate(
            """() => {
                const id = document.querySelector(".lsf-current-task__task-id")?.firstChild?.textContent;
                const image = document.querySelector(".lsf-image img");
                return id && image && image.complete && image.naturalWidth === 480 ? id.replace("#", "") : "";
            }"""
        )
        if shown and shown != before:
            return str(shown)
        page.wait_for_timeout(20)
    raise AssertionError("no crop within a minute")


def test_ten_cells_by_keyboard_are_in_sql(ways: TwoWays, page: Page, label_studio: RunningLabelStudio) -> None:
    with ways.story.loop.database.session(read_only=True) as session:
        expected = [item.cell_id for item in queue.pending(session, Way.cell)]
    log_in(page, label_studio)
    page.goto(f"{label_studio.url}/projects/{ways.cells.ls_project_id}/data")
    page.get_by_role("button", name="Label All Tasks").click()
    shown, slowest, seen = wait_for_crop(page, ""), 0.0, []
    for answer in SAID:
        seen.append(int(shown))
        began = time.monotonic()
        page.keyboard.press(KEYS[answer])
        shown = wait_for_crop(page, shown)
        slowest = max(slowest, time.monotonic() - began)
    seen.append(int(shown))
    page.keyboard.press("2")  # the careful way: a number only answers, so that it can be corrected
    page.keyboard.press("3")
    if folder := os.environ.get("CELLLOOP_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/cells.png")
    page.keyboard.press("Space")
    wait_for_crop(page, shown)
    ways.sync()
    with ways.story.loop.database.session(read_only=True) as session:
        cell_of = {t.id: session.get_one(ReviewItem, t.data["item"]).cell_id
                   for t in ways.story.label_studio.client().tasks_since(ways.cells.ls_project_id)}  # fmt: skip
        revisions = [labels.history(session, cell_of[task] or 0) for task in seen]
        left = queue.pending(session, Way.cell)
    assert [cell_of[task] for task in seen] == expected[:10], "in our order"
    assert [[r.label or NOT_A_CELL for r in found] for found in revisions] == [[answer] for answer in (*SAID, "ring")]
    assert [item.cell_id for item in left] == expected[10:]
    assert slowest <= NEXT_WITHIN_S
