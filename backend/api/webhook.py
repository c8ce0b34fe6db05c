"""The wake-up call: Label Studio says that something happened, we write it down and answer at once.

Label Studio waits for us while the expert waits for Submit, gives up after a second and never tries again. So
nothing is done here but one INSERT; the worker polls for the truth, and an event that was lost costs only delay.
"""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends

from backend.api import auth
from backend.api.deps import ServerDep
from backend.api.errors import MalformedRequest
from backend.api.refusals import refusals
from backend.label_studio.protocol import Event, wake_up
from db import inbox

log = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(auth.webhook)], responses=refusals(401, 422))


@router.post("/webhook", status_code=202)
def webhook(server: ServerDep, body: Event) -> dict[str, bool]:
    """Store which project, tasks and annotations the event is about (START_TRAINING too), for the worker.

    Raises MalformedRequest for an action that only the dashboard may bring.
    """
    if body.action == inbox.RETRAIN_ASKED:
        raise MalformedRequest(f"action: expected one of Label Studio's, got {body.action}; ask on the dashboard")
    with server.database.session() as session:
        inbox.receive(session, body.action, wake_up(dict(body)))
    log.info("webhook %s", body.action)
    return {"received": True}
