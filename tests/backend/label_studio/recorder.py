"""A small HTTP server on loopback that answers what a test tells it and remembers what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Recorder:
    """answers: (status, JSON or text) by path; others get 404."""

    answers: dict[str, tuple[int, Any]]
    calls: list[Call] = field(default_factory=list)
    url: str = ""

    def to(self, path: str) -> list[Call]:
        """Calls to this path."""
        return [call for call in self.calls if call.path == path]


@contextmanager
def recording(answers: dict[str, tuple[int, Any]]) -> Iterator[Recorder]:
    """Serve until the block ends."""
    recorder = Recorder(answers)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            path = self.path.partition("?")[0]
            body = json.loads(text) if text else None
            recorder.calls.append(Call(self.command, path, dict(self.headers.items()), body))
            status, answer = recorder.answers.get(path, (404, {"detail": "not found"}))
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
