"""`/api/v1/history/...`: every question by HTTP, page by page, for whoever holds the token."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.history.questions import QUESTIONS
from db.questions import QUESTIONS as ASKED_IN_SQL
from tests.backend.server import Bench
from tests.made_history import MadeHistory, make_history


@pytest.fixture
def made(bench: Bench) -> MadeHistory:
    with bench.database.session() as session:
        return make_history(session)


def get(client: TestClient, bench: Bench, path: str, **headers: str) -> Any:
    """The response to a GET with the token."""
    given = bench.bearer(bench.token)
    return client.get(f"/api/v1{path}", headers=given["headers"] | headers, auth=given["auth"])


def test_every_question_answers_what_the_record_says(client: TestClient, bench: Bench, made: MadeHistory) -> None:
    required = {"cell": "thecell", "image": "S2-f1.png", "version": str(made.versions[2])}
    for question in ASKED_IN_SQL:
        given = {each.name: required[each.name] for each in question.filters if each.required}
        path = f"/history/{question.name}?" + "&".join(f"{name}={value}" for name, value in given.items())
        found = get(client, bench, path)
        assert found.status_code == 200, found.text
        with bench.database.session(read_only=True) as session:
            typed = {n: int(v) if n == "version" else v for n, v in given.items()}
            assert found.json() == question.ask(session, typed, limit=100).to_json()
        assert found.json()["rows"], question.name


def test_pages_and_moments(client: TestClient, bench: Bench, made: MadeHistory) -> None:
    first = get(client, bench, "/history/labels?limit=2").json()
    rest = get(client, bench, f"/history/labels?limit=2&cursor={first['next']}").json()
    assert [row["label"] for row in first["rows"] + rest["rows"]] == ["red blood cell", "ring", "schizont"]
    assert rest["next"] is None
    then = get(client, bench, "/history/labels?cell=thecell&as_of=2026-01-01T12:25:00Z").json()
    assert [(row["label"], row["decided_at"]) for row in then["rows"]] == [("trophozoite", "2026-01-01T12:20:00+00:00")]


def test_what_is_known_is_not_sent_again(client: TestClient, bench: Bench, made: MadeHistory) -> None:
    path = f"/history/manifest?version={made.versions[2]}"
    first = get(client, bench, path)
    assert [image["sha256"] for image in first.json()["manifest"]["images"]] == [made.labelled.sha256, made.pool.sha256]
    again = get(client, bench, path, **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert get(client, bench, path, **{"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/history/cell", 422, "query.cell: Field required"),
        ("/history/cell?cell=nobody", 404, "there is none such"),
        ("/history/labels?as_of=yesterday", 400, "expected a moment in ISO 8601"),
        ("/history/labels?cursor=x", 400, "expected the `next` of an earlier answer"),
        ("/history/labels?limit=0", 422, "greater than or equal to 1"),
        ("/history/labels?split=' OR 1=1", 422, "query.split"),
        ("/history/manifest?version=99999", 404, "expected the id of a model version"),
    ],
)
def test_a_question_that_cannot_be_answered(
    client: TestClient, bench: Bench, path: str, status: int, says: str
) -> None:
    refused = get(client, bench, path)
    assert refused.status_code == status
    assert says in refused.json()["error"]


def test_only_for_the_token(client: TestClient, bench: Bench) -> None:
    paths = [f"/api/v1/history/{question.name}" for question in QUESTIONS] + ["/api/v1/openapi.json"]
    assert {client.get(path).status_code for path in paths} == {401}


def test_openapi_tells_of_every_question_and_its_filters(client: TestClient, bench: Bench) -> None:
    described = get(client, bench, "/openapi.json").json()
    for question in QUESTIONS:
        operation = described["paths"][f"/api/v1/history/{question.name}"]["get"]
        named = {parameter["name"] for parameter in operation["parameters"]}
        assert {each.name for each in question.filters} <= named
        assert {"200", "304", "400", "401", "404", "422", "503"} <= set(operation["responses"])
    assert described["paths"]["/health"]["get"]["security"] == [{"label_studio": []}]
    assert described["paths"]["/api/v1/live"]["get"]["security"] == [{"token": []}]
    assert not [path for path in described["paths"] if path.startswith("/dashboard")]
