"""One turn of the loop on one screen: from the labels we have to the order the expert sees next.

Each step is checkpointed in SQL when it returns, takes and gives plain JSON values, and may run again after a crash, on
this worker or another: training resumes from its checkpoint, versions and decisions are recorded once, predictions and
pushes only add what is missing. Runs that want the same role exclude each other in `db/runs.py`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from dbos import DBOS

from al_loop import canary as canaries
from al_loop import evaluate as evaluating
from al_loop import promote as promoting
from al_loop import retrain as retraining
from al_loop.follow import follow
from al_loop.gate import Verdict
from al_loop.jobs import LOOK_EVERY_S, SYNC, Runtime, runtime
from al_loop.retrain import RunCancelled
from al_loop.run_checkpoints import Checkpoints
from al_loop.stages import stage
from al_loop.train_together import train_together
from backend.errors import CellloopError, NotEnoughData
from db import runs, versions
from db.models import VersionStatus

log = logging.getLogger("cellloop.cycle")


TURN = "turn-v2"  # the workflow of run 7 is turn-v2-7


@DBOS.workflow(name="turn.v2", max_recovery_attempts=20)
def turn(run_id: int) -> dict[str, Any]:
    """Retrain, gate, and let everything follow: predictions, order, Label Studio."""
    try:
        snapshot(run_id)
        version_id = train(run_id)
        evaluation_id = evaluate(run_id, version_id)
        verdicts = [judge(run_id, version_id, evaluation_id)]
        if verdicts[0]["promote"]:
            verdicts.append(canary(run_id, version_id))
        promoted = promote(run_id, version_id, evaluation_id, verdicts)
        followed = DBOS.enqueue_workflow(SYNC, follow, run_id).get_result(polling_interval_sec=LOOK_EVERY_S)
        finish(run_id, version_id, promoted)
    except RunCancelled as stop:
        return {"run": run_id, "cancelled": str(stop)}
    except CellloopError as error:  # expected: the run says what to do, and nothing else stops
        fail(run_id, str(error))
        return {"run": run_id, "failed": str(error)}
    except Exception as error:
        fail(run_id, f"{type(error).__name__}: {error}")
        raise
    return {"run": run_id, "version": version_id, "promoted": promoted} | followed


@DBOS.step()
def snapshot(run_id: int) -> str:
    """What the run trains on: every label recorded when it was opened. Returns the manifest's sha256."""
    with stage(run_id, "snapshot", "reading the labels") as here:
        manifest = retraining.take_snapshot(here.loop, run_id)
        log.info("%d images, labels up to revision %d", len(manifest.images), manifest.newest_revision_id)
        return manifest.sha256


@DBOS.step()
def train(run_id: int) -> int:
    """Train on these labels, from the last checkpoint on if there is one. Returns the candidate's id."""
    with stage(run_id, "train", "preparing the training") as here:
        version_id = _trained(here, run_id)
        with here.loop.database.session(read_only=True) as session:
            status = versions.get(session, version_id).status
        if status != VersionStatus.candidate:
            raise NotEnoughData(
                f"the same labels and settings gave version {version_id} again, which is {status.value}; "
                "review more images first, or promote that version"
            )
        return version_id


def _trained(here: Runtime, run_id: int) -> int:
    processes = here.loop.settings.train_processes
    if processes > 1:
        return train_together(here.loop, run_id, here.worker_id, processes)
    return retraining.retrain(here.loop, run_id, worker_id=here.worker_id)


@DBOS.step()
def evaluate(run_id: int, version_id: int) -> int | None:
    """Candidate and incumbent on the frozen test split. Returns the candidate's evaluation."""
    with stage(run_id, "evaluate", "evaluating on the frozen test split") as here:
        return evaluating.evaluate_candidate(here.loop, version_id)


@DBOS.step()
def judge(run_id: int, version_id: int, evaluation_id: int | None) -> dict[str, Any]:
    """The gate's verdict, with its reasons and numbers."""
    with stage(run_id, "judge", "comparing it with the pair that serves") as here:
        return asdict(promoting.judge(here.loop, version_id, evaluation_id))


@DBOS.step()
def canary(run_id: int, version_id: int) -> dict[str, Any]:
    """What experts would have to correct in random fields, beside the pair that serves."""
    with stage(run_id, "canary", "predicting random fields that experts have answered") as here:
        return asdict(canaries.replay(here.loop, version_id, run_id))


@DBOS.step()
def promote(run_id: int, version_id: int, evaluation_id: int | None, verdicts: list[dict[str, Any]]) -> bool:
    """What follows from the verdicts, recorded with their reasons. True: the candidate serves from now on."""
    with stage(run_id, "promote", "deciding") as here:
        said = [Verdict(**verdict) for verdict in verdicts]
        verdict = promoting.settle(here.loop, version_id, evaluation_id, run_id, said)
        word = "is promoted" if verdict.promote else "is refused"
        log.info("version %d %s: %s", version_id, word, "; ".join(verdict.reasons), extra=asdict(verdict))
        return verdict.promote


@DBOS.step()
def finish(run_id: int, version_id: int, promoted: bool) -> None:
    """The run has succeeded, whatever the gate said: its labels are used."""
    with stage(run_id, "finish", "finishing") as here:
        Checkpoints(here.loop, run_id).remove()  # the weights are in the store
        with here.loop.database.session() as session:
            outcome = "promoted" if promoted else "refused"
            runs.finish(session, run_id, version_id, outcome, worker_id=here.worker_id)


@DBOS.step()
def fail(run_id: int, error: str) -> None:
    """The run has ended without a version; its labels count for the next one."""
    here = runtime()
    log.error("training run %d failed: %s", run_id, error)
    with here.loop.database.session() as session:
        runs.take_up(session, run_id, here.worker_id)
        runs.fail(session, run_id, error, worker_id=here.worker_id)
