"""Train one version here and now, in the foreground: how an installation gets its first two detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from al_loop.context import Loop
from al_loop.retrain import RunCancelled, clean_up, retrain, training_config
from al_loop.train import Progress
from backend.errors import CellloopError, TrainingUnderWay
from db import runs, versions
from db.errors import RecordError

TRIGGER = "first"  # the worker leaves these runs alone: the process that opened one trains it


@dataclass(frozen=True)
class TrainedVersion:
    """A finished training. active: whether the version serves already, which only the first of its role does."""

    run_id: int
    version_id: int
    role: str
    active: bool


def train_version(
    loop: Loop, role: str, on_progress: Callable[[Progress], None] = lambda progress: None
) -> TrainedVersion:
    """Train `role` on the labels there are. The first version of its role serves at once; others wait for `promote`.

    Interrupted and called again, it goes on with the same run from its checkpoint. Raises TrainingUnderWay when the
    worker has a run of this role, NotEnoughData, TrainingDiverged, RunCancelled.
    """
    run_id = _open(loop, role)
    try:
        version_id = retrain(loop, run_id, on_progress)
    except RunCancelled:
        raise
    except (CellloopError, RecordError) as error:
        with loop.database.session() as session:
            runs.fail(session, run_id, str(error))
        raise
    with loop.database.session() as session:
        first = versions.active(session, role) is None
        if first:
            versions.activate(session, version_id, kind="first", reasons=["the first of its role"], run_id=run_id)
        runs.finish(session, run_id, version_id, "serves" if first else "waits for a promotion")
    clean_up(loop, run_id)
    return TrainedVersion(run_id, version_id, role, active=first)


def _open(loop: Loop, role: str) -> int:
    config = asdict(training_config(loop.settings, role))
    with loop.database.session() as session:
        run = runs.open_run(session, role, TRIGGER, {}, config) or runs.open_of(session, role)
        if run is None or run.trigger != TRIGGER:
            number = "" if run is None else f" (run {run.id}, opened by {run.trigger})"
            raise TrainingUnderWay(
                f"expected no other training of {role}, but one is under way{number}: wait for the worker to end it"
            )
        runs.start_run(session, run.id)
        return run.id
