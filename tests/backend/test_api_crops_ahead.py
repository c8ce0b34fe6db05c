"""Crops of waiting cells are there before anybody asks."""

from __future__ import annotations

from fastapi.testclient import TestClient

from backend.api.crops_ahead import CropsAhead
from backend.crop_address import crop_name
from db import predictions, queue
from db.models import Image, Way
from tests.backend.server import Bench


def wait_in_queue(bench: Bench, *images: Image) -> list[int]:
    """Every predicted cell of these images waits; the items' ids."""
    row = bench.active()
    found = dict(zip((image.id for image in images), bench.predict(*images), strict=True))
    with bench.database.session() as session:
        ranking = queue.add_ranking(session, row.id, {})
        entries = [
            queue.QueueEntry(image_id, cell.score, {}, Way.cell, cell_id=cell.cell_id, predicted_cell_id=cell.id)
            for image_id, prediction_id in found.items()
            for cell, _ in predictions.predicted_cells(session, prediction_id)
        ]
        return [item.id for item in queue.replace_queue(session, ranking.id, entries)]


def test_they_are_drawn_once_and_served_without_the_image(client: TestClient, bench: Bench) -> None:
    image = bench.add_image(1)
    bench.activate_pair()
    items = wait_in_queue(bench, image)
    ahead = CropsAhead(bench.server(client))
    assert (ahead.look(), ahead.look()) == (2, 0)
    bench.store.path(image.file).unlink()
    for item in items:
        crop = client.get(f"/crops/{crop_name(item, bench.credentials.crop_key)}")
        assert (crop.status_code, crop.content[:2]) == (200, b"\xff\xd8")


def test_a_lost_image_keeps_no_other_waiting(client: TestClient, bench: Bench) -> None:
    lost, there = bench.add_image(1), bench.add_image(2)
    bench.activate_pair()
    wait_in_queue(bench, lost, there)
    bench.store.path(lost.file).unlink()
    assert CropsAhead(bench.server(client)).look() == 2


def test_it_ends_with_the_server(client: TestClient, bench: Bench) -> None:
    ahead = CropsAhead(bench.server(client))
    ahead.start()
    bench.server(client).stopping.set()
    ahead.join(10)
    assert not ahead.is_alive()
