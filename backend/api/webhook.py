"""The wake-up call: Label Studio says that something happened, we write it down and answer at once.

Label Studio waits for us while the expert waits for Submit, gives up after a second and never tries again. So
nothing is done here but one INSERT; the worker polls for the truth, and an event that was lost costs only delay.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends

from backend.api import auth
from backend.api.deps import ServerDep
from backend.api.errors import MalformedRequest
from backend.label_studio.protocol import wake_up
from db import inbox

log = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(auth.webhook)])

MAX_ACTION = 64


@router.post("/webhook", status_code=202)
def webhook(server: ServerDep, body: Annotated[dict[str, Any], Body()]) -> dict[str, bool]:
    """Store which project, tasks and annotations the event is about (START_TRAINING too), for the worker.

    Raises MalformedRequest without an action, or with one that only the dashboard may bring.
    """
    action = body.get("action")
    if not isinstance(action, str) or not 0 < len(action) <= MAX_ACTION:
        raise MalformedRequest(f"action: expected a text of 1 to {MAX_ACTION} characters, got {str(action)[:80]!r}")
    if action == inbox.RETRAIN_ASKED:
        raise MalformedRequest(f"action: expected one of Label Studio's, got {action}; ask on the dashboard")
    with server.database.session() as session:
        inbox.receive(session, action, wake_up(body))
    log.info("webhook %s", action)
    return {"received": True}
