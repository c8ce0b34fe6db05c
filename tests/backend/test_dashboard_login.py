"""Who sees the dashboard: whoever has the API token, for twelve hours, and what a session may do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from backend.api import session
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
    back = sign_in(client, bench.credentials.api_token, "/dashboard/queue")
    assert (back.status_code, back.headers["location"]) == (303, "/dashboard/queue")
    assert client.get("/dashboard/queue").status_code == 200
    assert client.get("/dashboard/login").url.path == "/dashboard", "who is signed in needs no form"


def test_a_wrong_token_gets_one_sentence_and_no_session(client: TestClient, bench: Bench) -> None:
    for wrong in ("", "x", bench.credentials.webhook_secret, bench.credentials.api_token[:-1], "é\udce9"):
        answer = sign_in(client, wrong.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert answer.text.count("That is not this installation&#39;s API token.") == 1
    assert client.post("/dashboard/login", content=b"token=" + b"x" * 10_000).status_code == 401


def test_nobody_is_sent_elsewhere(client: TestClient, bench: Bench) -> None:
    for target in ("https://evil.example", "//evil.example", "/dashboardevil", "javascript:alert(1)", ""):
        assert sign_in(client, bench.credentials.api_token, target).headers["location"] == "/dashboard"
        client.cookies.clear()


def test_the_cookie_is_for_us_alone(client: TestClient, bench: Bench) -> None:
    [cookie] = SimpleCookie(sign_in(client, bench.credentials.api_token).headers["set-cookie"]).values()
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert int(cookie["max-age"]) == 12 * 3600
    assert cookie["secure"] == "", "plain HTTP on loopback"
    with bench.client() as secure:
        secure.base_url = "https://testserver"
        assert "Secure" in sign_in(secure, bench.credentials.api_token).headers["set-cookie"]
    assert bench.credentials.api_token not in str(cookie)


def test_a_session_ends_and_cannot_be_made_up() -> None:
    value = session.new_session(b"key", NOON)
    assert session.lasts(value, b"key", NOON + timedelta(hours=11, minutes=59))
    assert not session.lasts(value, b"key", NOON + timedelta(hours=12))
    assert not session.lasts(value, b"another key", NOON)
    until, signature = value.split("-")
    for forged in (f"{int(until) + 1}-{signature}", f"{until}-{'0' * 64}", f"{until}-", "", f" {value}", f"{value}\n"):
        assert not session.lasts(forged, b"key", NOON), forged


def test_a_session_reads_the_api_and_never_writes(client: TestClient, bench: Bench) -> None:
    sign_in(client, bench.credentials.api_token)
    assert client.get("/api/v1/status").status_code == 200
    assert client.get("/api/v1/live").status_code == 200
    refused = client.post("/api/v1/queue/take", json={"expert": "ada"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="cellloop"')
    assert client.post("/webhook", json={}).status_code == 401
    assert client.get("/health").status_code == 401


def test_signing_out_ends_it(client: TestClient, bench: Bench) -> None:
    sign_in(client, bench.credentials.api_token)
    assert client.post("/dashboard/logout", follow_redirects=False).headers["location"] == "/dashboard/login"
    assert client.get("/api/v1/live").status_code == 401


@pytest.mark.parametrize("path", ["/dashboard/images/1/file", "/dashboard/cells/1/crop.jpg"])
def test_pictures_need_a_session(client: TestClient, bench: Bench, path: str) -> None:
    client.auth = None
    assert client.get(path).status_code == 401
    sign_in(client, bench.credentials.api_token)
    assert client.get(path).status_code == 404
