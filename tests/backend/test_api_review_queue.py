"""The queue over HTTP: one item per expert, given back or kept, and nothing told to a second reader."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from db import queue
from db.models import Slot, Way
from db.queue import QueueEntry
from db.tokens import Scope
from tests import builders
from tests.backend.server import Bench


def fill(bench: Bench, *slots: Slot) -> list[int]:
    """So many cells that wait, the first one most valuable; their items."""
    row = bench.activate_pair()
    with bench.database.session() as session:
        ranking = queue.add_ranking(session, row.id, {})
        entries = []
        for number, slot in enumerate(slots):
            image = builders.add_image(session)
            cell = builders.add_cell(session, image)
            entry = QueueEntry(image.id, 9.0 - number, {}, Way.cell, slot, cell_id=cell.id, reason="ring or not?")
            entries.append(entry)
        return [item.id for item in queue.replace_queue(session, ranking.id, entries)]


def post(client: TestClient, bench: Bench, verb: str, **body: Any) -> Any:
    return client.post(f"/api/v1/queue/{verb}", json=body, **bench.bearer(bench.token))


def test_only_for_tokens_that_may_review(client: TestClient, bench: Bench) -> None:
    assert client.post("/api/v1/queue/take", json={"expert": "ada"}).status_code == 401
    for scope, status in ((Scope.read, 403), (Scope.review, 204)):
        for verb, body in (("take", {}), ("release", {"item": 1})):
            given = bench.bearer(bench.token_for(scope))
            answer = client.post(f"/api/v1/queue/{verb}", json={"expert": "ada", **body}, **given)
            assert answer.status_code == (409 if status == 204 and verb == "release" else status)
    assert (
        "cellloop token create --scope review"
        in client.post(
            "/api/v1/queue/take", json={"expert": "ada"}, **bench.bearer(bench.token_for(Scope.read))
        ).json()["error"]
    )


def test_each_expert_has_an_item_of_their_own(client: TestClient, bench: Bench) -> None:
    first, second = fill(bench, Slot.acquisition, Slot.second_reading)
    ada = post(client, bench, "take", expert="ada").json()
    ben = post(client, bench, "take", expert="ben", way="cell").json()
    assert (ada["item"], ben["item"]) == (first, second)
    assert (ada["reason"], ben["reason"]) == ("ring or not?", "")
    assert ada["crop"].startswith(f"/crops/{first}-")
    assert post(client, bench, "take", expert="ada").json()["item"] == first
    assert post(client, bench, "take", expert="cyd").status_code == 204
    assert post(client, bench, "release", expert="cyd", item=first).status_code == 409
    assert post(client, bench, "release", expert="ada", item=first).status_code == 204
    assert post(client, bench, "take", expert="cyd").json()["item"] == first


def test_what_is_asked_is_checked(client: TestClient, bench: Bench) -> None:
    assert post(client, bench, "take", expert="").status_code == 422
    assert post(client, bench, "take", expert="ada", way="sideways").status_code == 422
