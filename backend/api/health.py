"""Am I up, what do I serve: answers that Label Studio waits 1 s and 3 s for, on every page.

None of them touches a model, and /health touches nothing at all.
"""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends

from backend.api import auth
from backend.api.deps import ServerDep
from backend.api.refusals import refusals
from backend.errors import UnusableLabelConfig
from backend.label_studio import label_config
from backend.label_studio.protocol import SetupRequest
from backend.serving import active_pair

log = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(auth.ml_backend)], responses=refusals(401, 422))

UNTRAINED = "cellloop-untrained"  # never the version of a stored prediction


@router.get("/health")
async def health() -> dict[str, str]:
    """Up. A coroutine on purpose: it never waits for a free thread while others detect."""
    return {"status": "UP"}


@router.post("/setup")
def setup(server: ServerDep, body: SetupRequest) -> dict[str, str]:
    """The version we serve: the active pair's name, or `cellloop-untrained` before there is one.

    A labelling configuration that cannot carry our cells is refused here, where Label Studio shows the refusal,
    rather than in /predict, where it would hide it. Raises UnusableLabelConfig.
    """
    try:
        label_config.parse(body.label_config)
    except UnusableLabelConfig as error:
        raise UnusableLabelConfig(f"project {body.project}: {error}") from error
    row = active_pair(server.database)
    return {"model_version": row.name if row else UNTRAINED}


@router.get("/versions")
def versions(server: ServerDep) -> dict[str, list[str]]:
    """The versions that can be predicted now: the active one, or none."""
    row = active_pair(server.database)
    return {"versions": [row.name] if row else []}
