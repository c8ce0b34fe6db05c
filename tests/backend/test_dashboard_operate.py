"""The dashboard's operating forms: what they change, who may send them, and that no other site can."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from backend.store import weights_file
from db import inbox, runs, versions
from db.models import RunStatus
from db.tokens import Scope
from tests import builders
from tests.backend.server import Bench

HOST = "http://testserver"
Visitor = Callable[[Scope], TestClient]


@pytest.fixture
def visitor(bench: Bench) -> Iterator[Visitor]:
    """A function that signs somebody in with a token of this scope."""
    with ExitStack() as stack:

        def sign_in(scope: Scope) -> TestClient:
            client = stack.enter_context(bench.client())
            client.auth = None
            client.post("/dashboard/login", data={"token": bench.token_for(scope)}).raise_for_status()
            return client

        yield sign_in


@pytest.fixture
def operator(visitor: Visitor) -> TestClient:
    return visitor(Scope.operate)


def proof(client: TestClient, page: str = "/dashboard") -> str:
    """What the forms on this page carry."""
    found = re.search(r'name="form" value="([0-9a-f]{64})"', client.get(page).text)
    assert found is not None
    return found[1]


def send(client: TestClient, path: str, **fields: str) -> Response:
    return client.post(f"/dashboard/{path}", data=fields, headers={"Origin": HOST}, follow_redirects=False)


def asks(bench: Bench) -> list[dict[str, str]]:
    with bench.database.session(read_only=True) as session:
        return [event.payload for event in inbox.unhandled(session) if event.action == inbox.RETRAIN_ASKED]


def add_run(bench: Bench) -> int:
    with bench.database.session() as session:
        run = runs.open_run(session, "infected", "reviews", {}, {})
        assert run is not None
        return run.id


def promoted_twice(bench: Bench) -> tuple[int, int]:
    """A version that serves, and the one it replaced, whose weights are whole."""
    row = bench.activate_pair()
    with bench.database.session() as session:
        stored = bench.store.put_bytes("weights", b"weights", ".safetensors")
        assert stored.file == weights_file(stored.sha256)
        whole = builders.add_version(session, weights_sha256=stored.sha256).id
        versions.activate(session, whole, kind="gate", reasons=["better"])
        newest = builders.add_version(session).id
        versions.activate(session, newest, kind="gate", reasons=["better still"])
    assert row.infected_id < whole
    return newest, whole


def serving(bench: Bench) -> int:
    with bench.database.session(read_only=True) as session:
        return versions.active_ids(session)["infected"]


def test_a_retraining_is_asked_for_once(bench: Bench, operator: TestClient) -> None:
    assert "Retrain now" in operator.get("/dashboard").text
    form = proof(operator)
    for _ in range(2):  # a double click
        assert send(operator, "retrain", form=form).is_redirect
    assert asks(bench) == [{"why": "a person asked on the dashboard", "by": "operate"}]
    page = operator.get("/dashboard").text
    assert "operate asked for one at" in page
    assert "Retrain now" not in page


def test_a_run_is_cancelled(bench: Bench, operator: TestClient) -> None:
    run = add_run(bench)
    page = operator.get("/dashboard").text
    assert f'action="/dashboard/runs/{run}/cancel"' in page
    assert "Retrain now" not in page
    assert send(operator, f"runs/{run}/cancel", form=proof(operator)).headers["location"] == "/dashboard#running"
    with bench.database.session() as session:
        found = runs.get(session, run)
        assert (found.status, found.message) == (RunStatus.cancelled, "cancelled by operate, on the dashboard")
    assert send(operator, "runs/99/cancel", form=proof(operator)).status_code == 404
    assert send(operator, "runs/x/cancel", form=proof(operator)).status_code == 422
    with bench.database.session() as session:
        failed = runs.fail(session, add_run(bench), "no memory").id
    assert send(operator, f"runs/{failed}/cancel", form=proof(operator)).status_code == 409


def test_the_version_before_serves_again(bench: Bench, operator: TestClient) -> None:
    newest, whole = promoted_twice(bench)
    page = operator.get("/dashboard/models").text
    assert f"Let version {whole} serve again" in page
    fields = {"form": proof(operator, "/dashboard/models"), "role": "infected", "active": str(newest), "reason": "<b>"}
    assert send(operator, "rollback", **fields).is_redirect
    assert serving(bench) == whole
    with bench.database.session(read_only=True) as session:
        decision = versions.decisions(session)[-1]
        assert (decision.kind, decision.reasons) == ("rollback", ["<b>", "by operate, on the dashboard"])
    assert "&lt;b&gt;" in operator.get("/dashboard/models").text
    again = send(operator, "rollback", **fields)
    assert again.status_code == 409, "sent twice, it rolls back once"
    assert "reload the page" in again.text
    broken = send(operator, "rollback", **fields | {"active": str(whole)})
    assert broken.status_code == 500, "the one before has no weights"
    assert serving(bench) == whole
    assert send(operator, "rollback", **fields | {"role": "all_cells"}).status_code == 409
    assert send(operator, "rollback", **fields | {"role": "' OR 1=1"}).status_code == 400


@pytest.mark.parametrize("path", ["retrain", "runs/1/cancel", "rollback"])
def test_only_a_page_of_this_session_may_send_them(bench: Bench, visitor: Visitor, path: str) -> None:
    run, operator = add_run(bench), visitor(Scope.operate)
    form, others = proof(operator), proof(visitor(Scope.operate))
    assert (run, form != others) == (1, True)

    def status(origin: str | None, **fields: str) -> int:
        headers = {} if origin is None else {"Origin": origin}
        return operator.post(f"/dashboard/{path}", data=fields, headers=headers, follow_redirects=False).status_code

    for origin in ("https://evil.example", "null", "http://testserver.evil.example", "http://testserver:81", "", None):
        assert status(origin, form=form) == 403, origin
    for wrong in ("", others, form[:-1], "é"):
        assert status(HOST, form=wrong) == 403, wrong
    assert status(HOST) == 403
    assert operator.get(f"/dashboard/{path}").status_code == 405
    assert asks(bench) == []
    with bench.database.session(read_only=True) as session:
        assert runs.get(session, run).status == RunStatus.queued


@pytest.mark.parametrize("path", ["retrain", "runs/1/cancel", "rollback"])
def test_who_may_only_look_is_shown_no_form_and_refused(bench: Bench, visitor: Visitor, path: str) -> None:
    promoted_twice(bench)
    add_run(bench)
    for scope in (Scope.read, Scope.review):
        client = visitor(scope)
        for page in ("", "/models"):
            assert 'name="form"' not in client.get(f"/dashboard{page}").text
        refused = send(client, path, form="0" * 64)
        assert refused.status_code == 403
        assert "cellloop token create --scope operate" in refused.text
    stranger = bench.client()
    assert send(stranger, path).headers["location"].startswith("/dashboard/login")
    bearer = {**bench.bearer(bench.token)["headers"], "Origin": HOST}
    assert stranger.post(f"/dashboard/{path}", headers=bearer, follow_redirects=False).status_code == 303


def test_another_site_can_neither_sign_anybody_in_nor_out(bench: Bench, operator: TestClient) -> None:
    foreign = {"Origin": "https://evil.example"}
    assert operator.post("/dashboard/login", data={"token": bench.token}, headers=foreign).status_code == 403
    assert operator.post("/dashboard/logout", headers=foreign).status_code == 403
    assert operator.get("/api/v1/live").status_code == 200


def test_a_webhook_cannot_ask_in_a_persons_name(bench: Bench, client: TestClient) -> None:
    refused = client.post(
        "/webhook", json={"action": inbox.RETRAIN_ASKED}, **bench.bearer(bench.credentials.webhook_secret)
    )
    assert refused.status_code == 400
    assert asks(bench) == []
