"""The dashboard's pages without a browser: what they say, how safely, and that nothing is open to others."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image as PillowImage
from sqlalchemy import select

from backend.api.app import create_app
from backend.api.dashboard.assets import FOR_GOOD, address
from db import drift, images, labels, predictions, queue, runs
from db.models import ReviewItem, Way, now
from db.queue import QueueEntry
from tests import builders
from tests.backend.server import Bench
from tests.backend.smears import HEIGHT, WIDTH, smear
from tests.dashboard_fields import Field
from tests.dashboard_record import Month

PAGES = ("", "/models", "/experts", "/queue", "/images", "/smears")
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def signed_in(bench: Bench) -> Iterator[TestClient]:
    """A client with a session."""
    with _signed_in(bench) as client:
        yield client


def _signed_in(bench: Bench) -> TestClient:
    client = TestClient(create_app(bench.settings, loader=bench.pairs), raise_server_exceptions=False)
    assert client.post("/dashboard/login", data={"token": bench.token}).status_code == 200
    return client


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_home_has_pages_too(signed_in: TestClient, page: str) -> None:
    answer = signed_in.get(f"/dashboard{page}")
    assert answer.status_code == 200
    assert "No training runs" in answer.text


def test_a_month_is_shown_from_either_engine(tmp_path: Path, database_url: str) -> None:
    bench = Bench(tmp_path / "home", database_url)
    pixels = io.BytesIO()
    PillowImage.fromarray(smear(1)).save(pixels, "PNG")
    cells = [((5.0, 10.0, 20.0, 30.0), "red blood cell"), ((25.0, 10.0, 39.0, 30.0), "ring")]
    fields = [
        Field(f"field {n}", f"slide {n // 2}", "p", pixels.getvalue() + bytes(n), ".png", (WIDTH, HEIGHT), cells)
        for n in range(6)
    ]
    with bench.database.session() as session:
        Month(session, bench.store, now()).fill(fields)
        (cell, *_) = labels.current_labels(session)
    client = _signed_in(bench)
    shown = {
        page: client.get(f"/dashboard{page}") for page in (*PAGES, f"/images/{cell.image_id}", f"/cells/{cell.cell_id}")
    }
    bench.database.dispose()
    assert {page: answer.status_code for page, answer in shown.items()} == dict.fromkeys(shown, 200)
    assert "cellloop-" in shown[""].text
    assert "▲ promoted" in shown["/models"].text
    assert "ada@example.org" in shown["/experts"].text
    assert "slide 0" in shown["/smears"].text
    assert "learned from it, as" in shown[f"/cells/{cell.cell_id}"].text


def test_drift_is_news_as_long_as_the_newest_check_says_so(signed_in: TestClient, bench: Bench) -> None:
    pair = bench.activate_pair()
    for drifted in (True, False):
        with bench.database.session() as session:
            drift.add_check(session, pair.id, drifted=drifted, reasons=["the stain is <b>another</b>"], numbers={})
        page = signed_in.get("/dashboard").text
        assert (f"Recent fields differ from those {pair.name} was accepted on" in page) is drifted
        assert ("the stain is &lt;b&gt;another" in page) is drifted


def test_hostile_names_are_text(signed_in: TestClient, bench: Bench) -> None:
    pair = bench.activate_pair()
    with bench.database.session() as session:
        image = builders.add_image(session, EVIL, group=EVIL, patient=EVIL)
        cell = builders.add_cell(session, image)
        builders.say(session, cell, "ring", minute=60 * 24 * 400, expert=EVIL)
        ranking = queue.add_ranking(session, pair.id, {})
        queue.replace_queue(session, ranking.id, [QueueEntry(image.id, 1.0, {}, reason=EVIL)])
        run = runs.open_run(session, "infected", EVIL[:32], {}, {})
        assert run is not None
        runs.start_run(session, run.id, 10)
        runs.progress(session, run.id, 1, 10, EVIL)
    for page in (*PAGES, f"/images/{image.id}", f"/cells/{cell.id}", f"/images?name={EVIL}"):
        answer = signed_in.get(f"/dashboard{page}")
        assert answer.status_code == 200, page
        assert EVIL not in answer.text, page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in signed_in.get("/dashboard/queue").text
    assert EVIL not in signed_in.get("/dashboard/images/x%3Cscript%3Ealert(1)%3C%2Fscript%3E").text


def test_every_reply_is_guarded(signed_in: TestClient, bench: Bench) -> None:
    bench.add_image(1)
    paths = {
        "/dashboard": 200, "/dashboard/login": 303, "/dashboard/nowhere": 404, "/dashboard/images/99": 404,
        "/dashboard/images/x": 422, "/dashboard/cells/99999999999": 422, "/dashboard/images?after=99999999999": 422,
        address("page.js"): 200, "/dashboard/images/1/file": 200,
    }  # fmt: skip
    for path, status in paths.items():
        answer = signed_in.get(path, follow_redirects=False)
        assert answer.status_code == status, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert path.startswith("/dashboard/static") or "no-" in answer.headers["cache-control"], path


def test_images_are_found_by_name_and_split(signed_in: TestClient, bench: Bench) -> None:
    with bench.database.session() as session:
        for number in range(25):
            builders.add_image(session, f"a {number:02}")
        builders.add_image(session, "b", split="test")
    first = signed_in.get("/dashboard/images?name=a&split=").text  # as the form sends it
    assert (first.count("<img"), "a 23" in first, "a 24" in first) == (24, True, False)
    address = first.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    second = signed_in.get(f"/dashboard/images{address}").text
    assert (second.count("<img"), "a 24" in second) == (1, True)
    assert signed_in.get("/dashboard/images?split=test").text.count("<img") == 1


def test_a_record_that_does_not_answer_is_said(signed_in: TestClient, bench: Bench) -> None:
    with bench.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE review_items")
    assert signed_in.get("/dashboard/queue").status_code == 503


def test_problems_are_pages(signed_in: TestClient) -> None:
    missing = signed_in.get("/dashboard/cells/7")
    assert missing.headers["content-type"].startswith("text/html")
    assert "expected a cell with id 7, found none" in missing.text
    assert signed_in.post("/dashboard/queue").status_code == 405


def test_files_may_be_kept_for_good(client: TestClient) -> None:
    client.auth = None
    path = address("plotly.js")
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    small = client.get(path, headers={"Accept-Encoding": "gzip"})
    assert plain.content == small.content, "the client unpacks it"
    assert plain.headers["cache-control"] == FOR_GOOD
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < len(gzip.compress(plain.content, 1))
    assert plain.headers["etag"] != small.headers["etag"]
    again = client.get(path, headers={"If-None-Match": small.headers["etag"], "Accept-Encoding": "gzip"})
    assert (again.status_code, again.content) == (304, b"")
    version = path.split("/")[3]
    for other in ("/0000/page.js", f"/{version}/../app.py", f"/{version}/nothing.js", f"/{version}/..%2fapp.py"):
        assert client.get(f"/dashboard/static{other}").status_code == 404, other


def test_pictures_are_checked_kept_and_hold_nothing(signed_in: TestClient, bench: Bench) -> None:
    bench.activate_pair()
    image = bench.add_image(1)
    [prediction] = bench.predict(image)
    with bench.database.session() as session:
        (cell, _), *_ = predictions.predicted_cells(session, prediction)
        entry = QueueEntry(image.id, 1.0, {}, Way.cell, cell_id=cell.cell_id, predicted_cell_id=cell.id)
        queue.replace_queue(session, queue.add_ranking(session, bench.active().id, {}).id, [entry])
    for path in (f"images/{image.id}/file", f"images/{image.id}/thumbnail.jpg", f"cells/{cell.cell_id}/crop.jpg"):
        first = signed_in.get(f"/dashboard/{path}")
        assert (first.status_code, first.headers["cache-control"]) == (200, "private, no-cache"), path
        again = signed_in.get(f"/dashboard/{path}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path
    with bench.database.session(read_only=True) as session:
        assert session.scalars(select(ReviewItem.assigned_until)).all() == [None]
    (bench.settings.files / image.file).write_bytes(b"damaged")
    assert signed_in.get(f"/dashboard/images/{image.id}/file").status_code == 500


def test_what_browsers_do_not_know_comes_as_png(signed_in: TestClient, bench: Bench) -> None:
    tiff = io.BytesIO()
    PillowImage.fromarray(smear(3)).save(tiff, "TIFF")
    stored = bench.store.put_bytes("images", tiff.getvalue(), ".tif")
    with bench.database.session() as session:
        image, _ = images.add_image(
            session, sha256=stored.sha256, file=stored.file, name="t.tif", width=WIDTH, height=HEIGHT, group="g",
            split="train", dataset="rendered",
        )  # fmt: skip
    answer = signed_in.get(f"/dashboard/images/{image.id}/file")
    assert (answer.headers["content-type"], answer.content[:4]) == ("image/png", b"\x89PNG")
