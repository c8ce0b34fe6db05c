"""`POST /api/v1/queue/take|release`: the queue for tools other than Label Studio, an expert's next item at a time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from backend.api import auth
from backend.api.deps import ServerDep
from backend.api.refusals import refusals
from backend.crop_address import crop_name
from db import assignments
from db.models import Slot, Way

router = APIRouter(prefix="/api/v1/queue", dependencies=[Depends(auth.reviewer)], responses=refusals(401, 403, 422))

Expert = Field(
    min_length=1,
    max_length=255,
    pattern=r"^[^\x00-\x1f\x7f]+$",
    description="as reviews name them: an e-mail address",
)


class Take(BaseModel):
    """Who asks, and for which way of reviewing; either when left out."""

    expert: str = Expert
    way: Way | None = None


class Release(BaseModel):
    """Who gives which item back unanswered."""

    expert: str = Expert
    item: int = Field(ge=1, le=2**31 - 1)


@router.post("/take", response_model=None, responses={204: {"description": "nothing is left for them"}})
def take(asked: Take, server: ServerDep) -> dict[str, Any] | Response:
    """The most valuable item nobody has in hand, this expert's until `until`; 204 when nothing is left for them.

    A second reading says nothing but where to look.
    """
    with server.database.session() as session:
        item = assignments.take(session, asked.expert, asked.way)
        if item is None:
            return Response(status_code=204)
        cell = item.way == Way.cell
        return {
            "item": item.id,
            "way": item.way,
            "image": item.image_id,
            "cell": item.cell_id,
            "reason": "" if item.slot == Slot.second_reading else item.reason,
            "crop": f"/crops/{crop_name(item.id, server.credentials.crop_key)}" if cell else None,
            "until": item.assigned_until.isoformat() if item.assigned_until else None,
        }


@router.post("/release", status_code=204, responses={409: {"description": "they do not have it in hand"}})
def release(given: Release, server: ServerDep) -> Response:
    """Give an item back; 409 when this expert does not have it in hand."""
    with server.database.session() as session:
        returned = assignments.release(session, given.item, given.expert)
    return Response(status_code=204 if returned else 409)
