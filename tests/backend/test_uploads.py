"""Uploads: fetched from a real HTTP server of our own, with both kinds of token and every refusal."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backend.errors import ImageRefused, LabelStudioRefused, LabelStudioUnavailable
from backend.label_studio.uploads import LabelStudioUploads

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "header.payload.signature"
IMAGE = b"\x89PNG" + bytes(5000)


class Handler(BaseHTTPRequestHandler):
    """The part of Label Studio that serves uploads: legacy and five-minute tokens, personal ones only to refresh."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") not in (f"Token {LEGACY}", "Bearer five-minutes"):
            self._answer(401, b"{}")
        elif self.path == "/data/upload/1/a.png":
            self._answer(200, IMAGE)
        elif self.path == "/data/upload/1/moved.png":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/stolen")
            self.end_headers()
        else:
            self._answer(500 if "broken" in self.path else 404, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.path == "/api/token/refresh" and body == {"refresh": PERSONAL}
        self._answer(200 if known else 401, b'{"access": "five-minutes"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(origin: str, path: str, token: str = LEGACY, max_bytes: int = 10_000) -> bytes:
    return LabelStudioUploads(origin, lambda: token).fetch(path, max_bytes=max_bytes, timeout_s=5)


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_both_kinds_of_token(origin: str, token: str) -> None:
    assert fetch(origin, "/data/upload/1/a.png", token) == IMAGE


@pytest.mark.parametrize("token", ["f" * 40, "another.personal.token"])
def test_a_refused_token(origin: str, token: str) -> None:
    with pytest.raises(LabelStudioRefused, match="CELLLOOP_LABEL_STUDIO_TOKEN"):
        fetch(origin, "/data/upload/1/a.png", token)


def test_too_large(origin: str) -> None:
    with pytest.raises(ImageRefused, match="at most 4000 bytes"):
        fetch(origin, "/data/upload/1/a.png", max_bytes=4000)


def test_no_such_file(origin: str) -> None:
    with pytest.raises(ImageRefused, match="404"):
        fetch(origin, "/data/upload/1/b.png")


def test_a_redirect_is_not_followed(origin: str) -> None:
    with pytest.raises(ImageRefused, match="302"):
        fetch(origin, "/data/upload/1/moved.png")


def test_a_server_error(origin: str) -> None:
    with pytest.raises(LabelStudioUnavailable, match="500"):
        fetch(origin, "/data/upload/1/broken.png")


def test_nobody_answers() -> None:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{finder.getsockname()[1]}"
    with pytest.raises(LabelStudioUnavailable, match="is it up"):
        fetch(url, "/data/upload/1/a.png")
