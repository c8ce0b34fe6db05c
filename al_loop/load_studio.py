"""A stand-in for Label Studio on the wire: the answers that a sync reads, and nothing else. It lives in the event loop
of the load's own process, so that it takes little of what is measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

USERS = 64


def stamp(moment: datetime) -> str:
    """A moment as Label Studio writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class _Task:
    project: int
    data: Mapping[str, Any]
    updated_at: str
    annotations: list[str] = field(default_factory=list)  # as JSON


class StandIn:
    """Tasks and annotations of two projects. Users are called expert-<id>@load.test."""

    def __init__(self) -> None:
        self.tasks: dict[int, _Task] = {}
        self.last_annotation = 0
        self.requests = 0
        self._server: asyncio.Server | None = None

    def submit(
        self, project: int, task_id: int, data: Mapping[str, Any], user: int, result: str, parent: int | None
    ) -> int:
        """An expert submits; the annotation's id. result: the regions as JSON."""
        self.last_annotation += 1
        moment = stamp(datetime.now(UTC))
        task = self.tasks.setdefault(task_id, _Task(project, data, moment))
        task.updated_at = moment
        facts = {
            "id": self.last_annotation, "task": task_id, "completed_by": user, "was_cancelled": False,
            "ground_truth": False, "lead_time": 4.2, "parent_prediction": parent, "created_at": moment,
            "updated_at": moment,
        }  # fmt: skip
        task.annotations.append(f'{json.dumps(facts)[:-1]}, "result": {result}}}')
        return self.last_annotation

    async def start(self, port: int) -> None:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)

    async def stop(self) -> None:
        """Close the door."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                _, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                status, body = self._answer(target)
                reply = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(reply.encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # who asked has gone
        finally:
            writer.close()

    def _answer(self, target: str) -> tuple[str, bytes]:
        address = urlsplit(target)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        if address.path == "/api/users/":
            people = [{"id": n, "email": f"expert-{n}@load.test"} for n in range(1, USERS + 1)]
            return "200 OK", json.dumps(people).encode()
        if address.path == "/api/tasks/":
            return "200 OK", self._page(asked).encode()
        return "404 Not Found", b"{}"

    def _page(self, asked: Mapping[str, str]) -> str:
        conditions = json.loads(asked["query"])["filters"]["items"]
        wanted = {condition["filter"].rsplit(":", 1)[1]: condition["value"] for condition in conditions}
        last, since = int(wanted["id"]), str(wanted.get("updated_at", ""))
        found = [
            task_id
            for task_id, task in self.tasks.items()
            if task_id > last and task.project == int(asked["project"]) and task.updated_at >= since
        ]
        page = sorted(found)[: int(asked["page_size"])]
        return f'{{"total": {len(found)}, "tasks": [{", ".join(map(self._json, page))}]}}'

    def _json(self, task_id: int) -> str:
        task = self.tasks[task_id]
        facts = json.dumps({"id": task_id, "data": dict(task.data), "updated_at": task.updated_at})
        return f'{facts[:-1]}, "annotations": [{", ".join(task.annotations)}]}}'
