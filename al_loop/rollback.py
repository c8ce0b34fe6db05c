"""The version before serves again, and at once so: its stored predictions, its order, Label Studio's model version.

The row change alone makes the server answer with it. What it has predicted is in SQL and in Label Studio, so nothing
is detected: the pool is ranked by it, and Label Studio is told. What cannot be done now (Label Studio is away, images
came that it has never seen) the worker does as soon as it can, as after any other change of the pair.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

from al_loop.context import Loop
from al_loop.preannotate_pool import waiting
from al_loop.promote import check_weights
from al_loop.push import push
from al_loop.rank import rank
from backend.errors import CellloopError
from db import projects
from db.errors import RecordError
from db.versions import roll_back

log = logging.getLogger("cellloop.rollback")


@dataclass(frozen=True)
class RollbackReport:
    """active: the version that serves again; replaced: the one that did. shown: projects that show its predictions.

    left: what the worker will do as soon as it can, in words. seconds: from the moment the
    server answers with it until Label Studio shows it, too.
    """

    role: str
    active: int
    replaced: int | None
    shown: list[str]
    left: list[str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def rollback(loop: Loop, role: str, *, reason: str = "rolled back by a person") -> RollbackReport:
    """Let the version serve again that the active one replaced; repeated, one further back. Then bring back the rest.

    Raises NotFound when the active version replaced nothing, StoredFileCorrupt when the one before could not serve;
    then nothing changes.
    """
    with loop.database.session() as session:
        decision = roll_back(session, role, [reason], lambda before: check_weights(loop.store, before))
    began = time.monotonic()
    shown, left = bring_back(loop)
    seconds = round(time.monotonic() - began, 1)
    return RollbackReport(role, decision.version_id, decision.replaced_id, shown, left, seconds)


def bring_back(loop: Loop) -> tuple[list[str], list[str]]:
    """Order and show what the serving pair has predicted: titles of projects that show it, and what is left to do."""
    _, unseen = waiting(loop)
    left = [f"{len(unseen)} images are predicted by the worker: this pair has never seen them"] if unseen else []
    shown = []
    try:
        rank(loop.database)
        studio = loop.label_studio()
        with loop.database.session(read_only=True) as session:
            known = projects.projects(session, studio.url)
    except (CellloopError, RecordError) as error:
        return [], [*left, str(error)]
    for project in known:
        try:
            push(loop, studio, project, wait=False)
            shown.append(project.title)
        except (CellloopError, RecordError) as error:
            left.append(f"{project.title} is shown it by the worker: {error}")
    return shown, left
