"""/predict: one item per task; stored answers fast, missing ones within the budget, the rest requested."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from backend.fuse import FusionConfig
from backend.preannotate import Pair
from backend.serving import Served, predict_and_store, region_cells
from db import predictions, queue
from db.answers import ServingPair
from db.session import Database
from tests.backend.server import Bench
from tests.backend.smears import HEIGHT, WIDTH, DiscDetector

BIG = 1500


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The SELECT statements sent while it lasts."""
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def ask(client: TestClient, body: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    response = client.post("/predict", json=body, **more)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    assert len(results) == len(body["tasks"])
    return results


def requested(bench: Bench) -> list[int]:
    with bench.database.session(read_only=True) as session:
        return [image.id for image in predictions.requests(session)]


def test_before_any_model_every_task_gets_a_reason_and_nothing_is_stored(client: TestClient, bench: Bench) -> None:
    images = [bench.add_image(seed) for seed in (1, 2)]
    expected = {"model_version": "cellloop-untrained", "reason": "no model is trained yet"}
    assert ask(client, bench.body(*images, "/data/upload/1/x.png")) == [expected] * 3


def test_stored_regions_carry_key_score_and_reason(client: TestClient, bench: Bench) -> None:
    image = bench.add_image(1)
    row = bench.activate_pair()
    (prediction_id,) = bench.predict(image)
    with bench.database.session() as session:
        cells = predictions.predicted_cells(session, prediction_id)
        ranking = queue.add_ranking(session, row.id, {})
        rank = queue.CellRank(cells[1][0].id, 0.7, {}, "the two models disagree")
        queue.add_ranked_cells(session, ranking.id, [rank])
        queue.replace_queue(session, ranking.id, [queue.QueueEntry(image.id, 3.0, {})])
        as_pushed = region_cells(session, prediction_id)

    cells.reverse()  # the one with a reason leads the expert's list of regions
    (item,) = ask(client, bench.body(image))

    assert (item["model_version"], item["score"]) == (row.name, 0.25), "1 / (1 + priority): lowest comes first"
    assert [region["id"] for region in item["result"]] == [key for _, key in cells] == [c.key for c in as_pushed]
    assert [region.get("meta") for region in item["result"]] == [{"text": ["the two models disagree"]}, None]
    for region, (cell, _) in zip(item["result"], cells, strict=True):
        assert region["score"] == pytest.approx(cell.score, abs=1e-3)
        assert region["type"] == "rectanglelabels"
        assert region["value"]["rectanglelabels"] == [cell.label]
        assert region["value"]["x"] == pytest.approx(100 * cell.x1 / WIDTH)
        assert region["value"]["height"] == pytest.approx(100 * (cell.y2 - cell.y1) / HEIGHT)
    assert len(bench.pairs.loaded) == 1, "by the bench; the server loaded nothing"


def test_missing_images_are_detected_once_and_stored(client: TestClient, bench: Bench) -> None:
    one, two = bench.add_image(1), bench.add_image(2, cells=3)
    row = bench.activate_pair()
    results = ask(client, bench.body(one, two, one))
    assert [len(item["result"]) for item in results] == [2, 3, 2]
    assert results[0] == results[2]
    assert "ring" in {region["value"]["rectanglelabels"][0] for region in results[0]["result"]}
    again = ask(client, bench.body(two, one))
    assert again == [results[1], results[0]], "same cells, same keys"
    assert bench.pairs.loaded == [row.name]
    assert requested(bench) == []


def test_no_cell_found_is_an_answer(client: TestClient, bench: Bench) -> None:
    image = bench.add_image(1, cells=0)
    row = bench.activate_pair()
    assert ask(client, bench.body(image)) == [{"model_version": row.name, "score": 1.0, "result": []}]


def test_a_promotion_is_served_without_a_restart(client: TestClient, bench: Bench) -> None:
    image = bench.add_image(1)
    first = bench.activate_pair()
    (before,) = ask(client, bench.body(image))
    second = bench.promote_infected()
    (after,) = ask(client, bench.body(image))
    assert [before["model_version"], after["model_version"]] == [first.name, second.name]
    assert bench.pairs.loaded == [first.name, second.name]
    assert [r["id"] for r in after["result"]] == [r["id"] for r in before["result"]], "cells keep their identity"
    assert [r["score"] for r in after["result"]] != [r["score"] for r in before["result"]]


def test_what_the_budget_does_not_cover_is_requested(tmp_path: Path, sqlite_url: str) -> None:
    bench = Bench(tmp_path / "home", sqlite_url, predict_budget_s=0)
    images = [bench.add_image(seed) for seed in range(3)]
    row = bench.activate_pair()
    bench.predict(images[1])
    with bench.client() as client:
        results = ask(client, bench.body(*images))
    assert ["result" in item for item in results] == [False, True, False]
    assert {item["model_version"] for item in results} == {row.name}
    assert "worker" in results[0]["reason"]
    assert requested(bench) == [images[0].id, images[2].id]


class SlowDetector(DiscDetector):
    """A disc detector that takes its time, by a clock the test can read."""

    seconds = 0.6

    def detect(self, image: Any, masks: bool = False) -> Any:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            pass
        return super().detect(image, masks)


def test_detecting_stops_before_the_budget_is_over(tmp_path: Path, sqlite_url: str) -> None:
    bench = Bench(tmp_path / "home", sqlite_url, predict_budget_s=2.0)
    bench.pairs = lambda row: Pair(row.name, SlowDetector("all_cells"), DiscDetector("infected"), FusionConfig())  # type: ignore[assignment]
    images = [bench.add_image(seed) for seed in range(12)]
    bench.activate_pair()
    with bench.client() as client:
        results = ask(client, bench.body(*images))
    done = ["result" in item for item in results]
    assert 1 <= sum(done) <= 3
    assert done == sorted(done, reverse=True), "in order"
    assert requested(bench) == [image.id for image, answered in zip(images, done, strict=True) if not answered]


def test_one_bad_task_spoils_no_other(client: TestClient, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    good, damaged = bench.add_image(1), bench.add_image(2)
    bench.activate_pair()
    bench.store.path(damaged.file).write_bytes(b"not what it was")
    urls = ["/data/local-files/?d=../credentials.json", "http://elsewhere.test/x.png"]
    with caplog.at_level(logging.WARNING):
        results = ask(client, bench.body(urls[0], good, damaged, urls[1], good))
    assert ["result" in item for item in results] == [False, True, False, False, True]
    for item, word in zip(
        (results[0], results[2], results[3]), ("allowed folders", "sha256", "elsewhere"), strict=True
    ):
        assert word in item["reason"]
        assert word in caplog.text
    assert str(bench.settings.home) not in json.dumps(results)
    assert requested(bench) == []


class BrokenDetector(DiscDetector):
    """A detector whose runtime fails, as a GPU without memory does."""

    def detect(self, image: Any, masks: bool = False) -> Any:
        raise RuntimeError("out of memory at 0xdeadbeef")


def test_a_failing_detector_spoils_no_stored_answer(client: TestClient, bench: Bench) -> None:
    stored, missing = bench.add_image(1), bench.add_image(2)
    bench.activate_pair()
    bench.predict(stored)

    def load(row: ServingPair) -> Pair:
        return Pair(row.name, BrokenDetector("all_cells"), BrokenDetector("infected"), FusionConfig())

    bench.server(client).pairs._load = load
    results = ask(client, bench.body(stored, missing))
    assert len(results[0]["result"]) == 2
    assert "0xdeadbeef" not in results[1]["reason"]
    assert "log" in results[1]["reason"]


def test_a_task_without_the_configured_key_gets_a_reason(client: TestClient, bench: Bench) -> None:
    bench.activate_pair()
    body = bench.body("x")
    body["tasks"][0]["data"] = {"picture": "/data/upload/1/x.png"}
    (item,) = ask(client, body)
    assert "image URL" in item["reason"]


def test_interactive_calls_return_what_is_on_the_screen(client: TestClient, bench: Bench) -> None:
    image = bench.add_image(1)
    row = bench.activate_pair()
    drawn = [{"id": "abc", "type": "rectanglelabels", "value": {"x": 1}}]
    (item,) = ask(client, bench.body(image, params={"context": {"result": drawn}}))
    assert (item["model_version"], item["result"]) == (row.name, drawn)
    assert bench.pairs.loaded == []


def test_brush_masks_only_on_request(client: TestClient, bench: Bench) -> None:
    image = bench.add_image(1)
    bench.activate_pair()
    config = bench.body()["label_config"]
    brush = config.replace("RectangleLabels", "BrushLabels").replace('name="cell"', 'name="mask"')
    controls = brush[brush.index("<BrushLabels") : brush.index("</BrushLabels>") + len("</BrushLabels>")]
    both = config.replace("<Image", controls + "<Image")
    (plain,) = ask(client, bench.body(image, label_config=both))
    (masks,) = ask(client, bench.body(image, label_config=both), params={"shape": "brush"})
    assert {region["type"] for region in plain["result"]} == {"rectanglelabels"}
    assert {region["type"] for region in masks["result"]} == {"brushlabels"}


def test_an_unusable_configuration_is_one_clear_error(client: TestClient, bench: Bench) -> None:
    bench.activate_pair()
    response = client.post("/predict", json=bench.body("x", label_config="<View/>"))
    assert response.status_code == 422
    assert "Image" in response.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"tasks": 3}', b'{"tasks": [{"id": 1}]}'])
def test_a_malformed_body_is_refused_without_a_traceback(client: TestClient, body: bytes) -> None:
    response = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert set(response.json()) == {"error", "request"}


def test_fifteen_hundred_stored_tasks_answer_fast(client: TestClient, bench: Bench) -> None:
    row = bench.activate_pair()
    files = bench.add_predicted_rows(row.id, images=BIG, cells=20)
    body = bench.body(*[f"/data/local-files/?d={file}" for file in files])
    with counted(bench.server(client).database) as statements:
        started = time.monotonic()
        results = ask(client, body)
        seconds = time.monotonic() - started
    assert [len(item["result"]) for item in results] == [20] * BIG
    assert len(statements) < 30, "statements grow by chunks of hundreds of images, not by images"
    assert seconds < 20, f"{seconds:.1f} s for {BIG} tasks; Label Studio gives up after 100 s"


def test_of_fifteen_hundred_tasks_what_is_stored_is_answered_and_the_rest_is_queued(
    tmp_path: Path, sqlite_url: str
) -> None:
    bench = Bench(tmp_path / "home", sqlite_url, predict_budget_s=0)
    row = bench.activate_pair()
    stored = bench.add_predicted_rows(row.id, images=1400, cells=5)
    missing = [bench.add_image(seed) for seed in range(100)]
    body = bench.body(*missing, *[f"/data/local-files/?d={file}" for file in stored])
    with bench.client() as client:
        started = time.monotonic()
        results = ask(client, body)
        seconds = time.monotonic() - started
    answered = ["result" in item for item in results]
    assert answered == [False] * 100 + [True] * 1400
    assert requested(bench) == [image.id for image in missing]
    assert seconds < 20, f"{seconds:.1f} s; Label Studio gives up after 100 s"


def test_a_stored_prediction_is_not_detected_again(bench: Bench) -> None:
    image = bench.add_image(1)
    row = bench.activate_pair()
    broken = Pair(row.name, BrokenDetector("all_cells"), BrokenDetector("infected"), FusionConfig())
    (first,) = bench.predict(image)
    assert predict_and_store(bench.database, bench.store, Served(row, broken), image) == first
