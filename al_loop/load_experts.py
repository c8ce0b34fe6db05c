"""Experts at work, over HTTP: each takes an item, opens it, thinks, submits, and asks for the next.

One event loop and raw HTTP/1.1, a connection per request as Label Studio makes them: on two cores, whoever makes the
load must leave the machine to whoever is measured.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from base64 import b64encode
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from al_loop.load_home import FIELDS, LoadPlan, LoadTask
from al_loop.load_studio import StandIn
from backend.credentials import Credentials
from db.models import Way

AGAIN_S = 0.5  # rest before asking again for an item: the answer to the last one has not been synced
TIMEOUT_S = 100.0  # Label Studio's own for /predict


@dataclass(frozen=True)
class Pace:
    """Seconds between opening and submitting, drawn evenly from 0.5 to 1.5 times these.

    People take 40 s for a field of sixty cells and 4 s for a crop (`cost.py`): here a short run shall say enough.
    """

    field_s: float = 8.0
    cell_s: float = 2.0


@dataclass
class Seen:
    """What happened: seconds by kind of request, and what went wrong. webhooks: annotations told of, answered 202."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    webhooks: set[int] = field(default_factory=set)
    submitted: set[tuple[int, int]] = field(default_factory=set)  # (project, annotation)


class Client:
    """Requests to one server on loopback, timed. token: of scope review."""

    def __init__(self, port: int, credentials: Credentials, token: str, seen: Seen) -> None:
        self.port = port
        self.seen = seen
        basic = b64encode(f"{credentials.basic_user}:{credentials.basic_password}".encode()).decode()
        self._headers = {
            "predict": f"Authorization: Basic {basic}\r\n",
            "webhook": f"Authorization: Bearer {credentials.webhook_secret}\r\n",
            "take": f"Authorization: Bearer {token}\r\n",
            "crop": "",
        }

    async def ask(self, kind: str, target: str, body: str = "", method: str = "POST") -> tuple[int, bytes]:
        """(status, body) of a request of this kind; (0, b"") when nobody answered. Its time is noted."""
        data = body.encode()
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{self._headers[kind]}"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        began = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(head.encode() + data)
                reply = await reader.read()
                writer.close()
        except (OSError, TimeoutError) as error:
            self.seen.errors.append(f"{kind}: {type(error).__name__} {error}")
            return 0, b""
        except asyncio.CancelledError:  # the measurement is over, and this one has taken at least so long
            self.seen.seconds[kind].append(time.perf_counter() - began)
            raise
        self.seen.seconds[kind].append(time.perf_counter() - began)
        top, _, content = reply.partition(b"\r\n\r\n")
        return int(top[9:12] or b"0"), content

    def wrong(self, kind: str, status: int, content: bytes) -> None:
        """Note an answer that is not the expected one."""
        self.seen.errors.append(f"{kind}: {status} {content[:200]!r}")


class Expert:
    """One of them. way: what they review."""

    def __init__(self, number: int, way: Way, client: Client, plan: LoadPlan, studio: StandIn, pace: Pace) -> None:
        self.number = number
        self.way = way
        self.client = client
        self.plan = plan
        self.studio = studio
        self.think_s = pace.field_s if way == Way.field else pace.cell_s
        self.chance = random.Random(number)
        self.last = 0

    async def work(self, until: float) -> None:
        """Until the loop's clock says so. They do not begin at the same moment, as nobody does."""
        await asyncio.sleep(self.chance.uniform(0, self.think_s))
        while asyncio.get_running_loop().time() < until:
            item = await self._take()
            if item is None:
                await asyncio.sleep(AGAIN_S)
                continue
            task = self.plan.tasks[item]
            await self.open(task)
            await asyncio.sleep(self.think_s * self.chance.uniform(0.5, 1.5))
            await self.submit(task)
            self.last = item

    async def _take(self) -> int | None:
        said = json.dumps({"expert": f"expert-{self.number}@load.test", "way": self.way.value})
        status, content = await self.client.ask("take", "/api/v1/queue/take", said)
        if status != 200:
            self.client.wrong("take", status, content)
            return None
        item = int(json.loads(content)["item"])
        return None if item == self.last else item

    async def open(self, task: LoadTask) -> None:
        """As Label Studio and the browser do when a task is opened."""
        if task.ls_project_id == FIELDS:
            status, content = await self.client.ask("predict", "/predict", task.opened)
            if status == 200 and b'"result"' not in content[:2000]:
                status = 0
        else:
            status, content = await self.client.ask("crop", task.opened, method="GET")
        if status != 200:
            self.client.wrong("open", status, content)

    async def submit(self, task: LoadTask) -> None:
        """Label Studio stores the annotation and tells us."""
        annotation = self.studio.submit(
            task.ls_project_id, task.ls_task_id, task.data, self.number, task.result, task.parent_prediction
        )
        self.client.seen.submitted.add((task.ls_project_id, annotation))
        status, content = await self.client.ask("webhook", "/webhook", webhook(task, annotation, self.number))
        if status in (201, 202):  # 201: theirs, with which ours is compared
            self.client.seen.webhooks.add(annotation)
        else:
            self.client.wrong("webhook", status, content)


def webhook(task: LoadTask, annotation: int, user: int) -> str:
    """The body of Label Studio's ANNOTATION_CREATED, with the regions inside."""
    facts: dict[str, Any] = {
        "action": "ANNOTATION_CREATED",
        "project": {"id": task.ls_project_id, "title": "load"},
        "task": {"id": task.ls_task_id, "data": task.data, "project": task.ls_project_id},
    }
    said = f'{{"id": {annotation}, "completed_by": {user}, "result": {task.result}}}'
    return f'{json.dumps(facts)[:-1]}, "annotation": {said}}}'


def experts(count: int, client: Client, plan: LoadPlan, studio: StandIn, pace: Pace) -> list[Expert]:
    """Half of them on fields, half on cells."""
    ways = (Way.field, Way.cell)
    return [Expert(n, ways[n % 2], client, plan, studio, pace) for n in range(1, count + 1)]
