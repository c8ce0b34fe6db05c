"""Images that experts uploaded into Label Studio itself: fetched with our token, from that origin only."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from backend.errors import ImageRefused, LabelStudioRefused, LabelStudioUnavailable


class LabelStudioUploads:
    """Reads `/data/upload/...` of one Label Studio. Thread-safe; follows no redirect, so the token stays there.

    token: gives today's, which may be rotated meanwhile.
    """

    def __init__(self, url: str, token: Callable[[], str]) -> None:
        self.url = url.rstrip("/")
        self._token = token

    def fetch(self, path: str, *, max_bytes: int, timeout_s: float) -> bytes:
        """The bytes at this path.

        Raises ImageRefused when there is no such file or it is over `max_bytes`, LabelStudioRefused when the token
        is not accepted, LabelStudioUnavailable when nobody answers within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        try:
            with httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False) as client:
                headers = {"Authorization": self._authorization(client)}
                with client.stream("GET", path, headers=headers) as response:
                    self._check(response, path)
                    data = bytearray()
                    for block in response.iter_bytes():
                        data += block
                        if len(data) > max_bytes:
                            raise ImageRefused(f"{path}: expected at most {max_bytes} bytes, got more")
                        if time.monotonic() > deadline:
                            raise LabelStudioUnavailable(f"{self.url}{path}: not read within {timeout_s:.0f} s")
                    return bytes(data)
        except httpx.InvalidURL as error:
            raise ImageRefused(f"{path[:80]!r}: expected a path that can be asked for ({error})") from error
        except httpx.HTTPError as error:
            raise LabelStudioUnavailable(f"{self.url}{path}: {error or type(error).__name__}; is it up?") from error

    def _authorization(self, client: httpx.Client) -> str:
        # A personal access token is a refresh token (three dot-separated parts), refused when sent directly.
        token = self._token()
        if token.count(".") != 2:
            return f"Token {token}"
        response = client.post("/api/token/refresh", json={"refresh": token})
        self._check(response, "/api/token/refresh")
        return f"Bearer {response.json()['access']}"

    def _check(self, response: httpx.Response, path: str) -> None:
        if response.status_code in (401, 403):
            raise LabelStudioRefused(
                f"{self.url}{path}: Label Studio refused our token ({response.status_code}); "
                f"set CELLLOOP_LABEL_STUDIO_TOKEN to a token of a user of the project"
            )
        if response.status_code >= 500:
            raise LabelStudioUnavailable(f"{self.url}{path}: Label Studio answered {response.status_code}")
        if response.status_code != 200:
            raise ImageRefused(f"{self.url}{path}: expected the uploaded image, got status {response.status_code}")
