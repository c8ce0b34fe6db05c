"""`GET /crops/<item>-<signature>.jpg`: the cell a queue item asks about, for the expert's browser.

The address is the authorisation: it is signed, so that only who was given a task knows it. Label Studio's page comes
from another origin and may read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request, Response
from starlette.background import BackgroundTask

from backend.api.deps import Server, ServerDep
from backend.api.refusals import refusals
from backend.crop_address import item_of
from backend.crop_view import VIEW, draw_crop, jpeg
from backend.label_studio.cell_config import CROP_PX
from db import assignments, cell_tasks
from db.cell_tasks import AskedCell, Box
from db.models import ItemStatus

router = APIRouter()

HOLDER = "label studio"
HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    # The browser asks again each time, so that we learn that the cell is looked at; unchanged, it costs 304.
    "Cache-Control": "private, no-cache",
}


@router.get(
    "/crops/{name}",
    response_class=Response,
    responses={
        **refusals(),
        200: {"content": {"image/jpeg": {}}, "description": "the crop"},
        304: {"description": "the browser has it"},
        404: {"description": "no address of ours"},
    },
)
def crop(name: str, request: Request, server: ServerDep) -> Response:
    """The crop as a JPEG; 404 for an address we did not make. The item counts as in an expert's hands from now on."""
    item_id = item_of(name, server.credentials.crop_key)
    asked = _asked(server, item_id) if item_id is not None else None
    if asked is None:
        return Response(status_code=404, headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"})
    return crop_reply(server, request, asked.sha256, asked.file, asked.box, HEADERS)


def crop_reply(
    server: Server, request: Request, sha256: str, file: str, box: Box, headers: Mapping[str, str]
) -> Response:
    """The crop around `box` (xyxy px) of this image as a JPEG, drawn once; 304 where the browser has it."""
    return kept_reply(server, request, _facts(sha256, box), headers, lambda: _draw(server, sha256, file, box))


def kept_reply(
    server: Server, request: Request, facts: tuple[object, ...], headers: Mapping[str, str], draw: Callable[[], bytes]
) -> Response:
    """The JPEG that follows from these facts, drawn at most once; 304 where the browser has it."""
    key = _key(facts)
    headers = {**headers, "ETag": f'"{key}"'}
    if key in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    data = server.crops.get(key)
    later = None
    if data is None:
        data = draw()
        later = BackgroundTask(server.crops.put, key, data)  # whoever looks does not wait for the disk
    return Response(data, media_type="image/jpeg", headers=headers, background=later)


def draw_before_asked(server: Server, asked: AskedCell) -> bool:
    """Draw this cell's crop where nobody has yet; whether it had to be."""
    key = _key(_facts(asked.sha256, asked.box))
    if server.crops.get(key) is not None:
        return False
    server.crops.put(key, _draw(server, asked.sha256, asked.file, asked.box))
    return True


def _facts(sha256: str, box: Box) -> tuple[object, ...]:
    return (VIEW, CROP_PX, sha256, *(round(corner, 2) for corner in box))


def _key(facts: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:40]


def _asked(server: Server, item_id: int) -> AskedCell | None:
    with server.database.session(read_only=True) as session:
        asked = cell_tasks.asked(session, item_id)
        held = assignments.is_held(session, item_id)
    if asked is not None and asked.status == ItemStatus.pending and not held:
        with server.database.session() as session:
            assignments.hold(session, item_id, HOLDER)
    return asked


def _draw(server: Server, sha256: str, file: str, box: Box) -> bytes:
    return jpeg(draw_crop(server.decoded.get(file, sha256), box, CROP_PX))
