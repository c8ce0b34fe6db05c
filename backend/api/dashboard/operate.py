"""What people with scope `operate` decide here: a training is wanted, or not any more; the version before serves again.

Each is a change of rows that the loop follows, like everything else; and each may be repeated without harm.
"""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import RedirectResponse

from backend.api import auth
from backend.api.auth import Visit
from backend.api.dashboard.forms import Fields, own_form
from backend.api.dashboard.view import Id
from backend.api.deps import ServerDep
from backend.api.errors import MalformedRequest
from backend.instances import ROLES
from backend.store import weights_file
from db import inbox, runs, versions
from db.errors import IllegalTransition
from db.models import ModelVersion

log = logging.getLogger(__name__)
router = APIRouter()

Form = Annotated[Fields, Depends(own_form)]
By = Annotated[Visit, Depends(auth.operator)]

LONGEST_REASON = 255


@router.post("/retrain")
def retrain(server: ServerDep, form: Form, by: By) -> Response:
    """Ask the worker for a retraining. While one is open, or asked for, another is the same one."""
    why = _reason(form, "a person asked on the dashboard")
    with server.database.session() as session:
        if not runs.all_open(session) and inbox.asked(session) is None:
            inbox.receive(session, inbox.RETRAIN_ASKED, {"why": why, "by": by.holder.name})
            log.info("%s asks for a retraining: %s", by.holder.name, why)
    return RedirectResponse("/dashboard#running", 303)


@router.post("/runs/{run_id}/cancel")
def cancel(run_id: Id, server: ServerDep, _form: Form, by: By) -> Response:
    """Cancel a training that is queued or running; it stops at its next step. Raises NotFound, IllegalTransition."""
    with server.database.session() as session:
        runs.cancel(session, run_id, f"cancelled by {by.holder.name}, on the dashboard")
    log.info("%s cancels run %d", by.holder.name, run_id)
    return RedirectResponse("/dashboard#running", 303)


@router.post("/rollback")
def rollback(server: ServerDep, form: Form, by: By) -> Response:
    """Let the version before serve again.

    Fields: role; active, the id of the version that the page showed as serving, so that a form sent twice, or from an
    old page, rolls nothing back that nobody has looked at; reason. Raises MalformedRequest, NotFound,
    IllegalTransition, StoredFileCorrupt when that version's weights are not whole.
    """
    role, shown = form.get("role", ""), form.get("active", "")
    if role not in ROLES:
        raise MalformedRequest(f"role: expected {' or '.join(ROLES)}, got {role[:40]!r}")
    reasons = [_reason(form, "rolled back by a person"), f"by {by.holder.name}, on the dashboard"]

    def whole(version: ModelVersion) -> None:
        server.store.verify(weights_file(version.weights_sha256), version.weights_sha256)

    with server.database.session() as session:
        serving = versions.active_ids(session).get(role)
        if serving is None or str(serving) != shown:
            raise IllegalTransition(
                f"{role}: expected version {shown[:20]!r} to serve, as the page said, found {serving or 'none'}; "
                "reload the page and look again"
            )
        decision = versions.roll_back(session, role, reasons, whole)
        log.info("%s rolls %s back to version %d", by.holder.name, role, decision.version_id)
    return RedirectResponse("/dashboard/models#serving", 303)


def _reason(form: Fields, otherwise: str) -> str:
    return form.get("reason", "").strip()[:LONGEST_REASON] or otherwise
