"""Tokens: made at random, kept as hashes, compared in constant time, and the one of older installations."""

from __future__ import annotations

import hmac
import json
import sqlite3

import pytest
from fastapi.testclient import TestClient

from backend import tokens
from backend.credentials import credentials_file
from db import tokens as rows
from db.session import Database
from db.tokens import Scope
from tests.backend.server import Bench


def test_a_token_is_known_by_its_hash_alone(sqlite_database: Database) -> None:
    issued = tokens.issue(sqlite_database, "ada", Scope.review)
    assert issued.text.startswith(tokens.PREFIX)
    assert len(issued.text) == len(tokens.PREFIX) + 43, "256 bits in base64"
    holder = tokens.holder_of(sqlite_database, issued.text)
    assert holder == tokens.Holder(issued.id, "ada", Scope.review, tokens.sha256_of(issued.text))
    for wrong in ("", issued.text[:-1], issued.text.upper(), holder.token_sha256, "é\udce9\0"):
        assert tokens.holder_of(sqlite_database, wrong) is None, wrong
    assert issued.text not in repr(issued)
    with sqlite3.connect(str(sqlite_database.engine.url.database)) as raw:
        stored = "\n".join(raw.iterdump())
    assert tokens.sha256_of(issued.text) in stored
    assert issued.text.removeprefix(tokens.PREFIX) not in stored


def test_every_live_token_is_compared_in_constant_time(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (tokens.issue(sqlite_database, name, Scope.read) for name in ("ada", "ben"))
    compared: list[str] = []
    real = hmac.compare_digest

    def watched(one: str, other: str) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    for given in (first.text, second.text, "nobody's"):
        compared.clear()
        tokens.holder_of(sqlite_database, given)
        assert len(compared) == 2, "found or not, first or last: the same work"


def test_the_token_of_an_older_installation_goes_on_working(bench: Bench) -> None:
    path = credentials_file(bench.settings.home)
    content = json.loads(path.read_text())
    for name in ("crop_secret", "session_secret", "former_token_sha256"):
        del content[name]
    path.write_text(json.dumps(content | {"api_token": "the old token"}))
    given = bench.bearer("the old token")
    for _ in range(2):  # the second start finds it let in
        with bench.client() as client:
            assert client.get("/api/v1/status", **given).status_code == 200
            assert client.post("/api/v1/queue/take", json={"expert": "ada"}, **given).status_code == 204
    with bench.database.session() as session:
        [row] = rows.live(session)
        assert row.scope == Scope.operate
        rows.revoke(session, row.id)
    with bench.client() as client:
        assert client.get("/api/v1/status", **given).status_code == 401, "revoked, it stays so"


def test_a_token_counts_and_ends_while_the_server_runs(client: TestClient, bench: Bench) -> None:
    old = tokens.issue(bench.database, "ada", Scope.read)
    new = tokens.issue(bench.database, "ada", Scope.read)
    for given, status in ((old, 401), (new, 200)):
        assert client.get("/api/v1/status", **bench.bearer(given.text)).status_code == 200, "both, for a while"
        with bench.database.session() as session:
            rows.revoke(session, old.id)
        assert client.get("/api/v1/status", **bench.bearer(given.text)).status_code == status
