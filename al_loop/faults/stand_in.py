"""A stand-in for Label Studio as a process of its own: the same requests over HTTP, restarted in no time.

For rounds that would take too long with the real one. Our real client, transport and webhooks talk to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from al_loop.faults import stand_in_answers as answers
from al_loop.faults.stand_in_answers import Call, Reply
from al_loop.faults.stand_in_store import StandInStore

WEBHOOK_S = 1.0  # as Label Studio: no longer, and never again

ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", r"/api/version", answers.version),
    ("GET", r"/api/current-user/whoami", answers.whoami),
    ("GET", r"/api/users/", answers.users),
    ("GET", r"/api/projects/", answers.projects),
    ("POST", r"/api/projects/", answers.add_project),
    ("GET", r"/api/projects/(\d+)/", answers.project),
    ("PATCH", r"/api/projects/(\d+)/", answers.change_project),
    ("GET", r"/api/projects/(\d+)/next", answers.next_task),
    ("GET", r"/api/projects/(\d+)/model-versions/", answers.versions),
    ("POST", r"/api/projects/(\d+)/import", answers.import_tasks),
    ("POST", r"/api/projects/(\d+)/import/predictions", answers.import_predictions),
    ("GET", r"/api/tasks/", answers.tasks),
    ("GET", r"/api/tasks/(\d+)/", answers.task),
    ("PATCH", r"/api/tasks/(\d+)/", answers.change_task),
    ("POST", r"/api/tasks/(\d+)/annotations/", answers.submit),
    ("PATCH", r"/api/annotations/(\d+)/", answers.change_annotation),
    ("DELETE", r"/api/annotations/(\d+)/", answers.delete_annotation),
    ("POST", r"/api/annotations/(\d+)/convert-to-draft", answers.draft),
    ("GET", r"/api/predictions/(\d+)/", answers.prediction),
    ("PATCH", r"/api/predictions/(\d+)/", answers.change_prediction),
    ("POST", r"/api/dm/actions/", answers.delete_tasks),
]
for _path, _kind in (("storages/localfiles", "storage"), ("ml", "backend"), ("webhooks", "webhook")):
    ROUTES += [
        ("GET", rf"/api/{_path}/", answers.listed(_kind)),
        ("POST", rf"/api/{_path}/", answers.added(_kind)),
        ("PATCH", rf"/api/{_path}/(\d+)/?", answers.changed(_kind)),
        ("DELETE", rf"/api/{_path}/(\d+)/?", answers.removed(_kind)),
    ]


def stand_in_server(file: Path, port: int, tokens: dict[str, int]) -> ThreadingHTTPServer:
    """What answers on 127.0.0.1, to be served. file: what it remembers. tokens: user ids by their legacy tokens."""
    store = StandInStore(file)
    caller = httpx.Client(timeout=WEBHOOK_S, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def answer_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            user = tokens.get((self.headers.get("authorization") or "").removeprefix("Token "))
            address = urlsplit(self.path)
            if address.path == "/health":
                self.reply(200, {"status": "UP"})
            elif user is None:
                self.reply(401, {"detail": "Invalid token."})
            else:
                call = Call(store, user, dict(parse_qsl(address.query)), json.loads(body) if body else None)
                self.reply(*self.answered(call, address.path))

        do_GET = do_POST = do_PATCH = do_DELETE = answer_any

        def answered(self, call: Call, path: str) -> Reply:
            for method, pattern, answer in ROUTES:
                found = re.fullmatch(pattern, path) if method == self.command else None
                if found is not None:
                    with store.transaction():
                        reply = answer(call, *map(int, found.groups()))
                        hooks = [(hook, event) for project, event in call.events for hook in _hooks(store, project)]
                    for hook, event in hooks:
                        _call_webhook(caller, hook, event)
                    return reply
            return 404, {"detail": f"no {self.command} {path}"}

        def reply(self, status: int, answer: Any) -> None:
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return _Server(("127.0.0.1", port), Handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True  # it is started again at its port right after kill -9
    block_on_close = False


def _hooks(store: StandInStore, project: int) -> list[dict[str, Any]]:
    return store.below("webhook", project)


def _call_webhook(caller: httpx.Client, hook: dict[str, Any], event: dict[str, Any]) -> None:
    """One POST, and whatever becomes of it is nobody's business any more."""
    if event["action"] not in hook["actions"]:
        return
    with suppress(httpx.HTTPError):
        caller.post(hook["url"], json=event, headers=hook["headers"])
