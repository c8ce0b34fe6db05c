"""Errors of a Label Studio that is down, confused or refusing: clear, and without a secret."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from backend.errors import CellloopError, LabelStudioRefused, LabelStudioUnavailable
from backend.label_studio.transport import Transport
from tests.backend.label_studio.recorder import recording
from tests.label_studio_fixture import free_port

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOi.eyJ0b2tlbl90.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("status", "answer", "error", "message"),
    [
        (401, {"detail": f"Invalid token {LEGACY}."}, LabelStudioRefused, "refuses our legacy token"),
        (403, {"detail": "no"}, LabelStudioRefused, "CELLLOOP_LABEL_STUDIO_TOKEN"),
        (400, {"validation_errors": {"x": [f"bad {LEGACY} hunter22"]}}, LabelStudioRefused, r"400.*bad \*\*\* \*\*\*"),
        (404, {"detail": "gone"}, LabelStudioRefused, "404: gone"),
        (500, {"detail": "database is locked"}, LabelStudioUnavailable, "500.*database is locked"),
        (502, "<html>Bad gateway</html>", LabelStudioUnavailable, "502"),
        (200, "<html>Welcome to something else</html>", LabelStudioUnavailable, "really Label Studio's"),
    ],
)
def test_answers_that_are_errors(status: int, answer: Any, error: type[CellloopError], message: str) -> None:
    secrets = {"basic_auth_pass": "hunter22", "headers": {"Authorization": "Bearer s3cr3t"}}
    with recording({"/api/x": (status, answer)}) as server, Transport(server.url, LEGACY) as transport:
        with pytest.raises(error, match=message) as caught:
            transport.post("/api/x", secrets)
        shown = "".join(traceback.format_exception(caught.value)) + repr(transport)
        assert server.calls[0].headers["Authorization"] == f"Token {LEGACY}"
    for secret in (LEGACY, "hunter22", "s3cr3t"):
        assert secret not in shown


def test_nobody_answers() -> None:
    with Transport(f"http://127.0.0.1:{free_port()}", LEGACY) as transport:
        with pytest.raises(LabelStudioUnavailable, match="cellloop label-studio start") as caught:
            transport.get("/api/x")
        assert LEGACY not in "".join(traceback.format_exception(caught.value))


def test_a_personal_token_is_never_sent_but_to_be_refreshed() -> None:
    answers: dict[str, tuple[int, Any]] = {"/api/token/refresh": (200, {"access": "fresh"}), "/api/x": (200, {"a": 1})}
    with recording(answers) as server, Transport(server.url, PERSONAL) as transport:
        assert transport.get("/api/x") == {"a": 1}
        assert transport.get("/api/x") == {"a": 1}
        assert [call.headers["Authorization"] for call in server.to("/api/x")] == ["Bearer fresh"] * 2
        assert [call.body for call in server.to("/api/token/refresh")] == [{"refresh": PERSONAL}]
        assert "Authorization" not in server.to("/api/token/refresh")[0].headers


def test_an_access_token_that_ran_out_is_renewed_once() -> None:
    answers: dict[str, tuple[int, Any]] = {"/api/token/refresh": (200, {"access": "fresh"}), "/api/x": (401, {})}
    with recording(answers) as server, Transport(server.url, PERSONAL) as transport:
        with pytest.raises(LabelStudioRefused, match="personal access token"):
            transport.get("/api/x")
        assert len(server.to("/api/x")) == 2
        assert len(server.to("/api/token/refresh")) == 2


def test_a_refused_personal_token_is_not_repeated_in_the_error() -> None:
    answers = {"/api/token/refresh": (401, {"detail": f"Token {PERSONAL} is blacklisted"})}
    with (
        recording(answers) as server,
        Transport(server.url, PERSONAL) as transport,
        pytest.raises(LabelStudioRefused, match="personal access token") as caught,
    ):
        transport.get("/api/x")
    assert PERSONAL not in str(caught.value)


def test_an_expected_404_is_none_and_so_is_an_empty_answer() -> None:
    with recording({"/api/empty": (200, "")}) as server, Transport(server.url, LEGACY) as transport:
        assert transport.request("GET", "/api/nothing", none_on_404=True) is None
        assert transport.get("/api/empty") is None
        transport.delete("/api/nothing")
