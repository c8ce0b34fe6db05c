"""The dashboard in a real headless Chromium: every page, by keyboard, in both colour schemes, live, and by itself.

With CELLLOOP_SCREENSHOTS=FOLDER it shows real smears with the starter weights' predictions, and leaves pictures there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Request, expect

from backend.api.app import create_app
from db import inbox, runs
from tests.backend.server import Bench, running
from tests.browser import open_page
from tests.dashboard_fields import Starter, guess, real, rendered
from tests.dashboard_record import EXPERTS, Month

pytestmark = pytest.mark.browser

PICTURES = os.environ.get("CELLLOOP_SCREENSHOTS", "")
HOSTILE = "<img src=x onerror=alert(1)>"
PAGES = {
    "overview": "/dashboard", "models": "/dashboard/models", "experts": "/dashboard/experts",
    "queue": "/dashboard/queue", "images": "/dashboard/images", "image": "/dashboard/images/1",
    "cell": "/dashboard/cells/77" if PICTURES else "/dashboard/cells/1", "smears": "/dashboard/smears",
}  # fmt: skip


@pytest.fixture(scope="module")
def bench(
    _migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Bench]:
    """A home with a month's record."""
    folder = tmp_path_factory.mktemp("dashboard")
    bench = Bench(folder / "home", f"sqlite:///{shutil.copy(_migrated_sqlite, folder / 'cellloop.db')}")
    with bench.database.session() as session:
        month = Month(session, bench.store, datetime.now(UTC))
        if PICTURES:
            month.fill(real(request.getfixturevalue("data_root"), 36), Starter())
        else:
            month.fill(rendered(9, HOSTILE), guess, [HOSTILE, *EXPERTS])
    yield bench
    bench.database.dispose()


class Watched:
    """A page signed in to the dashboard, and what went wrong in it so far."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(f"{self.url}/"):
            self.wrong.append(f"asked for {request.url}")

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}")
        return self.page


@pytest.fixture(scope="module")
def signed_in(bench: Bench) -> Iterator[Watched]:
    with running(create_app(bench.settings, loader=bench.pairs)) as url, open_page() as page:
        watched = Watched(page, url)
        watched.open("/dashboard/queue")
        expect(page.get_by_label("Token")).to_be_focused()
        page.keyboard.type(bench.token)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{url}/dashboard/queue")
        yield watched


@pytest.fixture
def watched(signed_in: Watched) -> Iterator[Watched]:
    """After every test: no error and no warning in the console, no dialog, no request to anybody else."""
    signed_in.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    yield signed_in
    assert signed_in.wrong == []


def picture(page: Page, name: str) -> None:
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.evaluate("document.querySelectorAll('img[loading]').forEach((each) => (each.loading = 'eager'))")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def violations(page: Page, rules: Sequence[str] = ()) -> list[str]:
    """What axe-core finds on the page; only by these rules when given."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    found = Axe().run(page, options=options | ({"runOnly": list(rules)} if rules else {}))
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found.response["violations"]]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_its_charts_are_drawn(watched: Watched, name: str) -> None:
    page = watched.open(PAGES[name])
    expect(page.locator("h1")).to_have_count(1)
    plots = page.locator("figure.chart .plot")
    expect(page.locator(".plot .main-svg:first-child")).to_have_count(plots.count())
    picture(page, name)
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    picture(page, f"{name}-dark")
    assert violations(page, ["color-contrast"]) == []


def test_a_chart_says_in_words_and_in_a_table_what_it_shows(watched: Watched) -> None:
    page = watched.open("/dashboard/models")
    curve = page.get_by_role("figure").filter(has_text="Learning curve")
    named = re.compile(r"^Learning curve Version \d+ finds 0\.\d\d \(0\.\d\d to 0\.\d\d\) of the infected cells")
    expect(curve.get_by_role("img", name=named)).to_have_count(1)
    summary = curve.locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    assert curve.locator("tbody tr[data-mark=promoted]").count() == 7
    marks = page.evaluate("document.querySelector('#learning-curve .plot').layout.annotations.map((mark) => mark.x)")
    assert marks == [0, 1, 3, 4, 7, 8, 11], "a triangle at every promoted version"
    dashes = page.evaluate("document.querySelector('#learning-curve .plot').data.map((trace) => trace.line?.dash)")
    assert {"solid", "dash", "dot"} <= set(dashes)


