"""Crops: only by an address we made, drawn once, and a cell that is looked at is in somebody's hands."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from backend.crop_address import crop_name, item_of
from backend.crop_cache import CropCache
from backend.crop_view import BACKGROUND, draw_crop, jpeg
from backend.label_studio.cell_config import CROP_PX
from db import predictions, queue
from db.models import ItemStatus, ReviewItem, Way, now
from db.queue import QueueEntry
from tests.backend.server import Bench
from tests.backend.smears import smear


@pytest.fixture
def item(bench: Bench) -> int:
    """A cell of a smear that waits for an expert; its item."""
    bench.activate_pair()
    image = bench.add_image(1)
    [prediction_id] = bench.predict(image)
    with bench.database.session() as session:
        predicted, _ = predictions.predicted_cells(session, prediction_id)[0]
        ranking = queue.add_ranking(session, bench.active().id, {})
        entry = QueueEntry(
            image.id, 1.0, {}, way=Way.cell, cell_id=predicted.cell_id, predicted_cell_id=predicted.id, reason="why"
        )
        return queue.replace_queue(session, ranking.id, [entry])[0].id


def address(bench: Bench, item_id: int) -> str:
    return f"/crops/{crop_name(item_id, bench.credentials.crop_key)}"


def pixels(data: bytes) -> NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_the_browser_of_another_origin_gets_the_crop(client: TestClient, bench: Bench, item: int) -> None:
    client.auth = None
    answer = client.get(address(bench, item), headers={"Origin": "http://127.0.0.1:8080"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert pixels(answer.content).shape == (CROP_PX, CROP_PX, 3)
    again = client.get(address(bench, item), headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_who_looks_at_a_crop_has_its_cell_in_hand(client: TestClient, bench: Bench, item: int) -> None:
    client.get(address(bench, item))
    with bench.database.session() as session:
        found = session.get_one(ReviewItem, item)
        assert found.assigned_until is not None
        assert found.assigned_until > now() + timedelta(minutes=5)
        queue.replace_queue(session, found.ranking_id, [])
        assert found.status is ItemStatus.pending, "no ranking takes it away"


def test_an_answered_cell_can_still_be_seen(client: TestClient, bench: Bench, item: int) -> None:
    with bench.database.session() as session:
        queue.close_cell(session, session.get_one(ReviewItem, item).cell_id or 0, ItemStatus.done)
    assert client.get(address(bench, item)).status_code == 200
    with bench.database.session(read_only=True) as session:
        assert session.get_one(ReviewItem, item).assigned_until is None


def test_forged_and_unknown_addresses_are_not_found(client: TestClient, bench: Bench, item: int) -> None:
    good = crop_name(item, bench.credentials.crop_key)
    forged = crop_name(item, b"another key")
    unknown = crop_name(item + 1000, bench.credentials.crop_key)
    moved = good.replace(f"{item}-", f"{item + 1}-")
    for name in (forged, unknown, moved, good.upper(), f"0{good}", "..%2Fcredentials.json", f"..%2F{good}", "x.jpg"):
        assert client.get(f"/crops/{name}").status_code == 404, name
    assert item_of(good + "\n", bench.credentials.crop_key) is None


def test_a_crop_is_drawn_once(client: TestClient, bench: Bench, item: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client.get(address(bench, item)).content
    for stored in (bench.settings.files / "images").glob("*/*"):
        stored.unlink()
    assert client.get(address(bench, item)).content == first
    [file] = (bench.settings.home / "crops").glob("*/*.jpg")
    assert file.read_bytes() == first


def test_the_cell_is_in_the_middle_and_nothing_is_drawn_on_it() -> None:
    image = smear(1, 1)
    y, x = (int(value) for value in np.argwhere(image[..., 0] < 60).mean(axis=0))
    box = (x - 8.0, y - 8.0, x + 8.0, y + 8.0)
    crop = draw_crop(image, box, 480)
    assert crop.shape == (480, 480, 3)
    assert crop[240, 240].max() < 60
    plain = draw_crop(image, box, 480)
    scale = 480 / 48
    inside = slice(int(240 - 8 * scale), int(240 + 8 * scale))
    reference = cv2.resize(image[y - 24 : y + 24, x - 24 : x + 24], (480, 480)) if y >= 24 and x >= 24 else None
    assert reference is None or np.abs(plain[inside, inside].astype(int) - reference[inside, inside]).mean() < 20
    assert (crop < 40).all(axis=2).any(), "the corners are there"


@pytest.mark.parametrize("box", [(0.0, 0.0, 16.0, 12.0), (50.0, 40.0, 64.0, 48.0), (10.0, 10.0, 11.0, 11.0)])
def test_a_cell_at_the_edge_stays_whole_and_in_the_middle(box: tuple[float, float, float, float]) -> None:
    crop = draw_crop(np.zeros((48, 64, 3), np.uint8), box, 240)
    assert crop.shape == (240, 240, 3)
    assert tuple(crop[120, 120]) == (0, 0, 0)
    if box[0] == 0.0:
        assert tuple(crop[5, 5]) == BACKGROUND


def test_the_cache_stays_small_and_forgets_the_oldest(tmp_path: Path) -> None:
    cache = CropCache(tmp_path / "crops", max_bytes=3500)
    for number in range(6):
        cache.put(f"{number:02x}" * 20, b"x" * 1000)
    left = sorted((tmp_path / "crops").glob("*/*.jpg"))
    assert sum(path.stat().st_size for path in left) <= 3500
    assert cache.get("05" * 20) is not None
    assert cache.get("00" * 20) is None
    with pytest.raises(ValueError, match="hex"):
        cache.get("../../credentials")
    cache.clear()
    assert not list((tmp_path / "crops").glob("*/*.jpg"))


def test_a_crop_is_a_small_file() -> None:
    assert len(jpeg(draw_crop(smear(2), (10.0, 10.0, 30.0, 30.0), CROP_PX))) < 60_000
