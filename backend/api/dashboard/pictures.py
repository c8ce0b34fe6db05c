"""Pictures for the dashboard's pages: whole fields, small ones, and cells. Looking at a cell here holds nothing."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from backend.api import auth
from backend.api.crops import crop_reply, kept_reply
from backend.api.dashboard.view import Id
from backend.api.deps import Server, ServerDep
from backend.store import FileStore
from db import cells, images
from db.errors import NotFound
from db.models import Image

router = APIRouter(dependencies=[Depends(auth.reader)])

PRIVATE = {"Cache-Control": "private, no-cache"}  # asked again each time: whoever has signed out sees nothing
SHOWN_AS_THEY_ARE = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}
THUMBNAIL_PX = 480


@router.get("/cells/{cell_id}/crop.jpg")
def cell_crop(cell_id: Id, request: Request, server: ServerDep) -> Response:
    """The cell with its surroundings. Raises NotFound for an unknown cell, and for one without any place."""
    with server.database.session(read_only=True) as session:
        image = images.get(session, cells.get(session, cell_id).image_id)
        box = cells.place_of(session, cell_id)
    if box is None:
        raise NotFound(f"cell {cell_id}: expected a box by an expert or a model, found none: there is nothing to show")
    return crop_reply(server, request, image.sha256, image.file, box, PRIVATE)


@router.get("/images/{image_id}/file")
def whole(image_id: Id, request: Request, server: ServerDep) -> Response:
    """The field as it was imported; as PNG where browsers do not know its format. Raises NotFound."""
    image = _image(server, image_id)
    headers = {**PRIVATE, "ETag": f'"{image.sha256}"'}
    if image.sha256 in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    data = server.store.read(image.file, image.sha256)
    media_type = SHOWN_AS_THEY_ARE.get(image.file.rpartition(".")[2].lower())
    return Response(data if media_type else _as_png(data), media_type=media_type or "image/png", headers=headers)


@router.get("/images/{image_id}/thumbnail.jpg")
def thumbnail(image_id: Id, request: Request, server: ServerDep) -> Response:
    """The field, small. Raises NotFound."""
    image = _image(server, image_id)
    facts = ("thumbnail", THUMBNAIL_PX, image.sha256)
    return kept_reply(server, request, facts, PRIVATE, lambda: _small(server.store, image))


def _image(server: Server, image_id: int) -> Image:
    with server.database.session(read_only=True) as session:
        return images.get(session, image_id)


def _as_png(data: bytes) -> bytes:
    import cv2

    from backend.images import read_image

    done, png = cv2.imencode(".png", cv2.cvtColor(read_image(data), cv2.COLOR_RGB2BGR))
    assert done
    return png.tobytes()


def _small(store: FileStore, image: Image) -> bytes:
    import cv2

    from backend.crop_view import jpeg
    from backend.images import read_image

    pixels = read_image(store.read(image.file, image.sha256))
    scale = THUMBNAIL_PX / max(pixels.shape[:2])
    return jpeg(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))  # type: ignore[arg-type]