def test_everything_is_reached_by_keyboard(watched: Watched) -> None:
    page = watched.open("/dashboard/images/1")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for target in ("pair", "", "show-truth"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == target
    outlines = page.locator("#field .truth")
    expect(outlines).to_be_visible()
    page.keyboard.press("Space")
    expect(outlines).to_be_hidden()
    page.locator("#zoom").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('#field').style.width") == "125%"
    focusable = "main a[href]:not([tabindex='-1']), main button, main input, main select, main summary"
    assert page.locator(focusable).count() == page.evaluate(
        "(all) => [...document.querySelectorAll(all)].filter((each) => { each.focus(); "
        "const style = getComputedStyle(each); "
        "return document.activeElement === each && style.outlineStyle === 'solid'; }).length",
        focusable,
    ), "each can have the focus, and shows it"


def test_hostile_names_stay_names(watched: Watched) -> None:
    if PICTURES:
        pytest.skip("pictures show friendly names")
    page = watched.open("/dashboard/smears")
    expect(page.locator("#parasitaemia .ytick text").filter(has_text=HOSTILE)).to_have_count(1)
    expect(page.get_by_role("rowheader", name=HOSTILE).first).to_be_visible()
    watched.open("/dashboard/experts")
    expect(page.get_by_role("rowheader", name=HOSTILE).first).to_be_visible()
    assert page.locator("img[src=x]").count() == 0


def test_a_training_is_watched_until_it_ends(watched: Watched, bench: Bench) -> None:
    page = watched.open("/dashboard")
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_attribute("value", "111")
    with bench.database.session() as session:
        (run,) = runs.all_open(session)
        runs.progress(session, run.id, 240, 300, "loss 0.301")
    expect(bar).to_have_attribute("value", "240", timeout=5000)
    expect(page.locator("#running")).to_contain_text("step 240 of 300 (80 %): loss 0.301")
    expect(page.locator("#doing")).to_have_text("infected: training, 80 %")
    expect(page.get_by_role("status")).to_contain_text("75 %")
    page.get_by_role("link", name="All of the queue").focus()
    with bench.database.session() as session:
        runs.cancel(session, run.id, "a person stopped it")
    expect(page.locator("#running")).to_contain_text("No training runs", timeout=5000)
    expect(page.get_by_role("status")).to_contain_text("Updated: Running now")
    assert page.evaluate("document.activeElement.textContent") == "All of the queue", "who reads goes on reading"


def test_the_operating_forms_work_without_scripts(watched: Watched, bench: Bench) -> None:
    browser, state = watched.page.context.browser, watched.page.context.storage_state()
    assert browser is not None
    with browser.new_context(java_script_enabled=False, storage_state=state) as plain:
        page = plain.new_page()
        page.goto(f"{watched.url}/dashboard")
        running = page.locator("#running")
        page.get_by_role("button", name="Retrain now").click()
        expect(running).to_contain_text("operate asked for one at")
        with bench.database.session() as session:  # as the worker does
            inbox.handle(session, [event.id for event in inbox.unhandled(session)])
            runs.open_run(session, "infected", "person", {}, {})
        page.reload()
        page.get_by_role("button", name="Cancel the training of infected").click()
        expect(running).to_contain_text("No training runs")
    with bench.database.session(read_only=True) as session:
        run = runs.latest(session, "infected")
        assert run is not None
        assert run.message == "cancelled by operate, on the dashboard"


def test_who_is_signed_out_is_told(watched: Watched) -> None:
    page = watched.open("/dashboard/queue")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{watched.url}/dashboard/login")
    assert violations(page) == []
    picture(page, "sign-in")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not a token of this installation, or not any more.")
    assert violations(page) == []
    watched.wrong.clear()  # the browser notes every 401
