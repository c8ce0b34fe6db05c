"""One turn of the loop on one screen: from the labels we have to the order the expert sees next.

Each step is checkpointed in SQL when it returns, takes and gives plain JSON values, and may run again after a crash:
training resumes from its checkpoint, versions and decisions are recorded once, predictions and pushes only add what
is missing. Runs that want the same role exclude each other in `db/runs.py`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from dbos import DBOS

from al_loop import evaluate as evaluating
from al_loop import promote as promoting
from al_loop import push as pushing
from al_loop import rank as ranking
from al_loop import retrain as retraining
from al_loop import suspect as suspecting
from al_loop.jobs import current_loop
from al_loop.preannotate_pool import preannotate_pool
from backend.errors import CellloopError, FileStoreUnavailable, NotEnoughData
from db import projects, runs, versions
from db.models import RunStatus, VersionStatus

log = logging.getLogger("cellloop.cycle")


@DBOS.workflow(name="turn.v1")
def turn(run_id: int) -> dict[str, Any]:
    """Retrain, gate, and if the candidate is promoted let everything follow: predictions, order, Label Studio."""
    try:
        version_id = retrain(run_id)
        evaluation_id = evaluate(run_id, version_id)
        promoted = promote(run_id, version_id, evaluation_id)
        if promoted:
            preannotate(run_id)
        suspect()
        rank()
        pushed = push(run_id)
        finish(run_id, version_id, promoted)
    except retraining.RunCancelled as stop:
        return {"run": run_id, "cancelled": str(stop)}
    except CellloopError as error:  # expected: the run says what to do, and nothing else stops
        fail(run_id, str(error))
        return {"run": run_id, "failed": str(error)}
    except Exception as error:
        fail(run_id, f"{type(error).__name__}: {error}")
        raise
    return {"run": run_id, "version": version_id, "promoted": promoted} | pushed


@DBOS.workflow(name="follow.v1")
def follow() -> dict[str, Any]:
    """Let everything follow the pair that serves: after an import, a rollback, or a person's promotion."""
    try:
        preannotate(None)
        suspect()
        rank()
    except CellloopError as error:
        return {"pushed": [], "trouble": [str(error)]}
    return push(None)


@DBOS.step()
def retrain(run_id: int) -> int:
    """Train on every label recorded when the run was opened. Returns the candidate's id."""
    loop = current_loop()
    with loop.database.session() as session:
        if runs.get(session, run_id).status == RunStatus.cancelled:
            raise retraining.RunCancelled(f"training run {run_id} was cancelled before it began")
        runs.start_run(session, run_id)
    version_id = retraining.retrain(loop, run_id)
    with loop.database.session(read_only=True) as session:
        status = versions.get(session, version_id).status
    if status != VersionStatus.candidate:
        raise NotEnoughData(
            f"the same labels and settings gave version {version_id} again, which is {status.value}; "
            "review more images first, or promote that version"
        )
    return version_id


@DBOS.step()
def evaluate(run_id: int, version_id: int) -> int | None:
    """Candidate and incumbent on the frozen test split. Returns the candidate's evaluation."""
    loop = current_loop()
    note(run_id, "evaluating on the frozen test split")
    return evaluating.evaluate_candidate(loop, version_id)


@DBOS.step()
def promote(run_id: int, version_id: int, evaluation_id: int | None) -> bool:
    """The gate's decision, recorded with its reasons. True: the candidate serves from now on."""
    loop = current_loop()
    note(run_id, "deciding")
    verdict = promoting.decide(loop, version_id, evaluation_id, run_id)
    log.info("version %d %s", version_id, "is promoted" if verdict.promote else "is refused", extra=asdict(verdict))
    return verdict.promote


@DBOS.step()
def preannotate(run_id: int | None) -> int:
    """The pool as the new pair sees it. Returns how many images were predicted.

    Shared files that are away do not undo a turn: the worker lets it follow when they are back.
    """
    loop = current_loop()
    try:
        return preannotate_pool(loop, lambda done, total: note(run_id, f"predicting image {done} of {total}"))
    except FileStoreUnavailable as error:
        if run_id is None:
            raise
        log.warning("the pool is predicted later: %s", error)
        return 0


@DBOS.step()
def suspect() -> int:
    """Labels in doubt, by what models that never trained on them have seen. Returns how many are new."""
    return suspecting.suspect(current_loop().database).added


@DBOS.step()
def rank() -> int:
    """The next batch of fields and cells by what they are worth now. Returns how many images wait."""
    return ranking.rank(current_loop().database).images


@DBOS.step()
def push(run_id: int | None) -> dict[str, Any]:
    """Predictions and order into every project: {"pushed": reports, "trouble": what kept the other projects from it}.

    A Label Studio that is away does not undo a turn: the worker lets it follow when it is back.
    """
    loop = current_loop()
    note(run_id, "pushing predictions and order")
    studio = loop.label_studio()
    with loop.database.session(read_only=True) as session:
        known = projects.projects(session, studio.url)
    pushed, trouble = [], []
    for project in known:
        try:
            pushed.append({"project": project.id} | pushing.push(loop, studio, project).to_json())
        except CellloopError as error:
            trouble.append(f"{project.title} gets its predictions later: {error}")
    return {"pushed": pushed, "trouble": trouble}


@DBOS.step()
def finish(run_id: int, version_id: int, promoted: bool) -> None:
    """The run has succeeded, whatever the gate said: its labels are used."""
    loop = current_loop()
    with loop.database.session() as session:
        runs.finish(session, run_id, version_id, "promoted" if promoted else "refused by the gate")
    retraining.clean_up(loop, run_id)


@DBOS.step()
def fail(run_id: int, error: str) -> None:
    """The run has ended without a version; its labels count for the next one."""
    with current_loop().database.session() as session:
        runs.fail(session, run_id, error)


def note(run_id: int | None, message: str) -> None:
    """Tell SQL, and so everybody who looks, what the run is doing. Raises RunCancelled when somebody cancelled it."""
    if run_id is None:
        return
    with current_loop().database.session() as session:
        run = runs.get(session, run_id)
        alive = runs.progress(session, run_id, run.step, run.steps, message)
    if not alive:
        raise retraining.RunCancelled(f"training run {run_id} was cancelled before {message}")
