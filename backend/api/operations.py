"""What machines ask: `/health/live`, `/health/ready` and `/metrics`.

Who may ask: `/health/live` anybody, for it tells nothing that an open port does not tell. `/health/ready` anybody, yes
or no (200 or 503), as probes of compose, systemd or a proxy carry no secret; the reasons only who comes with one of
ours. `/metrics` a token that may read, like the rest of our API. (`/health` is Label Studio's own question, with its
Basic auth: see `health.py`.)
"""

from __future__ import annotations

import shutil
from functools import cache

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import DBAPIError

from backend.api import auth
from backend.api.deps import Server, ServerDep
from backend.api.errors import Unauthorized
from backend.api.refusals import refusals
from backend.doctor_machine import MIN_FREE_BYTES
from backend.errors import FileStoreUnavailable, StoredFileCorrupt
from backend.serving import active_pair
from db import migrate

router = APIRouter()

HEADERS = {"Cache-Control": "no-store"}
head = cache(migrate.head)


@router.get("/health/live", responses=refusals())
async def live() -> JSONResponse:
    """The process answers. Touches nothing: restart it when this fails."""
    return JSONResponse({"status": "UP"}, headers=HEADERS)


@router.get("/health/ready", responses=refusals() | {503: {"description": "not now"}})
async def ready(request: Request, server: ServerDep) -> JSONResponse:
    """200 when requests would be answered, else 503; with the reasons for who is known to us."""
    reasons = await run_in_threadpool(why_not_ready, server)
    body: dict[str, object] = {"ready": not reasons}
    if await _known(request, server):
        body["reasons"] = reasons
    return JSONResponse(body, 503 if reasons else 200, HEADERS)


@router.get(
    "/metrics",
    dependencies=[Depends(auth.reader)],
    response_class=Response,
    responses=refusals(401) | {200: {"content": {"text/plain": {}}, "description": "numbers"}},
)
def metrics(server: ServerDep) -> Response:
    """Everything counted and everything the record knows, in Prometheus' text format."""
    return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST, headers=HEADERS)


def why_not_ready(server: Server) -> list[str]:
    """What keeps this server from answering, in plain words; nothing when it is ready.

    Before there is a model it is ready: it tells Label Studio so, task by task.
    """
    if server.stopping.is_set():
        return ["the server is stopping"]
    free = shutil.disk_usage(server.settings.home).free
    full = [f"the home's disk has {free / 2**20:.0f} MiB left; free some space"] if free < MIN_FREE_BYTES else []
    return full + _record(server)


def _record(server: Server) -> list[str]:
    try:
        with server.database.session(read_only=True) as session:
            revision = migrate.revision_of(session.connection())
        if revision != head():
            return [f"the database has tables of revision {revision}, not today's; run: cellloop migrate"]
        row = active_pair(server.database)
    except DBAPIError:
        return ["the database does not answer; see the backend's log"]
    if row is None:
        return []
    try:
        server.pairs.verify(row)
    except (StoredFileCorrupt, FileStoreUnavailable) as error:
        return [f"pair {row.name} cannot be loaded: {error}"]
    return []


async def _known(request: Request, server: Server) -> bool:
    try:
        await auth.ml_backend(request, server)
        return True
    except Unauthorized:
        return await run_in_threadpool(_may_read, request, server)


def _may_read(request: Request, server: Server) -> bool:
    try:
        auth.reader(request, server)
    except Unauthorized:
        return False
    return True
