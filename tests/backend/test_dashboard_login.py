"""Who sees the dashboard: whoever has a token, for twelve hours, and what a session may do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from backend.api import session
from backend.tokens import Holder, issue
from db import tokens
from db.models import now
from db.tokens import Scope
from tests.backend.server import Bench

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def sign_in(client: TestClient, token: str, target: str = "/dashboard") -> Response:
    client.auth = None
    return client.post("/dashboard/login", data={"token": token, "next": target}, follow_redirects=False)


def test_pages_lead_to_the_sign_in_page_and_back(client: TestClient, bench: Bench) -> None:
    client.auth = None
    away = client.get("/dashboard/images/7", follow_redirects=False)
    assert (away.status_code, away.headers["location"]) == (303, "/dashboard/login?next=/dashboard/images/7")
    form = client.get(away.headers["location"])
    assert 'name="next" value="/dashboard/images/7"' in form.text
    back = sign_in(client, bench.token, "/dashboard/queue")
    assert (back.status_code, back.headers["location"]) == (303, "/dashboard/queue")
    assert client.get("/dashboard/queue").status_code == 200
    assert client.get("/dashboard/login").url.path == "/dashboard", "who is signed in needs no form"


def test_a_wrong_token_gets_one_sentence_and_no_session(client: TestClient, bench: Bench) -> None:
    for wrong in ("", "x", bench.credentials.webhook_secret, bench.token[:-1], "é\udce9"):
        answer = sign_in(client, wrong.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert answer.text.count("That is not a token of this installation, or not any more.") == 1
    bench.server(client).throttle.right("testclient")
    assert client.post("/dashboard/login", content=b"token=" + b"x" * 10_000).status_code == 401


def test_nobody_is_sent_elsewhere(client: TestClient, bench: Bench) -> None:
    for target in ("https://evil.example", "//evil.example", "/dashboardevil", "javascript:alert(1)", ""):
        assert sign_in(client, bench.token, target).headers["location"] == "/dashboard"
        client.cookies.clear()


def test_the_cookie_is_for_us_alone(client: TestClient, bench: Bench) -> None:
    [cookie] = SimpleCookie(sign_in(client, bench.token).headers["set-cookie"]).values()
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert int(cookie["max-age"]) == 12 * 3600
    assert cookie["secure"] == "", "plain HTTP on loopback"
    with bench.client() as secure:
        secure.base_url = "https://testserver"
        assert "Secure" in sign_in(secure, bench.token).headers["set-cookie"]
    assert bench.token not in str(cookie)


def test_a_session_ends_and_cannot_be_made_up() -> None:
    ada = Holder(7, "ada", Scope.read, "a" * 64)
    value = session.new_session(ada, b"key", NOON)

    def lasts(value: str, key: bytes = b"key", hours: float = 0, holder: Holder = ada) -> bool:
        claim = session.claim(value)
        return claim is not None and claim.genuine(holder, key, NOON + timedelta(hours=hours))

    assert lasts(value, hours=11.99)
    assert not lasts(value, hours=12)
    assert not lasts(value, b"another key")
    assert not lasts(value, holder=replace(ada, token_sha256="b" * 64)), "another token under the same id"
    until, number, signature = value.split("-")
    for forged in (
        f"{int(until) + 1}-{number}-{signature}", f"{until}-8-{signature}", f"{until}-{number}-{'0' * 64}",
        f"{until}-{number}-", "", f" {value}", f"{value}\n",
    ):  # fmt: skip
        assert not lasts(forged), forged


def test_a_session_reads_the_api_and_never_writes(client: TestClient, bench: Bench) -> None:
    sign_in(client, bench.token)
    assert client.get("/api/v1/status").status_code == 200
    assert client.get("/api/v1/live").status_code == 200
    refused = client.post("/api/v1/queue/take", json={"expert": "ada"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="cellloop"')
    assert client.post("/webhook", json={}).status_code == 401
    assert client.get("/health").status_code == 401


def test_signing_out_ends_it(client: TestClient, bench: Bench) -> None:
    sign_in(client, bench.token)
    assert client.post("/dashboard/logout", follow_redirects=False).headers["location"] == "/dashboard/login"
    assert client.get("/api/v1/live").status_code == 401


@pytest.mark.parametrize("path", ["/dashboard/images/1/file", "/dashboard/cells/1/crop.jpg"])
def test_pictures_need_a_session(client: TestClient, bench: Bench, path: str) -> None:
    client.auth = None
    assert client.get(path).status_code == 401
    sign_in(client, bench.token)
    assert client.get(path).status_code == 404


def test_a_session_ends_with_its_token(client: TestClient, bench: Bench) -> None:
    short = issue(bench.database, "short", Scope.read, now() + timedelta(hours=1))
    for end in ("revoked", "expired"):
        sign_in(client, short.text if end == "expired" else bench.token)
        assert client.get("/dashboard").status_code == 200
        with bench.database.session() as record:
            for row in tokens.live(record):
                if end == "revoked" and row.id != short.id:
                    tokens.revoke(record, row.id)
                row.expires_at = now() if end == "expired" else row.expires_at
        assert client.get("/dashboard", follow_redirects=False).status_code == 303
        assert client.get("/api/v1/live").status_code == 401
        assert sign_in(client, short.text if end == "expired" else bench.token).status_code == 401
