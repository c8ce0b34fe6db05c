"""HTTP to Label Studio: both kinds of token, and errors that say what to do and hold no secret."""

from __future__ import annotations

import functools
import json
import re
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx

from backend.errors import LabelStudioRefused, LabelStudioUnavailable

# A personal access token buys Bearer tokens of 300 s; each is used for at most this long.
ACCESS_TOKEN_S = 240.0
CONNECT_TIMEOUT_S = 5.0
DETAIL_CHARACTERS = 400


@functools.cache
def trusted() -> ssl.SSLContext:
    """The certificates we trust. Reading them takes 30 ms: once per process, not once per client."""
    return httpx.create_ssl_context(trust_env=False)


class Transport:
    """Requests to one Label Studio, from any thread.

    token: a legacy token (40 hex digits, sent as `Token`) or a personal access token (a JWT, refreshed to `Bearer`).
    rotated: gives today's token, asked when the one we have is refused.
    """

    def __init__(self, url: str, token: str, timeout_s: float = 60.0, rotated: Callable[[], str] | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token.strip()
        self._rotated = rotated
        self._personal = self._token.count(".") == 2
        self._access = ""
        self._access_until = 0.0
        self._lock = threading.Lock()
        self.answered_at: datetime | None = None  # the other's clock in its last answer, to the second
        # No proxy from the environment: Label Studio is a neighbour, and the token is not for proxies to see.
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
            verify=trusted(),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Any = None,
        none_on_404: bool = False,
    ) -> Any:
        """The decoded JSON answer; None when it is empty, or a 404 that `none_on_404` expects.

        Raises LabelStudioUnavailable when nobody answers or the answer is a server error, LabelStudioRefused when
        the token or the request is not accepted. Neither error holds a secret.
        """
        for fresh in (False, True):
            response = self._send(method, path, params, body, self._authorization(fresh))
            if response.status_code != 401 or not (self._personal or self._has_changed()):
                break
        if response.status_code == 404 and none_on_404:
            return None
        self._check(response, f"{method} {path}", body)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise LabelStudioUnavailable(
                f"{method} {self.url}{path}: expected JSON, got {response.headers.get('content-type', 'no type')}; "
                f"is this address really Label Studio's?"
            ) from None

    def get(self, path: str, **params: Any) -> Any:
        """Answer to a GET with these query parameters."""
        return self.request("GET", path, params=params)

    def post(self, path: str, body: Any) -> Any:
        """Answer to a POST of this JSON."""
        return self.request("POST", path, body=body)

    def patch(self, path: str, body: Any) -> Any:
        """Answer to a PATCH with this JSON."""
        return self.request("PATCH", path, body=body)

    def delete(self, path: str) -> None:
        """DELETE; what is gone already is fine."""
        self.request("DELETE", path, none_on_404=True)

    def _send(self, method: str, path: str, params: Any, body: Any, authorization: str) -> httpx.Response:
        headers = {"Authorization": authorization} if authorization else {}
        try:
            response = self._http.request(method, path, params=params, json=body, headers=headers)
            self.answered_at = _date(response) or self.answered_at
            return response
        except httpx.TimeoutException as error:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} did not answer {method} {path} in time ({type(error).__name__}); "
                f"it may be starting or overloaded: try again"
            ) from None
        except httpx.HTTPError as error:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} cannot be reached ({type(error).__name__}); "
                f"start it with `cellloop label-studio start` or correct CELLLOOP_LABEL_STUDIO_URL"
            ) from None

    def _has_changed(self) -> bool:
        """Whether our token was rotated since; then we have the new one."""
        if self._rotated is None:
            return False
        known, self._token = self._token, self._rotated()
        return self._token != known

    def _authorization(self, fresh: bool) -> str:
        if not self._personal:
            return f"Token {self._token}"
        with self._lock:
            if fresh or time.monotonic() > self._access_until:
                response = self._send("POST", "/api/token/refresh", None, {"refresh": self._token}, "")
                self._check(response, "POST /api/token/refresh", None)
                self._access = response.json()["access"]
                self._access_until = time.monotonic() + ACCESS_TOKEN_S
            return f"Bearer {self._access}"

    def _check(self, response: httpx.Response, what: str, body: Any) -> None:
        status = response.status_code
        if status < 400:
            return
        if status in (401, 403):
            kind = "personal access token" if self._personal else "legacy token"
            raise LabelStudioRefused(
                f"Label Studio at {self.url} refuses our {kind} ({status} to {what}); set CELLLOOP_LABEL_STUDIO_TOKEN "
                f"to a token of Account & Settings > Personal Access Token (legacy tokens may be switched off there)"
            )
        detail = self._redacted(_detail(response), body)
        if status >= 500:
            raise LabelStudioUnavailable(f"Label Studio at {self.url} failed with {status} on {what}: {detail}")
        raise LabelStudioRefused(f"Label Studio at {self.url} refuses {what} with {status}: {detail}")

    def _redacted(self, text: str, body: Any) -> str:
        for secret in (self._token, self._access, *_secrets(body)):
            if secret:
                text = text.replace(secret, "***")
        return text[:DETAIL_CHARACTERS]


def _secrets(body: Any) -> list[str]:
    """Values of a request that an error may not repeat: passwords, and the headers of a webhook."""
    if not isinstance(body, dict):
        return []
    found = [str(value) for key, value in body.items() if "pass" in key or "token" in key]
    headers = body.get("headers")
    return found + ([str(value) for value in headers.values()] if isinstance(headers, dict) else [])


def _date(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def _detail(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return response.reason_phrase or "no explanation"
    if not isinstance(answer, dict):
        return str(answer)
    errors = answer.get("validation_errors")
    text = json.dumps(errors, ensure_ascii=False) if errors else str(answer.get("detail", answer))
    return re.sub(r"<[^>]+>", "", text)
